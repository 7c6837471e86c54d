"""The benchmark measures our models and those of keras.applications."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from reuse import precision
from tests.zoo import oracles

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "benchmark"
SMALL = (
    *("--format=json", "--repeat=2", "--exports=1", "--batches=2", "--size=64"),
    *("--train_size=64", "--train_batch=2"),
)


@pytest.mark.slow
def test_every_measure_has_a_row_with_both_sides(tool, tmp_path):
    output = tmp_path / "rows.json"
    done = tool("benchmark", "mobilenet_v3_small", *SMALL, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    record = json.loads(output.read_text())
    rows = {row["measure"]: row for row in record["rows"]}
    assert list(rows) == [
        *("export of the pair", "peak memory of it", "pair on disk", "load"),
        *("first call", "inference, batch 2", "fine-tune step"),
    ]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"])
        assert row["ours"] > 0
        assert set(row["spread"]) == {"ours", "theirs"}
    # The sizes of models don't depend on the machine.
    assert 16 < rows["pair on disk"]["ours"] < 20
    assert rows["peak memory of it"]["ours"] > 200
    assert rows["export of the pair"]["theirs"] > rows["load"]["theirs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilenet_v9"], "Unknown arch 'mobilenet_v9'. Did you mean 'mobilenet_v"),
        (["resnet_cifar_20"], "'resnet_cifar_20' has no counterpart in keras.appl"),
        (["--measure="], "--measure is missing"),
        (["--measure=load", "--weights=x"], "--weights is for --measure=serving al"),
        (["--measure=serving,load"], "serving has a table of its own: give it alone"),
        (["--measure=speed"], "--measure must be one or more of export, .*, not 's"),
        (["swin_tiny"], "'swin_tiny' has no counterpart in keras.applications"),
        (["vgg_16", "--measure=pytorch"], "'vgg_16' has no counterpart in timm"),
        (["vgg_16"], "takes images of 224 px only: give --train_size=224"),
        (["nasnet_large", "--measure=load"], "331 px only: give --size=331"),
        (["--measure=embed", "--files=99"], "at batch 32 needs at least 3072 --files"),
        (["--measure=embed", "--batches=2048"], "at batch 2048 needs at least 6144 -"),
        (["--batches=1,x"], "--batches must be positive numbers"),
        (["--output=no/where"], "no is not a folder"),
        (["--plot=x.jpg"], "--plot must end in .png or .svg, not 'x.jpg'"),
    ],
)
def test_wrong_usage_is_told_in_a_line(tool, arguments, message):
    done = tool("benchmark", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.slow
def test_pytorch_runs_as_it_is_and_compiled(tool):
    oracles.timm()
    done = tool("benchmark", "vit_tiny_16", "--measure=pytorch", *SMALL, "--size=224")
    assert done.returncode == 0, done.stderr
    rows = {row["measure"]: row for row in json.loads(done.stdout)["rows"]}
    names = ("PyTorch", "torch.compile")
    assert list(rows) == [f"inference, batch 2, {name}" for name in names]
    assert all(row["ours"] > 0 and row["theirs"] > 0 for row in rows.values())


@pytest.mark.slow
def test_bfloat16_needs_no_counterpart(tool):
    if not precision.has_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    done = tool("benchmark", "resnet_cifar_20", "--measure=bfloat16", *SMALL)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["measure"] == "inference, batch 2, bfloat16 beside float32"
    assert row["ours"] > 0
    assert row["theirs"] > 0


@pytest.mark.slow
def test_embed_runs_beside_a_plain_loop(tool):
    done = tool(
        "benchmark", "resnet_cifar_20", "--measure=embed", *SMALL, "--files=3072"
    )
    assert done.returncode == 0, done.stderr
    rows = {row["measure"]: row for row in json.loads(done.stdout)["rows"]}
    names = ("embed, batch 2", "embed 3072 images", "peak memory of it")
    assert {f"{name}, one process" for name in names} <= {*rows}
    assert all(row["ours"] > 0 and row["theirs"] > 0 for row in rows.values())


@pytest.mark.slow
def test_neighbours_run_our_own_model(tool, tmp_path):
    arguments = ("--measure=neighbours", "--batches=1", "--repeat=2")
    picture = tmp_path / "ratios.png"
    done = tool(
        *("benchmark", "mobilenet_v3_small", *arguments, "--format=json"),
        f"--plot={picture}",
    )
    assert done.returncode == 0, done.stderr
    measures = {row["measure"] for row in json.loads(done.stdout)["rows"]}
    names = ("frozen constants", "ONNX Runtime", "LiteRT")
    assert {f"inference, batch 1, {name}" for name in names} <= measures
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_exports_too(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, TOOL, "mobilenet_v3_small", *SMALL],
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
    )
    assert "export, ours" in process.stderr.readline()
    while not (children := psutil.Process(process.pid).children()):
        time.sleep(0.05)
    time.sleep(1)  # by now it is exporting
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []
