"""Compares a model for serving with the same model in other formats and runtimes.

Each runtime has a process of its own, `benchmarks.serving_speed`. They are measured in
turn, so that other load on the machine affects all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import serving_speed, subprocesses, training_speed
from exporters import formats, manifest, synthetic_images
from foundation import progress
from reuse import precision

_LOG = progress.logger(__name__)

CLIENTS = (1, 4, 16)
_RATE_SECONDS, _CLIENT_SECONDS = 0.5, 3.0
_IMAGES = 64  # of which the likeliest classes are compared


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A model in a runtime.

    Attributes:
      name: name in the table.
      program: key of `serving_speed.RUNTIMES`.
      precision: float32, bfloat16 or int8.
      format: value of --format of the export.
      file: the model's file in the folder of the classifier; empty for a SavedModel.
    """

    name: str
    program: str
    precision: str
    format: str
    file: str = ""

    @property
    def path(self) -> pathlib.Path:
        """The model, relative to the folder of the exported arch."""
        is_default = self.format == formats.SAVED_MODEL.name
        folder = pathlib.Path("" if is_default else self.format)
        return folder / "classification" / "1" / self.file

    def takes(self, batch: int) -> bool:
        return formats.FORMATS[self.format].batch in (None, batch)


_SERVING = Runtime("SavedModel, serving", "SavedModel", "float32", "serving")
# The first is what the classes of the others are compared with.
RUNTIMES = [
    Runtime("SavedModel, reusable", "SavedModel", "float32", "saved_model"),
    _SERVING,
    dataclasses.replace(_SERVING, precision="bfloat16"),
    Runtime("ONNX Runtime", "ONNX Runtime", "float32", "onnx", "model.onnx"),
    Runtime("ONNX Runtime", "ONNX Runtime", "int8", "onnx_int8", "model.onnx"),
    Runtime("OpenVINO", "OpenVINO", "float32", "onnx", "model.onnx"),
    Runtime("OpenVINO", "OpenVINO", "bfloat16", "onnx", "model.onnx"),
    Runtime("OpenVINO", "OpenVINO", "int8", "onnx_int8", "model.onnx"),
    Runtime("LiteRT", "LiteRT", "float32", "litert", "float32.tflite"),
    Runtime("LiteRT", "LiteRT", "int8", "litert", "int8.tflite"),
    Runtime("files, image_bytes", "image_bytes", "float32", "serving"),
    Runtime("files, Pillow", "Pillow", "float32", "serving"),
]
_MODULES = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "LiteRT": "ai_edge_litert",
}
"""The packages of programs, besides TensorFlow."""


@dataclasses.dataclass(kw_only=True)
class _Measured:
    """A runtime, its process, and what was measured.

    Attributes:
      first_answers: seconds of processes until their first answer.
      rates: images/s of each repetition, by batch.
      latencies: seconds of each call, by number of clients.
    """

    runtime: Runtime
    worker: _Worker
    first_answers: list[float]
    rates: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    latencies: dict[int, list[float]] = dataclasses.field(default_factory=dict)


def measure(
    arch: str, *, weights: str, batches: Sequence[int], repeat: int, starts: int
) -> list[dict[str, Any]]:
    """Exports an arch in all formats and measures each runtime.

    Args:
      arch: the arch whose classifier is measured, with images of its default size.
      weights: value of --weights of the export.
      batches: batch sizes.
      repeat: number of repetitions of images/s; results are medians.
      starts: number of processes whose first answer is timed.

    Returns:
      A record for each runtime: `name`, `precision`, `format`, `images_per_second` by
      batch, `latency_ms` by number of clients as [p50, p99], `first_answer_s`, `mib`,
      `same_top1` (the share of images with the likeliest class of the reusable
      SavedModel; None for runtimes that decode files).

    Raises:
      ChildProcessError: an export or a runtime failed.
    """
    runtimes = _available()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        scratch = pathlib.Path(temporary)
        size = _export(arch, weights, scratch, sorted({r.format for r in runtimes}))
        _LOG.info("draw images")
        (scratch / "files").mkdir()
        files = training_speed.write_photographs(scratch / "files", 500, 375)
        images = scratch / "images.npy"
        np.save(images, synthetic_images.draw(_IMAGES, size, seed=2))
        measured = []
        for runtime in runtimes:
            _LOG.info(f"start {runtime.name}, {runtime.precision}")
            job = {"size": size, "files": files, "precision": runtime.precision}
            job |= {"runtime": runtime.program}
            job |= {"path": str(scratch / arch / runtime.path)}
            seconds = [_seconds_to_first_answer(job) for _ in range(starts)]
            worker = stack.enter_context(_worker(job))
            measured.append(
                _Measured(runtime=runtime, worker=worker, first_answers=seconds)
            )
        _measure_rates(measured, batches, repeat)
        _measure_latencies(measured)
        expected = measured[0].worker.ask(images=str(images))
        return [_record(each, images, expected) | {"arch": arch} for each in measured]


def _available() -> list[Runtime]:
    """Returns the runtimes that are installed, and reports the others."""
    found = []
    for runtime in RUNTIMES:
        module = _MODULES.get(runtime.program, "tensorflow")
        if importlib.util.find_spec(module) is None:
            _LOG.info(f"{runtime.name} is skipped: {module} is not installed")
        elif runtime.precision == "bfloat16" and not precision.has_bfloat16():
            _LOG.info(f"{runtime.name} is skipped: this CPU has no bfloat16")
        else:
            found.append(runtime)
    return found


