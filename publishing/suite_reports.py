"""The full report of a pair: known to be of its very bytes, or made now."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

from common import atomic, progress
from conformance import report
from exporters import manifest
from publishing import pairs

_LOG = progress.logger(__name__)

# A model's folder, its kind, and the other half's folder.
Check = Callable[[pathlib.Path, str, pathlib.Path], report.Report]
Reports = dict[str, manifest.JsonObject]  # of each kind, as `report.Report.to_json`


class UnfitError(Exception):
    """A MUST clause does not hold; a line for each."""


def load_or_run(pair: pairs.Pair, *, check: Check, suite: str) -> Reports:
    """The reports of both halves.

    They are kept in the export's folder, with the hashes of what they speak of, so that
    the suite runs once for what is published in several places.

    Args:
      pair: in a folder that nobody else writes to.
      check: runs the full suite.
      suite: hash of the suite: what another one found does not count.

    Raises:
      UnfitError: a MUST clause does not hold.
    """
    kept = pair.export / f"conformance-{pair.version}.json"
    about = {"suite": suite, "models": {half.kind: half.sums for half in pair.halves}}
    reports = _kept(kept, about)
    if reports is None:
        with atomic.staging_folder(pair.export) as scratch:  # or it is told at once
            reports = _made(pair, check)
            file = scratch / kept.name
            text = manifest.to_json({**about, "reports": reports})
            file.write_text(text, encoding="utf-8")
            atomic.move_into_place(file, kept)
    else:
        _LOG.info(f"read {kept.name}: the suite judged these very files")
    failed = [
        f"{pair.name} {kind}: {result.message}"
        for kind, found in reports.items()
        for result in report.from_json(found).failed
    ]
    if failed:
        raise UnfitError("\n".join(failed))
    return reports


def _kept(path: pathlib.Path, about: manifest.JsonObject) -> Reports | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        reports = record.pop("reports")
        for kind in manifest.KINDS:
            report.from_json(reports[kind])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return reports if record == about else None


def _made(pair: pairs.Pair, check: Check) -> Reports:
    reports = {}
    for half, other in zip(pair.halves, reversed(pair.halves), strict=True):
        _LOG.info(f"check {half.kind}, all clauses")
        found = check(half.folder, half.kind, other.folder)
        text = json.dumps(found.to_json())
        # A report goes to strangers: it names models, and no folder of this machine.
        for mine in (half, other):
            for folder in (mine.folder.resolve(), mine.folder):
                text = text.replace(json.dumps(str(folder))[1:-1], mine.name)
        reports[half.kind] = json.loads(text)
    return reports
