"""Compares exports and trainings with their usual alternatives, side by side.

Exports are compared with their keras.applications counterparts as Keras exports them,
training with `keras.Model.fit` and a plain tf.data pipeline.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks import (
    inference_speed,
    keras_exports,
    start_up,
    subprocesses,
    training_speed,
)
from common import progress

_LOG = progress.logger(__name__)

OF_EXPORTS = ("export", "size", "load", "inference", "training", "neighbours")
OF_TRAINING = ("fit", "pipeline", "start")
MEASURES = (*OF_EXPORTS, *OF_TRAINING)

Row = dict[str, Any]
Figures = dict[str, list[float]]  # of both sides, one for each repetition

_EXPORT = (str(subprocesses.ROOT / "tools" / "export"), "--check=none")
_START_BATCH = 64  # images
_MIB = 1 << 20
_CALLS = {"inference", "neighbours"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure, and how.

    Attributes:
      measures: of `MEASURES`.
      batches: images in a call.
      size: side of the images, in pixels.
      train_batch: images in a training step.
      train_size: their side, in pixels.
      files: images of the measure `start`.
      repeat: repetitions, of which the median counts.
      exports: repetitions of whole processes.
    """

    measures: frozenset[str]
    batches: Sequence[int]
    size: int
    train_batch: int
    train_size: int
    files: int
    repeat: int
    exports: int


def measure(arch: str, settings: Settings) -> list[Row]:
    """Measures an arch and its counterpart; one row for each measure.

    Args:
      arch: a key of `keras_exports.COUNTERPARTS`.
      settings: what to measure, and how.

    Raises:
      ChildProcessError: an export or a timing program failed.
    """
    return [
        *(_exports_rows(arch, settings) if settings.measures & {*OF_EXPORTS} else []),
        *(_training_rows(arch, settings) if settings.measures & {*OF_TRAINING} else []),
    ]


def _training_rows(arch: str, settings: Settings) -> list[Row]:
    starts = _start_rows(arch, settings) if "start" in settings.measures else []
    if not {"fit", "pipeline"} & settings.measures:
        return starts
    job = {
        "arch": arch,
        "builder": keras_exports.COUNTERPARTS[arch],
        "measures": sorted(settings.measures),
        "size": settings.size,
        "batch": settings.train_batch,
        "train_size": settings.train_size,
        "repeat": settings.repeat,
    }
    found = subprocesses.run(training_speed, job)
    rates = [_row(arch, what, "images/s", rates) for what, rates in found.items()]
    return [*rates, *starts]


def _start_rows(arch: str, settings: Settings) -> list[Row]:
    """Seconds and MiB until the first batch of a large folder, beside two others."""
    found: dict[str, list[Any]] = {"ours": [], "keras": [], "plain": []}
    with tempfile.TemporaryDirectory() as scratch:
        drawn, folder = pathlib.Path(scratch, "drawn"), pathlib.Path(scratch, "data")
        _LOG.info(f"link {settings.files} files")
        drawn.mkdir()
        photographs = training_speed.write_photographs(drawn, 500, 375)
        start_up.link(list(map(pathlib.Path, photographs)), folder, settings.files)
        job = {"folder": str(folder), "size": settings.size, "batch": _START_BATCH}
        for number in range(settings.exports):
            for side in found:
                _LOG.info(f"first batch, {side}, {number + 1} of {settings.exports}")
                found[side].append(subprocesses.run(start_up, {**job, "side": side}))
    rows = []
    for side, other in (("keras", "beside Keras"), ("plain", "beside list_files")):
        for unit, key, what in (
            ("s", "seconds", "first batch"),
            ("MiB", "mib", "memory until then"),
        ):
            figures = {
                "ours": [run[key] for run in found["ours"]],
                "theirs": [run[key] for run in found[side]],
            }
            rows.append(_row(arch, f"{what}, {other}", unit, figures))
    return rows


def _exports_rows(arch: str, settings: Settings) -> list[Row]:
    builder = keras_exports.COUNTERPARTS[arch]
    with tempfile.TemporaryDirectory() as scratch:
        folders, runs = _exports(arch, builder, pathlib.Path(scratch), settings)
        rows = []
        if "export" in settings.measures:
            for unit, index in (("s", 0), ("MiB", 1)):
                figures = {s: [run[index] for run in runs[s]] for s in runs}
                what = "export of the pair" if unit == "s" else "peak memory of it"
                rows.append(_row(arch, what, unit, figures))
        if "size" in settings.measures:
            sizes = {side: [_size(folder) / _MIB] for side, folder in folders.items()}
            rows.append(_row(arch, "pair on disk", "MiB", sizes))
        neighbours = {}
        if "neighbours" in settings.measures:
            neighbours = _neighbours(arch, pathlib.Path(scratch))
        times = _times(builder, folders, neighbours, settings)
    for name, figures in times.items():
        if name.startswith("batch "):
            batch = int(name.split()[1].strip(","))
            rates = {s: [batch / t for t in seconds] for s, seconds in figures.items()}
            rows.append(_row(arch, f"inference, {name}", "images/s", rates))
        else:
            rows.append(_row(arch, name, "s", figures))
    return rows


