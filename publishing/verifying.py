"""Holds every file of a hub against the sums in its index."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

from common import atomic
from exporters import manifest
from publishing import hub, hub_index, upload_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a hub.

    Attributes:
      findings: a line for each file that is not as it was published.
      leftovers: what an interrupted publish left; the next one removes it.
      models, files: how many the index names.
      size: of these files, in bytes.
    """

    findings: tuple[str, ...]
    leftovers: tuple[str, ...] = ()
    models: int = 0
    files: int = 0
    size: int = 0


def verify(folder: pathlib.Path) -> Verdict:
    """Reads all of a hub again, while nobody publishes in it.

    Raises:
      ValueError: it is no hub.
    """
    if not (folder / hub_index.NAME).is_file():
        raise ValueError(f"{folder} is no hub: it has no {hub_index.NAME}.")
    with atomic.locked(folder):
        try:
            models = hub_index.read(folder)
        except ValueError as error:  # without it, nothing else can be told
            return Verdict(findings=(str(error),))
        files = hub_index.files(models)
        unfinished = set(hub.interrupted(folder)) - files.keys()
        there = dict(_files(folder))
        leftovers = [
            name
            for name in there
            if name in unfinished
            or name == hub.JOURNAL
            or name.startswith(atomic.STAGING_PREFIX)
        ]
        damaged = [
            f"{name}: {problem}"
            for name, sums in sorted(files.items())
            if (problem := _problem(there.pop(name, None), sums))
        ]
    strange = there.keys() - {hub_index.NAME, *leftovers}
    return Verdict(
        findings=(
            *damaged,
            *(f"{name}: is not in the index" for name in sorted(strange)),
        ),
        leftovers=tuple(leftovers),
        models=len(models),
        files=len(files),
        size=sum(sums["size"] for sums in files.values()),
    )


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """All files by their paths inside; links are not followed, and count as files."""
    for here, folders, names in os.walk(folder):
        links = [name for name in folders if pathlib.Path(here, name).is_symlink()]
        for name in sorted((*names, *links)):
            path = pathlib.Path(here, name)
            yield path.relative_to(folder).as_posix(), path


def _problem(path: pathlib.Path | None, sums: manifest.JsonObject) -> str:
    """What is wrong with a file; empty if it is as it was published."""
    if path is None:
        return "is missing"
    if path.is_symlink() or not path.is_file():
        return "is no plain file"
    if path.stat().st_size != sums["size"]:
        return f"has {path.stat().st_size} bytes, was published with {sums['size']}"
    sha256 = upload_files.upload_file(path.name, path).sha256
    if sha256 != sums["sha256"]:
        return f"was changed: SHA-256 {sha256}, published with {sums['sha256']}"
    return ""
