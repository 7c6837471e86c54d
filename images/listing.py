"""Lists the image files below a folder, without importing TensorFlow."""

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
"""File name suffixes of images, in lower case."""

_SUFFIXES = frozenset(SUFFIXES)  # the same, for a fast look-up
_HEIC = (".heic", ".heif")

_HIDDEN_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # of macOS, Synology, Windows


def is_hidden(name: str) -> bool:
    """Whether the name is that of a hidden or system file or folder.

    Examples: `.git`, `.ipynb_checkpoints`, `.thumbnails`, `__MACOSX`.
    """
    return name.startswith(".") or name in _HIDDEN_FOLDERS


HIDDEN = "hidden"
NO_SUFFIX = "without suffix"
FOLDER_LINKS = "links to folders"
NO_FILES = "broken links or special files"  # neither a file nor a folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files below a folder.

    Attributes:
      images: the image files, sorted by path.
      folders: names of the direct subfolders that are not hidden, including excluded
        ones and links to folders.
      skipped: number of skipped entries by suffix, or by one of `HIDDEN` (also files in
        hidden folders), `NO_SUFFIX`, `FOLDER_LINKS` and `NO_FILES`.
    """

    images: list[os.DirEntry[str]]
    folders: list[str]
    skipped: collections.Counter[str]


def find(folder: str | os.PathLike[str], *, exclude: Collection[str] = ()) -> Listing:
    """Lists the image files in a folder and its subfolders.

    Links to folders are not followed.

    Args:
      folder: folder to search.
      exclude: names of direct subfolders to leave out.

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
    pending = [
        (entry, is_hidden(entry.name))
        for entry in top
        if entry.name not in exclude or not entry.is_dir()
    ]
    while pending:
        entry, is_entry_hidden = pending.pop()
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
            pending += [
                (child, is_entry_hidden or is_hidden(child.name))
                for child in _entries(entry.path)
            ]
    return listing


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Returns the entries of a folder, the last name first: `find` pops the end."""
    with os.scandir(os.fspath(folder)) as entries:
        return sorted(entries, key=operator.attrgetter("name"), reverse=True)


def read_small(path: bytes | str, limit: int) -> bytes | None:
    """Reads a file; returns None if it is unreadable or larger than `limit` bytes.

    The input pipeline of `training` reads small files in this way, to find plain JPEG
    files among them. Its graph reads the others.
    """
    try:
        # A buffer would only add a copy, since the file is read at once.
        with open(path, "rb", buffering=0) as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    # The data is None if the path is a pipe or a device that has no data now.
    return None if data is None or len(data) > limit else data


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Returns a one-line message on skipped files, or an empty string.

    The most frequent kind comes first.
    """
    ordered = sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in ordered)
    hint = "; convert HEIC files first, for example to JPEG"
    is_heic = any(suffix in _HEIC for suffix in skipped)
    return f"files left out: {kinds}{hint if is_heic else ''}" if kinds else ""
