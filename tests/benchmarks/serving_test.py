"""The comparison of runtimes that serve a model."""

import json

import numpy as np
import pytest

from benchmarks import plots, serving, serving_speed
from exporters import formats


def record(name, precision, export_format, rates, *, same_top1=1.0):
    return {
        "arch": "net",
        "name": name,
        "precision": precision,
        "format": export_format,
        "images_per_second": {str(batch): rate for batch, rate in rates.items()},
        "latency_ms": {str(n): [n + 0.5, 10.0 * n] for n in serving.CLIENTS},
        "first_answer_s": 1.26,
        "mib": 512.4,
        "same_top1": same_top1,
    }


RECORDS = [
    record("SavedModel, reusable", "float32", "saved_model", {1: 85, 8: 232}),
    record("SavedModel, serving", "float32", "serving", {1: 100, 8: 250}),
    record("ONNX Runtime", "float32", "onnx", {1: 259, 8: 240}),
    record("OpenVINO", "int8", "onnx_int8", {1: 900, 8: 950}, same_top1=0.9),
    record("LiteRT", "float32", "litert", {1: 294}),
    record("files, Pillow", "float32", "serving", {1: 999, 8: 999}, same_top1=None),
]


def test_the_table_has_a_line_for_each_runtime():
    lines = serving.to_table(RECORDS).splitlines()
    assert [line.split("  ")[1] for line in lines[2:8]] == [
        f"{each['name']}, {each['precision']}" for each in RECORDS
    ]
    reusable, litert, files = lines[2], lines[6], lines[7]
    assert reusable.split()[3:] == (
        ["85", "232", "1.5", "10", "4.5", "40", "16.5", "160", "1.3", "512", "100%"]
    )
    assert litert.split()[2:4] == ["294", "–"]
    assert files.endswith("–")


def test_the_fastest_that_keeps_the_classes_is_named_with_its_command():
    one, eight = serving.to_table(RECORDS).splitlines()[8:]
    assert "batch 1 of those that keep 95% of the classes: LiteRT, float32, 2.94" in one
    assert one.endswith("tools/export --arch=net --format=litert")
    assert "at batch 8 " in eight
    assert eight.endswith("tools/export --arch=net --format=serving")


def test_a_picture_of_each_runtime(tmp_path):
    plots.draw_serving(RECORDS, tmp_path / "serving.svg")
    text = (tmp_path / "serving.svg").read_text()
    for each in RECORDS:
        assert f"{each['name']}, {each['precision']}" in text


def test_the_formats_and_programs_of_the_runtimes_exist():
    for runtime in serving.RUNTIMES:
        assert runtime.format in formats.FORMATS
        assert runtime.program in serving_speed.RUNTIMES
    assert serving.RUNTIMES[0].path.as_posix() == "classification/1"
    assert {r.precision for r in serving.RUNTIMES} == {"float32", "bfloat16", "int8"}
    litert = serving.RUNTIMES[-4]
    assert litert.takes(1)
    assert not litert.takes(8)


def test_rates_and_latencies_are_of_all_calls():
    calls = []

    def call():
        calls.append(1)

    rate = serving_speed._rate(call, 4, 0.05)
    assert rate == pytest.approx(4 * len(calls) / 0.05, rel=0.3)
    calls.clear()
    seconds = serving_speed._latencies(call, 3, 0.05)
    assert len(seconds) == len(calls) > 3
    assert sum(seconds) <= 3 * 0.1


def test_a_worker_answers_commands(monkeypatch, tmp_path):
    def load(path, precision):
        assert (path, precision) == ("model", "float32")
        return lambda images: images.reshape(len(images), -1)[:, :7]

    monkeypatch.setitem(serving_speed.RUNTIMES, "SavedModel", load)
    values = np.zeros([2, 4, 4, 3], np.float32)
    values[0, 0, 1, 2], values[1, 0, 0, 1] = 1, 1
    np.save(tmp_path / "images.npy", values)
    commands = [
        {},
        {"images": str(tmp_path / "images.npy")},
        {"memory": True},
        {"batch": 2, "seconds": 0.01},
        {"clients": 2, "seconds": 0.01},
    ]
    job = {"runtime": "SavedModel", "path": "model", "precision": "float32"}
    lines, printed = map(json.dumps, commands), []
    monkeypatch.setattr(serving_speed.sys, "stdin", lines)
    monkeypatch.setattr("builtins.print", lambda line, flush: printed.append(line))
    serving_speed.main({**job, "size": 4, "files": []})
    ready, classes, mib, rate, latencies = map(json.loads, printed)
    assert (ready, classes) == ("ready", [5, 1])
    assert mib > 50
    assert rate > 0
    assert min(latencies) > 0


def test_a_runtime_that_fails_is_an_error():
    job = {"runtime": "ONNX Runtime", "path": "nowhere", "precision": "int8"}
    job |= {"size": 32, "files": []}
    with (
        pytest.raises(
            ChildProcessError, match="ONNX Runtime, int8 exited with 1: .*nowhere"
        ),
        serving._worker(job),
    ):
        pass


@pytest.mark.slow
def test_every_runtime_is_measured(tool, tmp_path):
    picture, output = tmp_path / "serving.png", tmp_path / "serving.json"
    done = tool(
        *("benchmark", "resnet_cifar_20", "--measure=serving", "--format=json"),
        *("--batches=1,2", "--repeat=1", "--exports=1"),
        *(f"--plot={picture}", f"--output={output}"),
    )
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 10_000
    found = json.loads(output.read_text())["rows"]
    names = [(each["name"], each["precision"]) for each in found]
    every = [(r.name, r.precision) for r in serving.RUNTIMES]
    assert [name for name in every if name in names] == names
    assert {"SavedModel, reusable", "files, Pillow"} <= {name for name, _ in names}
    for each in found:
        batches = ["1"] if each["format"] == "litert" else ["1", "2"]
        assert list(each["images_per_second"]) == batches
        assert min(each["images_per_second"].values()) > 0
        assert all(0 < p50 <= p99 for p50, p99 in each["latency_ms"].values())
        assert each["first_answer_s"] > 0.05
        is_exact = each["precision"] == "float32" and "files" not in each["name"]
        assert not is_exact or each["same_top1"] == 1
