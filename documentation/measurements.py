"""Builds, checks and times architectures for the records of their pages."""

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

from documentation import manifest_summary, page_data
from exporters import formats, manifest
from exporters import request as requests
from foundation import atomic, progress, stderr

_LOG = progress.logger(__name__)

_BATCH = 8  # images in a timed call
_CALLS = 15  # at most; the median of their times counts
_SECONDS = 10.0  # after which no further call starts


def refresh(archs: Iterable[str]) -> list[pathlib.Path]:
    """Builds archs and writes their records; returns the paths of the records."""
    paths = []
    for arch in archs:
        _LOG.info(f"build {arch}")
        record = {
            "sources": page_data.sources_hash(arch),
            "models": manifest_summaries(arch),
        }
        path = page_data.record_file(arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_file(path, manifest.to_json(record).encode())
        paths.append(path)
    return paths


def manifest_summaries(arch: str) -> dict[str, manifest.JsonObject]:
    """Builds an arch and returns the shortened manifests of both models, by kind.

    Raises:
      ValueError: the arch can't be built.
    """
    with stderr.silenced():
        import keras

        from exporters import building, describe

        keras.utils.clear_session()
        request = requests.Request(arch=arch, output=pathlib.Path())
        model = building.build_without_values(request)
        manifests = {
            kind: describe.manifest_fields(request, model, formats.SAVED_MODEL, kind)
            for kind in manifest.KINDS
        }
    return {
        kind: manifest_summary.summarize(values) for kind, values in manifests.items()
    }


def measure(arch: str) -> pathlib.Path:
    """Exports an arch to a temporary folder, runs the suite, and records its results.

    If the export has the same graph, values and assets as the one that was measured
    before, the suite does not run again. To force it, as after a change of the suite,
    remove the file of results.

    Raises:
      ValueError: the export fails, or a clause fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _LOG.info(f"export {arch}")
        # In a process of its own: names in a graph depend on models built before it.
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
        if page_data.measured_export_hashes(arch) == exports:
            _LOG.info(f"{arch}: the export has not changed since it was measured")
            results = {
                kind: dataclasses.replace(result, sizes=page_data.sizes(folders[kind]))
                for kind, result in page_data.suite_results(arch).items()
            }
        else:
            results = _run_suite(arch, folders)
    path = page_data.measured_file(arch)
    record = {
        "sources": page_data.measurement_sources_hash(arch),
        "exports": exports,
        "models": {kind: result.to_json() for kind, result in results.items()},
    }
    atomic.write_file(path, manifest.to_json(record).encode())
    return path


def _run_suite(
    arch: str, folders: Mapping[str, pathlib.Path]
) -> dict[str, page_data.SuiteResult]:
    """Runs the whole suite on both models of a pair.

    Raises:
      ValueError: a clause fails.
    """
    from conformance import suite

    results = {}
    for kind, folder in folders.items():
        (other,) = set(folders) - {kind}
        report = suite.check(
            folder,
            pair=folders[other],
            progress=functools.partial(_log_clause, kind),
        )
        if report.failed:
            raise ValueError(f"{arch} {kind}: {report.failed[0].message}")
        results[kind] = page_data.suite_result(report.to_json(), folder)
    return results


def _log_clause(kind: str, line: str) -> None:
    _LOG.info("%s %s", kind, line[:70])


def time_all(archs: Iterable[str]) -> pathlib.Path:
    """Times the classifiers of archs and overwrites the file of speeds."""
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
    """Times the classifier as exported, on images of its default size."""
    with stderr.silenced(), tempfile.TemporaryDirectory() as scratch:
        import keras
        import tensorflow as tf

        from exporters import building, reusable

        keras.utils.clear_session()
        request = requests.Request(arch=arch, output=pathlib.Path())
        model = building.build(request)
        asset = pathlib.Path(scratch, "asset")
        asset.touch()
        pair = reusable.build_pair(model, class_index=asset, record=asset)
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
