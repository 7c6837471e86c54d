"""Runs the steps of a release: checks the pairs of an export and publishes them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

from exporters import manifest
from foundation import atomic, progress
from publishing import pairs, suite_reports, upload_files

_LOG = progress.logger(__name__)

# Takes a model's folder, its report, and the names of its other formats; returns
# documents by path.
Documents = Callable[
    [pathlib.Path, Mapping[str, object], Sequence[str]], Mapping[str, bytes]
]


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
      export: folder OUT/ARCH that tools/export wrote; it is locked meanwhile.
      destination: the hub.
      documents: generates the documents of a model.
      check: runs the full suite on a model, see `suite_reports.passing_reports`.
      suite: hash of the suite.
      dry_run: only lists the files that would be sent.

    Returns:
      The handles; in a dry run, a line for each file that would be sent.

    Raises:
      ValueError: `export` is not an export, or different bytes are published.
      suite_reports.FailedClausesError: a MUST clause fails.
      OSError: a hub can't be reached, or a file can't be read or written.
    """
    versions = pairs.versions(export)
    lines = []
    with atomic.locked(export):
        for version in versions:
            pair = _read(export, version, takes_formats=destination.takes_formats)
            if destination.has(pair):
                _LOG.info(f"{pair.name} is already published, nothing to do")
                if not dry_run:
                    destination.refresh()
                lines += [] if dry_run else destination.handles(pair)
                continue
            reports, *_ = suite_reports.in_parallel(
                functools.partial(
                    suite_reports.passing_reports, check=check, suite=suite
                ),
                [pair, *filter(suite_reports.has_clauses, pair.others)],
            )
            pair_documents = _documents(pair, reports, documents)
            if dry_run:
                with tempfile.TemporaryDirectory() as scratch:
                    uploads = destination.pack(
                        pair, pair_documents, pathlib.Path(scratch)
                    )
                    lines += map(str, uploads)
                continue
            _LOG.info(f"publish {pair.name}")
            destination.publish(pair, pair_documents)
            lines += destination.handles(pair)
    return lines


def _read(export: pathlib.Path, version: int, *, takes_formats: bool) -> pairs.Pair:
    """Reads a pair, without other formats if the hub takes none; logs warnings."""
    pair = pairs.read(export, version)
    if pair.others and not takes_formats:
        names = ", ".join(other.format for other in pair.others)
        _LOG.info(f"{pair.name}: {names} stay here: only hubs in folders take them")
        pair = dataclasses.replace(pair, others=())
    for model in pair.models:
        if model.warning:
            _LOG.info(f"{model.name}: {model.warning}")
    return pair


def _documents(
    pair: pairs.Pair, reports: suite_reports.Reports, documents: Documents
) -> upload_files.Documents:
    """Returns all documents of both models, including their reports, by kind."""
    formats = [other.format for other in pair.others]

    def documents_of(model: pairs.ExportedModel) -> Mapping[str, bytes]:
        return {
            **documents(model.folder, reports[model.kind], formats),
            upload_files.REPORT: manifest.to_json(reports[model.kind]).encode(),
        }

    found = suite_reports.in_parallel(documents_of, pair.models)
    kinds = [model.kind for model in pair.models]
    return dict(zip(kinds, found, strict=True))
