"""tools/embed: in its process, on Ray, interrupted, and on a cluster that shrinks."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import datasets
import duckdb
import numpy as np
import pandas
import psutil
import pytest
from pyarrow import parquet

from tests.conftest import ROOT
from tests.images import kinds

SIZE = 16
MODULE = "feature_vector/1"


def make_photographs(root, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"{number % 3}" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
        (folder / f"{number:03}.png").write_bytes(kinds.encoded(pixels, "PNG"))
    return root


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns a folder with images at two depths, so without classes; one is broken."""
    root = make_photographs(tmp_path_factory.mktemp("data") / "mess", 40)
    (root / "top.png").write_bytes(kinds.encoded(np.zeros((9, 9, 3), np.uint8), "PNG"))
    (root / "0" / "deeper" / "003.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("mine")
    return root


def start(*arguments, **kwargs):
    command = [sys.executable, str(ROOT / "tools" / "embed"), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def arguments_of(pair, photographs, output, *more):
    return (
        f"--module={pair / MODULE}",
        f"--data={photographs}",
        f"--output={output}",
        "--batch_size=4",
        *more,
    )


def rows_of(folder):
    return parquet.read_table(folder).sort_by("number").replace_schema_metadata()


ON_RAY = "--workers=2"
"""The option that needs Ray on a machine of two cores."""


@pytest.mark.ci
@pytest.mark.parametrize("more", [(), (ON_RAY,)])
def test_anybody_reads_what_was_embedded(pair, photographs, tmp_path, more):
    output = tmp_path / "new" / "features"
    arguments = arguments_of(pair, photographs, output, *more)
    process = start(*arguments)
    addresses = set()
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                connections = child.net_connections("inet")
            except psutil.Error:
                continue
            addresses |= {c.laddr.ip for c in connections if c.status == "LISTEN"}
        time.sleep(0.2)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    loopback = {"127.0.0.1"} if more else set()
    assert {a.removeprefix("::ffff:") for a in addresses} == loopback
    assert stdout == f"{output}\n"
    for folder in {"/tmp", tempfile.gettempdir()}:
        assert not [*pathlib.Path(folder).glob(f"zoo-ray-{process.pid}-*")]
    assert "files left out: 1 .txt" in stderr
    assert "no labels: only 40 of the 41 images have one" in stderr
    assert "1 of 41 images are not readable" in stderr
    assert "ray" not in stderr.lower()

    table = rows_of(output)
    assert table["number"].to_pylist() == [*range(41)]
    assert len(set(table["key"].to_pylist())) == 41
    assert "top.png" in table["key"].to_pylist()
    assert table["label"].null_count == 41
    frame = pandas.read_parquet(output)
    assert frame["error"].notna().sum() == 1
    query = f"SELECT count(*) FROM '{output}/*.parquet' WHERE len(features) = 64"
    assert duckdb.sql(query).fetchall() == [(40,)]
    shards = [str(path) for path in sorted(output.glob("*.parquet"))]
    rows = datasets.load_dataset(
        "parquet", data_files=shards, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(rows) == 41
    record = json.loads((output / "_SUCCESS.json").read_text())
    assert (record["count"], record["errors"]) == (41, 1)
    assert record["shards"] == [os.path.basename(path) for path in shards]

    again = start(*arguments)
    _, stderr = again.communicate()
    assert again.returncode == 0
    assert "is complete already" in stderr


@pytest.mark.ci
def test_unreadable_images_may_be_tried_again(pair, tmp_path):
    data = make_photographs(tmp_path / "data", 6)
    broken = next(data.rglob("003.png"))
    whole, times = broken.read_bytes(), broken.stat()
    broken.write_bytes(bytes(len(whole)))
    os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    output, binding = tmp_path / "features", "tfrecord.image='png'"
    for more, errors in (((), 1), ((), 1), (("--retry",), 0)):
        arguments = arguments_of(pair, "data", output, f"--gin_binding={binding}")
        process = start(*arguments, *more, cwd=tmp_path)
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        record = json.loads((output / "_SUCCESS.json").read_text())
        assert record["errors"] == errors
        assert record["source"] == str(data)
        assert record["gin_binding"] == [binding]
        assert ("--retry tries them again" in stderr) == bool(errors)
        broken.write_bytes(whole)
        os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert rows_of(output)["error"].null_count == 6


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), (ON_RAY,)])
def test_a_killed_job_goes_on(pair, tmp_path, more):
    data = make_photographs(tmp_path / "data", 5000)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(*arguments_of(pair, data, killed, *more), start_new_session=True)
    while not list(killed.glob("part-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(list(killed.glob("part-*")))
    assert 1 <= done < 5
    assert not (killed / "_SUCCESS.json").exists()
    for output in (killed, whole):
        process = start(*arguments_of(pair, data, output, *more))
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        assert ("going on: " in stderr) == (output == killed)
    assert rows_of(killed) == rows_of(whole)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), (ON_RAY,)])
def test_ctrl_c_ends_all_processes(pair, tmp_path, more):
    data = make_photographs(tmp_path / "data", 5000)
    process = start(*arguments_of(pair, data, tmp_path / "out", *more))
    while not list(tmp_path.glob("out/part-*")) and process.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "embed: interrupted"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_a_machine_of_a_cluster_may_die(pair, tmp_path):
    data = make_photographs(tmp_path / "data", 5000)
    program = f"""
import time, pathlib, subprocess, sys
from ray import cluster_utils
cluster = cluster_utils.Cluster(
    initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}}
)
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
command = [*sys.argv[1:], "--cluster=" + cluster.address]
job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
output = pathlib.Path({str(tmp_path / "cluster")!r})
while not list(output.glob("part-*")) and job.poll() is None:
    time.sleep(0.05)
cluster.remove_node(nodes[0], allow_graceful=False)
_, text = job.communicate()
cluster.shutdown()
sys.exit(text if job.returncode else 0)
"""
    tool = (sys.executable, str(ROOT / "tools" / "embed"))
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, *tool),
            *arguments_of(pair, data, tmp_path / "cluster"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    process = start(*arguments_of(pair, data, tmp_path / "local"))
    process.communicate()
    assert rows_of(tmp_path / "cluster") == rows_of(tmp_path / "local")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--outputs="], "--outputs is empty"),
        (["--batch_size=0"], "--batch_size"),
        (["--dtype=int8"], "--dtype"),
    ],
)
def test_wrong_usage_is_told_in_a_line(
    tool, pair, photographs, tmp_path, more, message
):
    done = tool("embed", *arguments_of(pair, photographs, tmp_path / "out", *more))
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.ci
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--cluster=nonsense"],
            "--cluster (or RAY_ADDRESS) must be local, auto or HOST:PORT, not",
        ),
        (["--cluster=127.0.0.1:1"], "nothing answers at 127.0.0.1:1"),
        (["--workers=99"], "99 workers need"),
        (["--outputs=featurs"], "has no endpoint 'featurs'; it has default, feature_m"),
        (["--module=nowhere"], "--module must be a SavedModel"),
        (["--data=nowhere"], "--data must be one of FOLDER"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(
    tool, pair, photographs, tmp_path, more, message
):
    done = tool("embed", *arguments_of(pair, photographs, tmp_path / "out", *more))
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.ci
def test_a_folder_of_something_else_is_kept(tool, pair, photographs):
    done = tool("embed", *arguments_of(pair, photographs, photographs))
    assert done.returncode == 2
    assert "holds something else, such as 0:" in done.stderr.splitlines()[-1]
    assert (photographs / "notes.txt").read_text() == "mine"
