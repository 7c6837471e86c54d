"""Finds the image files below a folder; imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import operator
import os
from collections.abc import Collection, Mapping

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"),
    *(".dib", ".tif", ".tiff", ".avif", ".jp2"),
)
"""What the names of files end with that are taken for images, in small letters."""

_SUFFIXES = frozenset(SUFFIXES)

_HIDDEN_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # of macOS, Synology, Windows


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of what its owner put there.

    `.git`, `.ipynb_checkpoints`, `.thumbnails`, `__MACOSX` and the like.
    """
    return name.startswith(".") or name in _HIDDEN_FOLDERS


HIDDEN = "hidden"
NO_SUFFIX = "without suffix"
FOLDER_LINKS = "links to folders"
NO_FILES = "broken links or special files"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files below a folder.

    Attributes:
      images: the image files, sorted by path.
      folders: names of the folders in it that are not hidden.
      skipped: how many entries are no images, by suffix. `HIDDEN` counts those that
        are hidden, or in a hidden folder.
    """

    images: list[os.DirEntry[str]]
    folders: list[str]
    skipped: collections.Counter[str]


def find(folder: str | os.PathLike[str], *, except_in: Collection[str] = ()) -> Listing:
    """Lists the image files in a folder, and in those below it.

    Links to folders are not followed.

    Args:
      folder: where to look.
      except_in: names of folders in it that are passed over.

    Raises:
      OSError: the folder can't be read.
    """
    top = _entries(folder)
    listing = Listing(
        images=[],
        folders=[e.name for e in top if e.is_dir() and not is_hidden(e.name)],
        skipped=collections.Counter(),
    )
    images, skipped = listing.images, listing.skipped
    waiting = [
        (entry, is_hidden(entry.name))
        for entry in top
        if entry.name not in except_in or not entry.is_dir()
    ]
    while waiting:
        entry, is_entry_hidden = waiting.pop()
        if entry.is_file():
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in _SUFFIXES and not is_entry_hidden:
                images.append(entry)
            else:
                skipped[HIDDEN if is_entry_hidden else suffix or NO_SUFFIX] += 1
        elif not entry.is_dir():
            skipped[NO_FILES] += 1
        elif entry.is_symlink():
            skipped[FOLDER_LINKS] += 1
        else:
            waiting += [
                (below, is_entry_hidden or is_hidden(below.name))
                for below in _entries(entry.path)
            ]
    return listing


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, the last first."""
    with os.scandir(os.fspath(folder)) as entries:
        return sorted(entries, key=operator.attrgetter("name"), reverse=True)


def read_small(path: bytes | str, limit: int) -> bytes | None:
    """What a file holds; None if it can't be read, or has more bytes than `limit`."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return None if data is None or len(data) > limit else data


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """A line on files that were left out, the most frequent kind first; or nothing."""
    ordered = sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in ordered)
    return f"files left out: {kinds}" if kinds else ""
