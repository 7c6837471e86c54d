"""Publishes the pairs of an export: the order of events."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Mapping

from common import atomic, progress
from exporters import manifest
from publishing import pairs, suite_reports, upload_files

_LOG = progress.logger(__name__)

REPORT = "conformance.json"

# Of a model's folder and its report, the documents by their names.
Documents = Callable[[pathlib.Path, Mapping[str, object]], Mapping[str, bytes]]


def release(
    export: pathlib.Path,
    *,
    destination: upload_files.Destination,
    documents: Documents,
    check: suite_reports.Check,
    suite: str,
    dry_run: bool,
) -> list[str]:
    """Publishes every version of an export that is not published already.

    Args:
      export: OUT/ARCH, as tools/export writes it. Nobody else writes to it meanwhile.
      destination: the hub.
      documents: describes a model.
      check: runs the full suite, see `reports.of`.
      suite: hash of the suite.
      dry_run: only lists what would be sent.

    Returns:
      A line for each handle; in a dry run, for each file that would be sent.

    Raises:
      ValueError: it is no export, or other bytes are published.
      reports.UnfitError: a MUST clause does not hold.
      OSError: a hub could not be reached, or the file system refused.
    """
    versions = pairs.versions(export)
    lines = []
    with atomic.locked(export):
        for version in versions:
            pair = pairs.read(export, version)
            for half in pair.halves:
                if half.warning:
                    _LOG.info(f"{half.name}: {half.warning}")
            if destination.has(pair):
                _LOG.info(f"{pair.name} is published already, nothing to do")
                lines += [] if dry_run else destination.handles(pair)
                continue
            found = suite_reports.load_or_run(pair, check=check, suite=suite)
            papers = _papers(pair, found, documents)
            if dry_run:
                with tempfile.TemporaryDirectory() as scratch:
                    items = destination.pack(pair, papers, pathlib.Path(scratch))
                    lines += map(str, items)
                continue
            _LOG.info(f"publish {pair.name}")
            destination.publish(pair, papers)
            lines += destination.handles(pair)
    return lines


def _papers(
    pair: pairs.Pair, found: suite_reports.Reports, documents: Documents
) -> upload_files.Documents:
    """All documents of both halves, the report among them."""
    return {
        half.kind: {
            **documents(half.folder, found[half.kind]),
            REPORT: manifest.to_json(found[half.kind]).encode(),
        }
        for half in pair.halves
    }
