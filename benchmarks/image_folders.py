"""Measures whole processes that read a folder of images: its start, and tools/embed."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import embed_speed, ratios, start_up, subprocesses, training_speed
from foundation import progress

_LOG = progress.logger(__name__)

_START_BATCH = 64  # images
_START_FILES, _EMBED_FILES = 100_000, 5_000
_LEAST_SHARDS = 3  # of tools/embed, so that the rate is that of several
_OURS = "ours"


def start_rows(arch: str, *, size: int, files: int, repeat: int) -> list[ratios.Row]:
    """Measures time and memory until the first batch of a large folder.

    The alternatives are Keras' `image_dataset_from_directory` and tf.data's
    `list_files`.

    Args:
      arch: name of the rows.
      size: side of the images in pixels.
      files: number of files; 0 for 100,000.
      repeat: number of repetitions.
    """
    runs: dict[str, list[Any]] = {_OURS: [], "keras": [], "plain": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write_images(pathlib.Path(scratch), files or _START_FILES)
        job = {"folder": str(folder), "size": size, "batch": _START_BATCH}
        for number in range(repeat):
            for side, found in runs.items():
                _LOG.info(f"first batch, {side}, {number + 1} of {repeat}")
                found.append(subprocesses.run(start_up, {**job, "side": side}))
    measures = (("first batch", "s", "seconds"), ("memory until then", "MiB", "mib"))
    sides = {"keras": "beside Keras", "plain": "beside list_files"}
    return _rows(arch, runs, sides, measures)


def check_embed(*, batch: int, files: int) -> None:
    """Checks that there are enough files to measure the rate of tools/embed.

    Raises:
      ValueError: there are not.
      ImportError: a package that tools/embed needs is missing.
    """
    least = _LEAST_SHARDS * max(batch, embed_speed.SKIPPED)
    if (files or _EMBED_FILES) < least:
        raise ValueError(
            f"--measure=embed at batch {batch} needs at least {least} --files."
        )
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError("pyarrow is missing: run tools/setup bulk")


def embed_rows(arch: str, *, batch: int, files: int, repeat: int) -> list[ratios.Row]:
    """Measures tools/embed beside plain loops, with TensorFlow and with OpenVINO.

    Args:
      arch: the arch whose feature vectors are computed.
      batch: images in a batch.
      files: number of files; 0 for 5,000.
      repeat: number of repetitions.
    """
    count = files or _EMBED_FILES
    sides = {"plain": "one process"}
    if importlib.util.find_spec("openvino") is None:
        _LOG.info("OpenVINO is skipped: openvino is not installed")
    else:
        sides["openvino"] = "OpenVINO"
    runs: dict[str, list[Any]] = {side: [] for side in (_OURS, *sides)}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = pathlib.Path(temporary)
        data = _write_images(scratch, count)
        model, onnx = _export(arch, scratch, with_onnx="openvino" in sides)
        job = {"model": str(model), "data": str(data), "batch": batch}
        for number in range(repeat):
            for side, found in runs.items():
                _LOG.info(f"embed, {side}, {number + 1} of {repeat}")
                if side == _OURS:
                    found.append(_run_embed(job, scratch / f"embedded_{number}"))
                    continue
                path = str(onnx) if side == "openvino" else ""
                found.append(subprocesses.run(embed_speed, {**job, "onnx": path}))
    measures = (
        (f"embed, batch {batch}", "images/s", "rate"),
        (f"embed {count} images", "s", "seconds"),
        ("peak memory of it", "MiB", "mib"),
    )
    return _rows(arch, runs, sides, measures)


def _rows(
    arch: str,
    runs: Mapping[str, Sequence[Mapping[str, float]]],
    sides: Mapping[str, str],
    measures: Sequence[tuple[str, str, str]],
) -> list[ratios.Row]:
    """Returns a row for each other side and measure (name, unit, key of a run)."""
    return [
        ratios.row(
            arch,
            f"{name}, {title}",
            unit,
            {
                "ours": [run[key] for run in runs[_OURS]],
                "theirs": [run[key] for run in runs[side]],
            },
        )
        for side, title in sides.items()
        for name, unit, key in measures
    ]


def _write_images(scratch: pathlib.Path, count: int) -> pathlib.Path:
    """Writes JPEG files of 500 × 375 px, many of them equal; returns the folder."""
    _LOG.info(f"linking {count} files")
    drawn, folder = scratch / "drawn", scratch / "data"
    drawn.mkdir()
    photographs = training_speed.write_photographs(drawn, 500, 375)
    start_up.link(list(map(pathlib.Path, photographs)), folder, count)
    return folder


def _export(
    arch: str, output: pathlib.Path, *, with_onnx: bool
) -> tuple[pathlib.Path, pathlib.Path]:
    """Exports an arch; returns the folder of its feature-vector model and the ONNX."""
    _LOG.info("export")
    formats = "saved_model,onnx" if with_onnx else "saved_model"
    subprocesses.export(arch, output, f"--format={formats}")
    kind = pathlib.Path("feature_vector", "1")
    return output / arch / kind, output / arch / "onnx" / kind / "model.onnx"


def _run_embed(job: dict[str, Any], output: pathlib.Path) -> dict[str, float]:
    """Runs tools/embed; returns what `embed_speed` does."""
    command = [sys.executable, str(subprocesses.ROOT / "tools" / "embed")]
    command += [f"--module={job['model']}", f"--data={job['data']}"]
    command += [f"--batch_size={job['batch']}", f"--output={output}"]
    seconds, mib = subprocesses.measure(command)
    record = json.loads((output / "_SUCCESS.json").read_text())
    ends = sorted((output / name).stat().st_mtime for name in record["shards"])
    rate = (record["count"] - record["shard_rows"]) / (ends[-1] - ends[0])
    return {"seconds": seconds, "mib": mib, "rate": rate}
