"""A model directory is complete or absent, however an export fails."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from exporters import batch, export_folder, formats, manifest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ARCH = "resnet_cifar_20"  # other archs take longer to export
OTHER_ARCH = "mobilenet_v1_025_128"
ARGUMENTS = (f"--arch={ARCH}", "--check=none")
FILES = {  # the main file of a model in each format
    "saved_model": "saved_model.pb",
    "tf1_hub": "tfhub_module.pb",
    "onnx": "model.onnx",
    "onnx_int8": "model.onnx",
    "litert": "float32.tflite",
}
OTHERS = [name for name in FILES if name != "saved_model"]


@pytest.fixture(scope="module")
def finished(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    done = tool("export", *ARGUMENTS, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stderr
    return output


@pytest.fixture
def output(finished, tmp_path):
    """Returns a copy of a finished export, for tests that damage it."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "exports"))


def start(output, *arguments, arch=ARCH, **kwargs):
    options = [f"--arch={arch}", "--check=none", *arguments]
    command = [sys.executable, ROOT / "tools" / "export", *options]
    return subprocess.Popen(
        [*command, f"--output={output}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def wait_for(process, word):
    """Reads the stderr of a process until a line contains `word`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return
    raise AssertionError(f"it ended without {word!r}: {lines}")


def wait_for_converter(process):
    """Waits until the export is converting; returns the converter's processes."""
    wait_for(process, "write onnx")
    children: list[psutil.Process] = []
    while not children:
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    time.sleep(0.5)
    return children


def assert_whole_or_absent(
    output, *, finished, name="saved_model", may_have_leftovers=False
):
    model_format = formats.FORMATS[name]
    export_paths = export_folder.ExportFolder(
        format=model_format, arch_folder=output / ARCH, version=1
    )
    for target in export_paths.targets.values():
        if finished or target.exists():
            record = manifest.read(target)
            assert record is not None, target
            assert record.files == manifest.file_hashes(target)
            assert FILES[name] in record.files
    assert export_paths.pair_file.exists() == finished
    if finished:
        pair = json.loads(export_paths.pair_file.read_text())
        assert pair["models"] == export_paths.pair_record({})["models"]
        reports = ["report-1.json"] if model_format.is_converted else []
        names = {p.name for p in export_paths.folder.iterdir()}
        if may_have_leftovers:
            names -= {p.name for p in export_paths.folder.glob(".partial-*")}
        assert names == {"classification", "feature_vector", "pair-1.json", *reports}


def assert_next_run_completes(tool, output, name="saved_model", *options):
    arguments = (*ARGUMENTS, f"--format={name}", *options)
    done = tool("export", *arguments, f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert_whole_or_absent(output, finished=True, name=name)


def assert_refused(done, message):
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("export: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_paths_are_printed_and_a_finished_export_is_recognised(tool, output):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    done = tool("export", *ARGUMENTS, f"--output={output}")
    assert done.returncode == 0
    folder = output / ARCH
    assert done.stdout.splitlines() == [
        f"{folder}/feature_vector/1",
        f"{folder}/classification/1",
        f"{folder}/pair-1.json",
    ]
    assert "exported already, nothing to do\n" in done.stderr
    done = tool("export", f"--arch={ARCH}", f"--output={output}")
    assert "nothing to do; tools/check checks it again" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.fixture(scope="module")
def beside_a_failure(tool, tmp_path_factory):
    """Returns the folder and process of a batch of two archs; the first one fails."""
    output = tmp_path_factory.mktemp("elsewhere")
    (output / OTHER_ARCH).write_text("in the way")
    done = tool(
        "export",
        f"--arch={OTHER_ARCH},{ARCH}",
        "--check=none",
        f"--output={output}",
        "--jobs=2",
        fresh=True,
    )
    return output, done


@pytest.mark.ci
def test_equal_requests_give_equal_bytes(finished, beside_a_failure):
    """The second process exports to a folder of another name, beside another arch."""

    def contents(output):
        files = [path for path in (output / ARCH).rglob("*") if path.is_file()]
        return {path.relative_to(output): path.read_bytes() for path in files}

    first, second = contents(finished), contents(beside_a_failure[0])
    assert len(first) == 14
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []


def test_a_folder_that_is_no_export_is_left_alone(tool, tmp_path):
    precious = tmp_path / ARCH / "classification" / "1" / "precious.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    done = tool("export", *ARGUMENTS, f"--output={tmp_path}")
    assert_refused(done, "already exists and is not an export")
    assert precious.read_text() == "mine"


@pytest.mark.slow
def test_the_users_keras_settings_change_nothing(tool, finished, tmp_path, monkeypatch):
    settings = tmp_path / ".keras" / "keras.json"
    settings.parent.mkdir()
    other = {"floatx": "float16", "image_data_format": "channels_first"}
    settings.write_text(json.dumps({**other, "epsilon": 0.01, "backend": "torch"}))
    monkeypatch.setenv("KERAS_HOME", str(settings.parent))
    done = tool("export", *ARGUMENTS, f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    actual, expected = (
        json.loads((output / ARCH / "pair-1.json").read_text())["models"]
        for output in (tmp_path, finished)
    )
    assert actual == expected


def test_a_file_in_the_way_is_told_before_anything_is_built(tool, tmp_path):
    (tmp_path / ARCH).mkdir()
    (tmp_path / ARCH / "tf1_hub").write_text("in the way")
    done = tool("export", *ARGUMENTS, "--format=tf1_hub", f"--output={tmp_path}")
    assert_refused(done, "tf1_hub is in the way: it is not a folder")
    assert "build" not in done.stderr


@pytest.mark.parametrize("subfolder", ["classification", "classification/1"])
@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_a_target_that_is_no_folder_is_told_first(tool, output, subfolder, kind):
    before = (output / ARCH / "pair-1.json").read_bytes()
    target = output / ARCH / subfolder
    shutil.rmtree(target)
    if kind == "file":
        target.write_text("in the way")
    else:
        target.symlink_to("nowhere")
    done = tool("export", *ARGUMENTS, "--overwrite", f"--output={output}")
    assert_refused(done, f"{target} is in the way: it is not a folder")
    assert "build" not in done.stderr
    assert (output / ARCH / "pair-1.json").read_bytes() == before


def test_no_output_is_told(tool):
    assert_refused(tool("export", *ARGUMENTS, "--output="), "--output is missing")


@pytest.mark.slow
def test_another_export_is_not_overwritten_unasked(tool, output):
    done = tool("export", *ARGUMENTS, f"--output={output}", "--seed=1")
    assert_refused(done, "differs in seed: give --overwrite, another --output, or")
    assert_whole_or_absent(output, finished=True)
    done = tool("export", *ARGUMENTS, f"--output={output}", "--seed=1", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert_whole_or_absent(output, finished=True)
    assert manifest.read(output / ARCH / "classification" / "1").weights["seed"] == 1


@pytest.mark.parametrize("file", ["variables/variables.index", str(manifest.MANIFEST)])
def test_a_changed_export_is_noticed(tool, output, file):
    data = output / ARCH / "classification" / "1" / file
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    done = tool("export", *ARGUMENTS, f"--output={output}")
    assert_refused(done, "was changed: give --overwrite")


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_broken_pair_file_is_one_line(tool, output, damage):
    (output / ARCH / "pair-1.json").write_text(damage)
    done = tool("export", *ARGUMENTS, f"--output={output}")
    assert_refused(done, "give --overwrite")


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param("pair-1.json", marks=pytest.mark.slow),
        "classification",
        pytest.param("feature_vector", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_export_is_completed(tool, output, lost):
    (output / ARCH / "pair-1.json").unlink()
    if lost != "pair-1.json":
        shutil.rmtree(output / ARCH / lost)
    (output / ARCH / ".partial-of-a-dead-one" / "x").mkdir(parents=True)
    assert_next_run_completes(tool, output)


# Exports with an audit hook, which Python calls before each operation on a file. If the
# visible files have changed, it copies the output folder: a process that is killed at
# this moment leaves the same files.
EXPORT_WITH_SNAPSHOTS = """
import pathlib, shutil, sys
sys.path.insert(0, sys.argv[1])
from exporters import formats, pair, request
output, snapshots = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
running, last = [], [None]
def visible():
    states = {}
    for path in sorted(output.rglob("*")):
        if ".partial-" not in str(path):
            stat = path.stat()
            states[path] = path.is_file() and (stat.st_ino, stat.st_size, stat.st_mtime)
    return states
def hook(event, arguments):
    if not running and str(output) in str(arguments) and output.exists():
        running.append(event)
        if (now := visible()) != last[0]:
            last[0] = now
            shutil.copytree(output, snapshots / f"{len(list(snapshots.iterdir())):02}")
        running.clear()
sys.addaudithook(hook)
export_request = request.Request(
    arch=sys.argv[2], output=output, formats=formats.find([sys.argv[5]]),
    seed=int(sys.argv[6]), overwrite=True,
)
pair.export(export_request, check=None)
"""


@pytest.fixture
def export_with_snapshots(warm_server, tmp_path):
    """Returns a function that exports and copies each state of the output folder."""

    def export(output, name="saved_model", seed=0):
        snapshots = tmp_path / "snapshots"
        snapshots.mkdir()
        script = tmp_path / "export_with_snapshots.py"
        script.write_text(EXPORT_WITH_SNAPSHOTS)
        arguments = (ROOT, ARCH, output, snapshots, name, seed)
        done = warm_server.run([str(script), *map(str, arguments)], timeout=300)
        assert done.returncode == 0, done.stderr
        return sorted(snapshots.iterdir())

    return export


def has_pair(output, name="saved_model"):
    folder = output / ARCH / (name if name != "saved_model" else "")
    return (folder / "pair-1.json").exists()


def assert_next_run_completes_snapshot(tool, snapshot, *options):
    if has_pair(snapshot):  # complete, but the staging folder may be left
        assert_whole_or_absent(snapshot, finished=True, may_have_leftovers=True)
        return
    assert_whole_or_absent(snapshot, finished=False)
    assert_next_run_completes(tool, snapshot, "saved_model", *options)


@pytest.mark.slow
def test_killed_at_any_moment(tool, export_with_snapshots, tmp_path):
    snapshots = export_with_snapshots(tmp_path / "exports")
    assert len(snapshots) >= 4  # no model, the first, both, and the pair file
    assert [path for path in snapshots if has_pair(path)] == snapshots[-1:]
    for snapshot in snapshots:
        assert_next_run_completes_snapshot(tool, snapshot)


@pytest.mark.slow
def test_killed_at_any_moment_while_it_replaces_another(
    tool, export_with_snapshots, output
):
    """There is no pair file while one of the models is old and the other is new."""
    snapshots = export_with_snapshots(output, seed=1)
    assert len(snapshots) >= 6  # the pair file and both models are removed and written
    for snapshot in snapshots:
        assert_next_run_completes_snapshot(tool, snapshot, "--seed=1")


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_another_format_killed_at_any_moment(
    tool, export_with_snapshots, tmp_path, name
):
    *snapshots, last = export_with_snapshots(tmp_path / "exports", name)
    assert has_pair(last, name)
    assert len(snapshots) >= 3
    for snapshot in snapshots:
        assert_whole_or_absent(snapshot, finished=False, name=name)
    # For the other snapshots, SavedModels take the same code path.
    assert_next_run_completes(tool, snapshots[-1], name)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["import TensorFlow", "write saved_model"])
def test_killed(tool, tmp_path, word):
    output = tmp_path / "exports"
    process = start(output)
    wait_for(process, word)
    time.sleep(0.3)  # so that the step has begun
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert_whole_or_absent(output, finished=False)
    assert_next_run_completes(tool, output)


@pytest.mark.slow
def test_killed_while_it_converts(tool, tmp_path):
    """The converter runs in another process, which may continue to write files."""
    output = tmp_path / "exports"
    process = start(output, "--format=onnx")
    wait_for_converter(process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert_whole_or_absent(output, finished=False, name="onnx")
    assert_next_run_completes(tool, output, "onnx")


@pytest.mark.slow
def test_interrupted_by_ctrl_c(tmp_path):
    output = tmp_path / "exports"
    process = start(output)
    wait_for(process, "build")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "export: interrupted"
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_while_it_converts_leaves_nothing_running(tmp_path, number):
    output = tmp_path / "exports"
    process = start(output, "--format=onnx")
    children = wait_for_converter(process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [10_000, 1_000_000])
def test_a_full_disk_for_another_format(tool, tmp_path, limit):
    output = tmp_path / "exports"
    done = tool(
        *("export", *ARGUMENTS, "--format=tf1_hub", f"--output={output}"),
        file_limit=limit,
    )
    assert_refused(done, "File too large")
    assert f"Can't write below {output / ARCH}" in done.stderr.splitlines()[-1]
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit",
    [
        10_000,
        1_000_000,  # the variables of the first model do not fit
        1_095_000,  # those of the second
    ],
)
def test_a_full_disk(tool, tmp_path, limit):
    """A limit on the size of files stands in for a full disk: the same calls fail."""
    output = tmp_path / "exports"
    done = tool(
        "export",
        *ARGUMENTS,
        f"--output={output}",
        file_limit=limit,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not output.exists()
    assert_next_run_completes(tool, output)


def test_a_target_that_can_not_be_written(tool, tmp_path):
    if os.geteuid() == 0:  # no permission stops root, but /sys does
        target = pathlib.Path("/sys/kernel/exports")
    else:
        target = tmp_path / "read_only"
        target.mkdir(mode=0o500)
    done = tool("export", *ARGUMENTS, f"--output={target}")
    assert_refused(done, str(target))
    (tmp_path / "file").write_text("")
    done = tool("export", *ARGUMENTS, f"--output={tmp_path / 'file'}")
    assert_refused(done, "Not a directory")


@pytest.mark.slow
def test_two_exporters_for_one_target(tmp_path):
    output = tmp_path / "exports"
    processes = [start(output) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert results[0][0] == results[1][0]
    assert_whole_or_absent(output, finished=True)
    assert sum("exported already" in errors for _, errors in results) == 1
    assert sum("waiting for another" in errors for _, errors in results) == 1


@pytest.mark.slow
def test_two_exporters_for_one_target_of_another_format(tmp_path):
    name, output = "tf1_hub", tmp_path / "exports"  # locked as SavedModels are
    processes = [start(output, f"--format={name}") for _ in range(2)]
    results = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert_whole_or_absent(output, finished=True, name=name)
    assert sum("exported already" in errors for _, errors in results) == 1


@pytest.mark.slow
def test_a_process_that_waited_for_an_interrupted_export_goes_on(tmp_path):
    output = tmp_path / "exports"
    first = start(output)
    wait_for(first, "build")
    second = start(output)
    wait_for(second, "waiting for another process")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    _, errors = second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (130, 0), errors
    assert_whole_or_absent(output, finished=True)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_of_many_is_a_bar_on_terminals(monkeypatch, is_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    bars = {"█" * 10 + "·" * 20 + " 1/3 a", "█" * 30 + " 3/3 c"}
    lines = {batch._progress(1, 3, "a"), batch._progress(3, 3, "c")}
    assert lines == (bars if is_terminal else {"1/3 a", "3/3 c"})


@pytest.mark.slow
def test_terminated_in_a_batch_leaves_nothing_running(tmp_path):
    output = tmp_path / "exports"
    process = start(output, arch=f"{ARCH},{OTHER_ARCH}")
    wait_for(process, "build")
    process.terminate()
    process.communicate(timeout=60)  # waits until no child holds the pipes
    assert process.returncode == 128 + signal.SIGTERM
    assert not output.exists()


@pytest.mark.slow
def test_terminated_while_it_checks_leaves_nothing_running(tmp_path):
    output = tmp_path / "exports"
    process = start(output, "--check=full")
    wait_for(process, "check saved_model")
    children: list[psutil.Process] = []
    while len(children) < 2:  # one process for each model
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.communicate(timeout=4)  # less than all clauses would take
    assert process.returncode == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not output.exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_many_archs(capfd, jobs):
    """Runs without TensorFlow: each process prints its arguments."""
    argv = ["-c", "import sys; print(*sys.argv[1:])", "--check=none"]
    assert batch.export(["a", "b"], jobs=jobs, argv=argv) == 0
    printed = capfd.readouterr()
    assert printed.out.splitlines() == [
        f"--check=none --arch={arch} --jobs=1" for arch in "ab"
    ]
    assert printed.err.splitlines() == ["1/2 a", "2/2 b"]


def test_many_archs_one_of_which_fails(beside_a_failure):
    output, done = beside_a_failure
    assert done.returncode == 2
    assert f"1 failed: {OTHER_ARCH}" in done.stderr.splitlines()[-1]
    assert_whole_or_absent(output, finished=True)


def test_the_pair_file_names_both_models(output):
    record = json.loads((output / ARCH / "pair-1.json").read_text())
    for kind in manifest.KINDS:
        folder = output / ARCH / record["models"][kind]["path"]
        hashes = manifest.file_hashes(folder)
        assert record["models"][kind]["sha256"] == manifest.content_hash(hashes)
    assert record["weights"] == "random"
