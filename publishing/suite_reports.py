"""Decides by its conformance reports whether a pair may be published."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import TypeVar

from conformance import report
from exporters import manifest
from foundation import atomic, progress
from publishing import pairs

_LOG = progress.logger(__name__)

_SAVED_MODEL = "saved_model.pb"

# Takes a model's folder, its kind, and the other model's folder.
Check = Callable[[pathlib.Path, str, pathlib.Path], report.Report]
_In = TypeVar("_In")
_Out = TypeVar("_Out")
Reports = dict[str, manifest.JsonObject]  # by kind, from `report.Report.to_json`


class FailedClausesError(Exception):
    """MUST clauses fail; the message has one line for each."""


def has_clauses(pair: pairs.Pair) -> bool:
    """Returns whether the suite checks models of this format: all SavedModels."""
    return all((model.folder / _SAVED_MODEL).is_file() for model in pair.models)


def passing_reports(pair: pairs.Pair, *, check: Check, suite: str) -> Reports:
    """Returns the conformance reports of both models, if no MUST clause fails.

    Runs the suite if the pair has no reports yet. Reports are stored in the export's
    folder, with the hashes of the models that they describe, so the suite runs only
    once for a pair that is published to several hubs.

    Args:
      pair: in a folder that no other process writes to.
      check: runs the full suite on a model.
      suite: hash of the suite; reports of another suite are ignored.

    Raises:
      FailedClausesError: a MUST clause fails.
    """
    path = pair.export / f"conformance-{pair.version}.json"
    key = {
        "suite": suite,
        "models": {model.kind: model.hashes for model in pair.models},
    }
    reports = _load(path, key)
    if reports is None:
        with atomic.staging_folder(
            pair.export
        ) as scratch:  # fails early if not writable
            reports = _run(pair, check)
            file = scratch / path.name
            text = manifest.to_json({**key, "reports": reports})
            file.write_text(text, encoding="utf-8")
            atomic.move_into_place(file, path)
    else:
        _LOG.info(f"read {path.name}: the suite already checked these files")
    failed = [
        f"{pair.name} {kind}: {result.message}"
        for kind, values in reports.items()
        for result in report.from_json(values).failed
    ]
    if failed:
        raise FailedClausesError("\n".join(failed))
    return reports


def in_parallel(call: Callable[[_In], _Out], values: Sequence[_In]) -> list[_Out]:
    """Calls a function with each value, in threads; returns the results in order.

    After an exception, Ctrl-C too, it does not wait for the other threads: the caller
    makes them end.
    """
    pool = futures.ThreadPoolExecutor(max(1, len(values)))
    try:
        return list(pool.map(call, values))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _load(path: pathlib.Path, key: manifest.JsonObject) -> Reports | None:
    """Reads stored reports; None if they are missing, damaged, or have another key."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        reports = stored.pop("reports")
        for kind in manifest.KINDS:
            report.from_json(reports[kind])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if stored == key:
        return reports
    other = "other files" if stored.get("suite") == key["suite"] else "another suite"
    _LOG.info(f"{path.name} is of {other}: the suite runs again")
    return None


def _run(pair: pairs.Pair, check: Check) -> Reports:
    """Checks both models, in parallel."""
    _LOG.info(f"check {pair.name}, all clauses")
    folders = {model.kind: model.folder for model in pair.models}
    others = dict(zip(folders, reversed(folders.values()), strict=True))
    results = in_parallel(
        lambda kind: check(folders[kind], kind, others[kind]), list(folders)
    )
    reports = {}
    for model, other, result in zip(
        pair.models, reversed(pair.models), results, strict=True
    ):
        text = json.dumps(result.to_json())
        # Reports are published: replace local folders by the names of the models.
        for named in (model, other):
            for folder in (named.folder.resolve(), named.folder):
                text = text.replace(json.dumps(str(folder))[1:-1], named.name)
        reports[model.kind] = json.loads(text)
    return reports
