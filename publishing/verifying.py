"""Verifies every file of a hub against the hashes in its index."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

from exporters import manifest
from foundation import atomic
from publishing import hub, hub_index, hub_site, upload_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """Result of verifying a hub.

    Attributes:
      findings: a line for each file that is not as it was published.
      leftovers: files of an interrupted publish, which the next publish removes or,
        if it is the front page, replaces.
      models, files: numbers of models and files in the index.
      size: total size of these files in bytes.
    """

    findings: tuple[str, ...]
    leftovers: tuple[str, ...] = ()
    models: int = 0
    files: int = 0
    size: int = 0


def verify(folder: pathlib.Path) -> Verification:
    """Hashes all files of a hub, which is locked meanwhile.

    Raises:
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
        unfinished = set(hub.interrupted_files(folder)) - files.keys()
        present = dict(_files(folder))
        leftovers = [
            name
            for name in present
            if name in unfinished
            or name == hub.CLEANUP_LIST
            or name.startswith(atomic.STAGING_PREFIX)
        ]
        if _is_front_page_stale(folder, index):
            leftovers.append(hub_site.FRONT_PAGE)
        damaged = [
            f"{name}: {problem}"
            for name, entry in sorted(files.items())
            if name not in leftovers and (problem := _problem(present.get(name), entry))
        ]
    unknown = present.keys() - files.keys() - {hub_index.NAME, *leftovers}
    return Verification(
        findings=(
            *damaged,
            *(f"{name}: is not in the index" for name in sorted(unknown)),
        ),
        leftovers=tuple(leftovers),
        models=len(index.models),
        files=len(files),
        size=sum(entry["size"] for entry in files.values()),
    )


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


def _problem(path: pathlib.Path | None, entry: manifest.JsonObject) -> str:
    """Describes how a file differs from its index entry; empty if it does not."""
    if path is None:
        return "is missing"
    if path.is_symlink() or not path.is_file():
        return "is not a regular file"
    if path.stat().st_size != entry["size"]:
        return f"has {path.stat().st_size} bytes, was published with {entry['size']}"
    sha256 = upload_files.upload_file(path.name, path).sha256
    if sha256 != entry["sha256"]:
        return f"was changed: SHA-256 {sha256}, published with {entry['sha256']}"
    return ""