def _exports(
    arch: str, builder: str, scratch: pathlib.Path, settings: Settings
) -> tuple[dict[str, pathlib.Path], dict[str, list[tuple[float, float]]]]:
    """Both pairs' folders, and for each export seconds and the peak in MiB."""
    repeat = settings.exports if "export" in settings.measures else 1
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    folders = {}
    for number in range(repeat):
        for side in runs:
            _LOG.info(f"export, {side}, {number + 1} of {repeat}")
            output = scratch / side / str(number)
            arguments = [*_EXPORT, f"--arch={arch}", f"--output={output}"]
            if side == "theirs":
                arguments = ["-m", keras_exports.__name__, builder, str(output)]
            runs[side].append(subprocesses.measure([sys.executable, *arguments]))
            folders[side] = output / arch if side == "ours" else output
    return folders, runs


def _neighbours(arch: str, scratch: pathlib.Path) -> dict[str, Any]:
    """Our classifier as others run it: its files by format, and the size of one."""
    _LOG.info("export for the neighbours")
    output = scratch / "neighbours"
    arguments = [*_EXPORT, f"--arch={arch}", f"--output={output}"]
    subprocesses.measure([sys.executable, *arguments, "--format=onnx,litert"])
    half = "classification/1"
    litert = output / arch / "litert" / half
    about = json.loads((litert / "assets.extra" / "manifest.json").read_text())
    return {
        "onnx": str(output / arch / "onnx" / half / "model.onnx"),
        "litert": str(litert / "float32.tflite"),
        "litert_size": about["input"]["shape"][1],
    }


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _times(
    builder: str,
    folders: dict[str, pathlib.Path],
    neighbours: dict[str, Any],
    settings: Settings,
) -> dict[str, Figures]:
    """Seconds of either side by measure, one for each repetition."""
    wanted = {"load", "inference", "training", "neighbours"} & settings.measures
    if not wanted:
        return {}
    job = {
        "ours": str(folders["ours"] / "classification" / "1"),
        "theirs": str(folders["theirs"] / "classification"),
        "builder": builder,
        "size": settings.size,
        "batches": list(settings.batches) if wanted & _CALLS else [],
        "neighbours": neighbours,
        "train_batch": settings.train_batch if "training" in wanted else 0,
        "train_size": settings.train_size,
        "repeat": settings.repeat,
    }
    times = subprocesses.run(inference_speed, job)
    if "load" in wanted:
        return times
    return {k: v for k, v in times.items() if k not in ("load", "first call")}


def _row(arch: str, what: str, unit: str, figures: Figures) -> Row:
    medians = {side: statistics.median(values) for side, values in figures.items()}
    return {
        "arch": arch,
        "measure": what,
        "unit": unit,
        **medians,
        "ratio": medians["ours"] / medians["theirs"],
        "spread": {
            side: (max(values) - min(values)) / medians[side]
            for side, values in figures.items()
        },
    }


def to_json(rows: Sequence[Row], settings: Settings) -> str:
    """The rows, and the machine and packages that they were measured with."""
    packages = ("tensorflow", "keras", "numpy")
    record = {
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "size": settings.size,
        "train": [settings.train_batch, settings.train_size],
        "rows": rows,
    }
    return json.dumps(record, indent=2)


def to_table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    lines = [
        f"{'':38}{'ours':>10}{'theirs':>10}  {'':9}{'ratio':>6}   spread of either"
    ]
    arch = ""
    for row in rows:
        if row["arch"] != arch:
            arch = row["arch"]
            lines.append(f"{arch} beside {keras_exports.COUNTERPARTS[arch]}")
        spreads = " ".join(f"{share:5.0%}" for share in row["spread"].values())
        lines.append(
            f"  {row['measure']:<36}{row['ours']:10.3g}{row['theirs']:10.3g}  "
            f"{row['unit']:<9}{row['ratio']:6.2f}   {spreads}"
        )
    return "\n".join(lines)
