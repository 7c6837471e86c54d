"""Verifies every file of a hub against the hashes in its index."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator

from foundation import atomic
from publishing import (
    hub,
    hub_index,
    hub_site,
    signature_checks,
    signed_index,
    upload_files,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of verifying a hub.

    Attributes:
      findings: a line for each file that is not as it was published.
      notes: if there are no findings, who signed the hub and the like.
      leftovers: files of an interrupted publish, which the next publish removes or,
        if it is the front page, replaces.
      models, files: numbers of models and files in the index.
      size: total size of these files in bytes.
    """

    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    models: int = 0
    files: int = 0
    size: int = 0


def verify(
    folder: pathlib.Path,
    expected: signature_checks.Expected = signature_checks.Expected(),  # noqa: B008
) -> Verification:
    """Hashes all files of a hub, which is locked meanwhile, and checks its signatures.

    Args:
      folder: of the hub.
      expected: signers that the user knows; other signers are findings then, and so is
        whatever an interrupted publish left.

    Raises:
      ImportError: the hub is signed, and model-signing is not installed.
      ValueError: `folder` is not a hub.
    """
    if not (folder / hub_index.NAME).is_file():
        raise ValueError(f"{folder} is not a hub: it has no {hub_index.NAME}.")
    with atomic.locked(folder):
        try:
            index = hub_index.read_index(folder)
        except ValueError as error:  # nothing else can be verified
            return Verification(findings=(str(error),))
        files = index.files
        present = dict(_files(folder))
        # Users who know the signer get nothing but what the signer signed.
        leftovers = [] if expected else _leftovers(folder, index, present)
        damaged = {
            name: problem
            for name, entry in sorted(files.items())
            if name not in leftovers
            and (problem := upload_files.difference(folder / name, entry))
        }
        signature_findings, notes = signature_checks.check(
            folder, index, damaged, expected
        )
    known = {hub_index.NAME, index.signature, *files, *leftovers}
    has_signature = not index.signature or index.signature in present
    unknown = {
        name
        for name in present.keys() - known
        # Without its own signature, an index has one of another index: one finding.
        if has_signature or not signed_index.is_signature_path(name)
    }
    findings = (
        *(f"{name}: {problem}" for name, problem in damaged.items()),
        *signature_findings,
        *(f"{name}: is not in the index" for name in sorted(unknown)),
    )
    return Verification(
        findings=findings,
        notes=() if findings else tuple(notes),
        leftovers=tuple(leftovers),
        models=len(index.models),
        files=len(files),
        size=sum(entry["size"] for entry in files.values()),
    )


def _leftovers(
    folder: pathlib.Path, index: hub_index.Index, present: Iterable[str]
) -> list[str]:
    """Returns the files that an interrupted publish left."""
    unfinished = {*hub.interrupted_files(folder)} - {*index.files, index.signature}
    leftovers = [
        name
        for name in present
        if name in unfinished
        or name == hub.CLEANUP_LIST
        or name.startswith(atomic.STAGING_PREFIX)
    ]
    if _is_front_page_stale(folder, index):
        leftovers.append(hub_site.FRONT_PAGE)
    return leftovers


def _is_front_page_stale(folder: pathlib.Path, index: hub_index.Index) -> bool:
    """Checks whether a publish was killed after the index, before the front page."""
    entry = index.site.get(hub_site.FRONT_PAGE)
    if not entry or hub_site.is_current(folder, entry):
        return False
    return hub_site.is_replaced(folder, entry)


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields all files with their paths in the folder; links count as files."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if pathlib.Path(parent, name).is_symlink()]
        for name in sorted((*names, *links)):
            path = pathlib.Path(parent, name)
            yield path.relative_to(folder).as_posix(), path
