"""Runs the benchmarks: compares exports and training with common alternatives.

Exports are compared with their keras.applications counterparts, exported by Keras.
Training is compared with `keras.Model.fit` and a plain tf.data pipeline.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import sys
import tempfile
import types
from collections.abc import Sequence
from typing import Any

import psutil

from benchmarks import (
    bfloat16_speed,
    image_folders,
    inference_speed,
    keras_exports,
    pytorch_speed,
    ratios,
    subprocesses,
    training_speed,
)
from foundation import progress
from reuse import precision

_LOG = progress.logger(__name__)

EXPORT_MEASURES = ("export", "size", "load", "inference", "training", "neighbours")
PYTORCH, BFLOAT16, EMBED, SERVING = "pytorch", "bfloat16", "embed", "serving"
TRAINING_MEASURES = ("fit", "pipeline", "start")
MEASURES = (
    *(*EXPORT_MEASURES, PYTORCH, BFLOAT16, EMBED, *TRAINING_MEASURES),
    SERVING,  # has a table of its own, see `benchmarks.serving`
)

_MIB = 1 << 20
_CALLS = {"inference", "neighbours"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a benchmark run.

    Attributes:
      measures: names of the measures, a subset of `MEASURES`.
      batches: batch sizes of inference calls.
      size: side of the images in inference, in pixels.
      train_batch: batch size of a training step.
      train_size: side of the images in training, in pixels.
      files: number of image files in the measures `start` and `embed`; 0 to choose.
      repeat: number of repetitions; results are medians.
      exports: number of repetitions of measures that run a whole process.
    """

    measures: frozenset[str]
    batches: Sequence[int]
    size: int
    train_batch: int
    train_size: int
    files: int
    repeat: int
    exports: int


def check_counterparts(arch: str, settings: Settings) -> None:
    """Checks that an architecture has what the measures compare it with.

    Raises:
      ValueError: it does not.
      ImportError: the package that has it is missing.
    """
    if BFLOAT16 in settings.measures and not precision.has_bfloat16():
        raise ValueError("--measure=bfloat16 needs a CPU with bfloat16, and no GPU.")
    needed = {}
    if settings.measures - {PYTORCH, BFLOAT16, EMBED, SERVING}:
        needed["keras.applications"] = keras_exports.COUNTERPARTS
    if PYTORCH in settings.measures:
        needed["timm"] = pytorch_speed.COUNTERPARTS
    for package, counterparts in needed.items():
        if arch not in counterparts:
            raise ValueError(
                f"{arch!r} has no counterpart in {package} to compare with. "
                f"These archs have one: {', '.join(counterparts)}."
            )
    if PYTORCH in settings.measures and importlib.util.find_spec("timm") is None:
        raise ImportError("timm is missing: run tools/setup oracles")
    if EMBED in settings.measures:
        image_folders.check_embed(batch=max(settings.batches), files=settings.files)


def check_sizes(arch: str, settings: Settings) -> None:
    """Checks that the counterpart of an architecture takes images of the sizes.

    Raises:
      ValueError: it has a fixed image size, and a setting has another.
    """
    builder = keras_exports.COUNTERPARTS.get(arch, "")
    fixed = keras_exports.FIXED_SIZES.get(builder)
    sizes = {}
    if settings.measures & {"load", "inference", "neighbours"}:
        sizes["size"] = settings.size
    if settings.measures & {"training", "fit"}:
        sizes["train_size"] = settings.train_size
    wrong = [name for name, size in sizes.items() if fixed and size != fixed]
    if wrong:
        raise ValueError(
            f"Keras' {builder}, the counterpart of {arch!r}, takes images of {fixed} "
            f"px only: give {' and '.join(f'--{name}={fixed}' for name in wrong)}."
        )


def measure(arch: str, settings: Settings) -> list[ratios.Row]:
    """Measures an architecture and its counterpart, and returns a row per measure.

    Args:
      arch: an arch that `check_counterparts` accepts.
      settings: settings of the run.

    Raises:
      ChildProcessError: an export or a timing program failed.
    """
    rows: list[ratios.Row] = []
    if settings.measures & {*EXPORT_MEASURES}:
        rows += _export_rows(arch, settings)
    if PYTORCH in settings.measures:
        name = pytorch_speed.COUNTERPARTS[arch]
        rows += _call_rows(arch, pytorch_speed, settings, name=name)
    if BFLOAT16 in settings.measures:
        rows += _call_rows(arch, bfloat16_speed, settings)
    if EMBED in settings.measures:
        rows += image_folders.embed_rows(
            arch,
            batch=max(settings.batches),
            files=settings.files,
            repeat=settings.exports,
        )
    if settings.measures & {*TRAINING_MEASURES}:
        rows += _training_rows(arch, settings)
    return rows


def _training_rows(arch: str, settings: Settings) -> list[ratios.Row]:
    starts = []
    if "start" in settings.measures:
        starts = image_folders.start_rows(
            arch, size=settings.size, files=settings.files, repeat=settings.exports
        )
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
    rates = subprocesses.run(training_speed, job)
    rows = [
        ratios.row(arch, name, "images/s", figures) for name, figures in rates.items()
    ]
    return [*rows, *starts]


def _call_rows(
    arch: str, program: types.ModuleType, settings: Settings, **job: Any
) -> list[ratios.Row]:
    """Measures inference of our classifier by a program that takes nothing else."""
    with tempfile.TemporaryDirectory() as scratch:
        _LOG.info("export")
        subprocesses.export(arch, pathlib.Path(scratch))
        job |= {
            "ours": str(pathlib.Path(scratch, arch, "classification", "1")),
            "size": settings.size,
            "batches": list(settings.batches),
            "repeat": settings.repeat,
        }
        times = subprocesses.run(program, job)
    return [_rate_row(arch, name, figures) for name, figures in times.items()]


