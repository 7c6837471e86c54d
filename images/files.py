"""Finds the image files below a folder; imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp"),
    *(".dib", ".tif", ".tiff", ".avif", ".jp2"),
)
"""What the names of files end with that are taken for images, in small letters."""

_HIDDEN_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # of macOS, Synology, Windows


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of what its owner put there.

    `.git`, `.ipynb_checkpoints`, `.thumbnails`, `__MACOSX` and the like.
    """
    return name.startswith(".") or name in _HIDDEN_FOLDERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files below a folder.

    Attributes:
      images: paths of image files, sorted.
      skipped: how many files are no images, by suffix; `hidden` counts those whose own
        name or whose folder's is hidden.
    """

    images: list[pathlib.Path]
    skipped: collections.Counter[str]


HIDDEN = "hidden"
NO_SUFFIX = "without suffix"


def find(folder: pathlib.Path, *, recursive: bool = True) -> Listing:
    """Lists the image files in a folder, and in those below it.

    Links to folders are not followed.

    Raises:
      OSError: the folder can't be read.
    """
    images: list[pathlib.Path] = []
    skipped: collections.Counter[str] = collections.Counter()
    waiting = [(folder, False)]
    while waiting:
        place, is_below_hidden = waiting.pop()
        for entry in os.scandir(place):
            is_entry_hidden = is_below_hidden or is_hidden(entry.name)
            if entry.is_dir():
                if recursive and not entry.is_symlink():
                    waiting.append((pathlib.Path(entry.path), is_entry_hidden))
            elif not entry.is_file():
                continue
            elif is_entry_hidden:
                skipped[HIDDEN] += 1
            else:
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix in SUFFIXES:
                    images.append(pathlib.Path(entry.path))
                else:
                    skipped[suffix or NO_SUFFIX] += 1
    return Listing(images=sorted(images), skipped=skipped)


def describe_skipped(skipped: collections.Counter[str]) -> str:
    """A line on files that were left out, the most frequent kind first; or nothing."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common())
    return f"left out, as no images: {kinds}" if kinds else ""
