"""Builds archs for what their documentation says of them."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping

from common import atomic, progress, stderr
from documentation import manifest_summary, page_data
from exporters import formats, manifest
from exporters import request as requests

_LOG = progress.logger(__name__)

_BATCH = 8  # images of a timed call
_CALLS = 15  # that are timed at most, of which the median counts
_SECONDS = 10.0  # after which no further call is begun


def refresh(archs: Iterable[str]) -> list[pathlib.Path]:
    """Writes the records of archs anew."""
    paths = []
    for arch in archs:
        _LOG.info(f"build {arch}")
        kept = {"sources": page_data.sources(arch), "models": outlined(arch)}
        path = page_data.record_file(arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, manifest.to_json(kept).encode())
        paths.append(path)
    return paths


def outlined(arch: str) -> dict[str, manifest.JsonObject]:
    """What an export's manifests would say of both halves, condensed.

    Raises:
      ValueError: the arch can't be built.
    """
    with stderr.silenced():
        import keras

        from exporters import building, describe

        keras.utils.clear_session()
        request = requests.Request(arch=arch, output=pathlib.Path())
        model = building.build(request)
        about = {
            kind: describe.about(request, model, formats.SAVED_MODEL, kind)
            for kind in manifest.KINDS
        }
    return {kind: manifest_summary.summarize(found) for kind, found in about.items()}


def measure(arch: str) -> pathlib.Path:
    """Exports an arch for a while, has it judged, and keeps what was measured.

    An export with the same graph, values and assets as the one that was judged before
    is not judged again: remove the record for that, as where the suite has changed.

    Raises:
      ValueError: it can't be exported, or a clause fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _LOG.info(f"export {arch}")
        # What was built before in a process changes the names in a graph.
        command = [
            str(page_data.ROOT / "tools" / "export"),
            f"--arch={arch}",
            "--check=none",
        ]
        done = subprocess.run(
            [sys.executable, *command, f"--output={scratch}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ValueError(f"{arch}: {done.stderr.strip().splitlines()[-1]}")
        folders = {
            kind: pathlib.Path(scratch, arch, kind, "1") for kind in manifest.KINDS
        }
        exports = {
            kind: manifest.content_hash(manifest.file_hashes(folder))
            for kind, folder in folders.items()
        }
        if page_data.measured_exports(arch) == exports:
            _LOG.info(f"{arch}: the same export as was measured")
            trials = {
                kind: dataclasses.replace(trial, sizes=page_data.sizes(folders[kind]))
                for kind, trial in page_data.suite_results(arch).items()
            }
        else:
            trials = _judged(arch, folders)
    path = page_data.measured_file(arch)
    record = {
        "sources": page_data.measured_sources(arch),
        "exports": exports,
        "models": {kind: trial.to_json() for kind, trial in trials.items()},
    }
    atomic.write_file(path, manifest.to_json(record).encode())
    return path


def _judged(
    arch: str, folders: Mapping[str, pathlib.Path]
) -> dict[str, page_data.SuiteResult]:
    """What the whole suite finds of a pair.

    Raises:
      ValueError: a clause fails.
    """
    from conformance import suite

    trials = {}
    for kind, folder in folders.items():
        (other,) = set(folders) - {kind}
        found = suite.check(
            folder,
            pair=folders[other],
            progress=functools.partial(_log_clause, kind),
        )
        if found.failed:
            raise ValueError(f"{arch} {kind}: {found.failed[0].message}")
        trials[kind] = page_data.suite_result(found.to_json(), folder)
    return trials


def _log_clause(kind: str, line: str) -> None:
    _LOG.info("%s %s", kind, line[:70])


def time_all(archs: Iterable[str]) -> pathlib.Path:
    """Times the classifiers of archs, and forgets what was timed before."""
    from training import provenance

    timed = {}
    for arch in archs:
        _LOG.info(f"time {arch}")
        timed[arch] = _images_per_second(arch)
    record = {
        "batch": _BATCH,
        "cores": len(os.sched_getaffinity(0)),
        "processor": provenance.processor(),
        "images_per_second": timed,
    }
    atomic.write_file(page_data.SPEEDS, manifest.to_json(record).encode())
    return page_data.SPEEDS


def _images_per_second(arch: str) -> float:
    """Of the classifier that an export would hold, for images of its size."""
    with stderr.silenced(), tempfile.TemporaryDirectory() as scratch:
        import keras
        import tensorflow as tf

        from exporters import building, reusable

        keras.utils.clear_session()
        request = requests.Request(arch=arch, output=pathlib.Path())
        model = building.build(request)
        asset = pathlib.Path(scratch, "asset")
        asset.touch()
        pair = reusable.pair(model, class_index=asset, record=asset)
        classifier = pair["classification"][0].__call__
        side = model.spec.image_size
        images = tf.random.uniform([_BATCH, side, side, 3])
        classifier(images)
        times: list[float] = []
        while len(times) < _CALLS and sum(times) < _SECONDS:
            start = time.perf_counter()
            classifier(images).numpy()
            times.append(time.perf_counter() - start)
    return float(f"{_BATCH / statistics.median(times):.3g}")