def _rate_row(arch: str, name: str, figures: ratios.Figures) -> ratios.Row:
    """Returns the row of `batch N…`, in images per second."""
    batch = int(name.split()[1].strip(","))
    rates = {s: [batch / t for t in seconds] for s, seconds in figures.items()}
    return ratios.row(arch, f"inference, {name}", "images/s", rates)


def _export_rows(arch: str, settings: Settings) -> list[ratios.Row]:
    builder = keras_exports.COUNTERPARTS[arch]
    with tempfile.TemporaryDirectory() as scratch:
        folders, runs = _exports(arch, builder, pathlib.Path(scratch), settings)
        rows = []
        if "export" in settings.measures:
            for unit, index in (("s", 0), ("MiB", 1)):
                figures = {s: [run[index] for run in runs[s]] for s in runs}
                name = "export of the pair" if unit == "s" else "peak memory of it"
                rows.append(ratios.row(arch, name, unit, figures))
        if "size" in settings.measures:
            sizes = {side: [_size(folder) / _MIB] for side, folder in folders.items()}
            rows.append(ratios.row(arch, "pair on disk", "MiB", sizes))
        neighbours = {}
        if "neighbours" in settings.measures:
            neighbours = _export_other_formats(arch, pathlib.Path(scratch))
        times = _times(builder, folders, neighbours, settings)
    for name, figures in times.items():
        if name.startswith("batch "):
            rows.append(_rate_row(arch, name, figures))
        else:
            rows.append(ratios.row(arch, name, "s", figures))
    return rows


def _exports(
    arch: str, builder: str, scratch: pathlib.Path, settings: Settings
) -> tuple[dict[str, pathlib.Path], dict[str, list[tuple[float, float]]]]:
    """Exports both pairs.

    Returns:
      The folder of each pair, and for each export its seconds and peak memory in MiB.
    """
    repeat = settings.exports if "export" in settings.measures else 1
    runs: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    folders = {}
    for number in range(repeat):
        for side in runs:
            _LOG.info(f"export, {side}, {number + 1} of {repeat}")
            output = scratch / side / str(number)
            if side == "ours":
                runs[side].append(subprocesses.export(arch, output))
            else:
                command = [sys.executable, "-m", keras_exports.__name__, builder]
                runs[side].append(subprocesses.measure([*command, str(output)]))
            folders[side] = output / arch if side == "ours" else output
    return folders, runs


def _export_other_formats(arch: str, scratch: pathlib.Path) -> dict[str, Any]:
    """Exports our classifier to ONNX and LiteRT, for the measure `neighbours`.

    Returns:
      The file of each format, and the image size of the LiteRT model.
    """
    _LOG.info("export to ONNX and LiteRT")
    output = scratch / "neighbours"
    subprocesses.export(arch, output, "--format=onnx,litert")
    classifier = "classification/1"
    litert = output / arch / "litert" / classifier
    manifest = json.loads((litert / "assets.extra" / "manifest.json").read_text())
    return {
        "onnx": str(output / arch / "onnx" / classifier / "model.onnx"),
        "litert": str(litert / "float32.tflite"),
        "litert_size": manifest["input"]["shape"][1],
    }


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _times(
    builder: str,
    folders: dict[str, pathlib.Path],
    neighbours: dict[str, Any],
    settings: Settings,
) -> dict[str, ratios.Figures]:
    """Times both sides, and returns the seconds of each repetition by measure."""
    measures = {"load", "inference", "training", "neighbours"} & settings.measures
    if not measures:
        return {}
    job = {
        "ours": str(folders["ours"] / "classification" / "1"),
        "theirs": str(folders["theirs"] / "classification"),
        "builder": builder,
        "size": settings.size,
        "batches": list(settings.batches) if measures & _CALLS else [],
        "neighbours": neighbours,
        "train_batch": settings.train_batch if "training" in measures else 0,
        "train_size": settings.train_size,
        "repeat": settings.repeat,
    }
    times = subprocesses.run(inference_speed, job)
    if "load" in measures:
        return times
    return {k: v for k, v in times.items() if k not in ("load", "first call")}


def to_json(rows: Sequence[dict[str, Any]], settings: Settings) -> str:
    """Returns the rows as JSON, with the machine and the package versions."""
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


def to_table(rows: Sequence[ratios.Row]) -> str:
    """Returns the rows as a text table with aligned columns."""
    lines = [f"{'':44}{'ours':>10}{'theirs':>10}  {'':9}{'ratio':>6}   spread of each"]
    arch = ""
    for row in rows:
        if row["arch"] != arch:
            arch = row["arch"]
            lines.append(f"{arch}{_counterparts(arch)}")
        spreads = " ".join(f"{share:5.0%}" for share in row["spread"].values())
        lines.append(
            f"  {row['measure']:<42}{row['ours']:10.3g}{row['theirs']:10.3g}  "
            f"{row['unit']:<9}{row['ratio']:6.2f}   {spreads}"
        )
    return "\n".join(lines)


def _counterparts(arch: str) -> str:
    """Returns an architecture's names in other packages, in parentheses."""
    tables = {
        "keras.applications": keras_exports.COUNTERPARTS,
        "timm": pytorch_speed.COUNTERPARTS,
    }
    names = [f"{table[arch]} of {p}" for p, table in tables.items() if arch in table]
    return f" ({', '.join(names)})" if names else ""