def _export(arch: str, weights: str, scratch: pathlib.Path, names: list[str]) -> int:
    """Exports an arch in these formats; returns the size of its images in pixels."""
    _LOG.info(f"export to {', '.join(names)}")
    flags = (f"--format={','.join(names)}", f"--weights={weights}")
    subprocesses.export(arch, scratch, *flags)
    record = manifest.read(scratch / arch / _SERVING.path)
    assert record
    return record.preprocessing["image_size"]


class _Worker:
    """A process of `serving_speed`."""

    def __init__(
        self, process: subprocess.Popen[str], log: typing.TextIO, name: str
    ) -> None:
        self._process = process
        self._log = log
        self._name = name

    def ask(self, **command: Any) -> Any:
        """Returns the answer to a command, see `serving_speed`.

        Raises:
          ChildProcessError: the process ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # there is no answer either
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            last = "".join(self._log.read().strip().splitlines()[-1:])
            raise ChildProcessError(f"{self._name} exited with {status}: {last}")
        return json.loads(line)


@contextlib.contextmanager
def _worker(job: Mapping[str, Any]) -> Iterator[_Worker]:
    """Starts a process; it has answered once when the context begins."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            [sys.executable, "-m", serving_speed.__name__, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=subprocesses.ROOT,
        ) as process,
    ):
        try:
            worker = _Worker(process, log, f"{job['runtime']}, {job['precision']}")
            worker.ask()
            yield worker
        finally:
            process.kill()


def _seconds_to_first_answer(job: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    with _worker(job):
        return time.perf_counter() - start


def _measure_rates(
    measured: Sequence[_Measured], batches: Sequence[int], repeat: int
) -> None:
    for batch in batches:
        _LOG.info(f"images/s at batch {batch}")
        takers = [each for each in measured if each.runtime.takes(batch)]
        for each in takers:
            each.worker.ask(batch=batch, seconds=_RATE_SECONDS)  # optimizes graphs
            each.rates[batch] = []
        for _ in range(repeat):
            for each in takers:
                rate = each.worker.ask(batch=batch, seconds=_RATE_SECONDS)
                each.rates[batch].append(rate)


def _measure_latencies(measured: Sequence[_Measured]) -> None:
    for clients in CLIENTS:
        _LOG.info(f"latency with {_clients(clients)}")
        for each in measured:
            each.latencies[clients] = each.worker.ask(
                clients=clients, seconds=_CLIENT_SECONDS
            )


def _record(
    measured: _Measured, images: pathlib.Path, expected: Sequence[int]
) -> dict[str, Any]:
    """Returns the record of a runtime that `measure` describes."""
    runtime, same_top1 = measured.runtime, None
    if runtime.program not in serving_speed.OF_FILES:
        classes = measured.worker.ask(images=str(images))
        same_top1 = float(np.mean(np.equal(classes, expected)))
    return {
        "name": runtime.name,
        "precision": runtime.precision,
        "format": runtime.format,
        "images_per_second": {
            str(batch): statistics.median(rates)
            for batch, rates in measured.rates.items()
        },
        "latency_ms": {
            str(clients): [1000 * float(np.percentile(s, share)) for share in (50, 99)]
            for clients, s in measured.latencies.items()
        },
        "first_answer_s": statistics.median(measured.first_answers),
        "mib": measured.worker.ask(memory=True),
        "same_top1": same_top1,
    }


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a text table, and a line on what is fastest, by arch."""
    lines: list[str] = []
    for arch in dict.fromkeys(row["arch"] for row in rows):
        own = [row for row in rows if row["arch"] == arch]
        batches = list(own[0]["images_per_second"])
        head = f"{arch:<34}" + "".join(f"{f'batch {b}':>10}" for b in batches)
        head += "".join(f"{_clients(n):>14}" for n in CLIENTS)
        lines += [f"{'':34}{'images/s':>10}{'':20}  p50 and p99 in ms with"]
        lines += [head + f"{'start s':>9}{'MiB':>7}{'top-1':>7}"]
        lines += [_line(row, batches) for row in own]
        lines += _advice(own, batches)
    return "\n".join(lines)


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"


def _line(record: Mapping[str, Any], batches: Sequence[str]) -> str:
    rates = (record["images_per_second"].get(batch) for batch in batches)
    same = record["same_top1"]
    return (
        f"  {record['name'] + ', ' + record['precision']:<32}"
        + "".join(f"{'–' if rate is None else f'{rate:.3g}':>10}" for rate in rates)
        + "".join(
            f"{f'{p50:.3g} {p99:.3g}':>14}"
            for p50, p99 in record["latency_ms"].values()
        )
        + f"{record['first_answer_s']:9.1f}{record['mib']:7.0f}"
        + f"{'–' if same is None else f'{same:.0%}':>7}"
    )


def _advice(records: Sequence[Mapping[str, Any]], batches: Sequence[str]) -> list[str]:
    """Says for each batch size which format is fastest, and how to write it."""
    (served,) = (r for r in records if _key(r) == (_SERVING.name, _SERVING.precision))
    kept = [
        record
        for record in records
        if (record["same_top1"] or 0) >= precision.LEAST_SAME_TOP1
    ]
    lines = []
    for batch in batches:
        rated = [record for record in kept if batch in record["images_per_second"]]
        best = max(rated, key=lambda record: record["images_per_second"][batch])
        times = best["images_per_second"][batch] / served["images_per_second"][batch]
        lines.append(
            f"  Fastest at batch {batch} of those that keep "
            f"{precision.LEAST_SAME_TOP1:.0%} of the classes: {best['name']}, "
            f"{best['precision']}, {times:.2f} times the model for serving: "
            f"tools/export --arch={best['arch']} --format={best['format']}"
        )
    return lines


def _key(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["name"], record["precision"]
