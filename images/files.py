"""Finds the image files below a folder; imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping

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


HIDDEN = "hidden"
NO_SUFFIX = "without suffix"
FOLDER_LINKS = "links to folders"
NO_FILES = "broken links or special files"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The files below a folder.

    Attributes:
      images: paths of image files, sorted.
      skipped: how many entries are no images, by suffix. `HIDDEN` counts those that
        are hidden, or in a hidden folder.
    """

    images: list[pathlib.Path]
    skipped: collections.Counter[str]


def find(folder: pathlib.Path, *, except_in: Collection[str] = ()) -> Listing:
    """Lists the image files in a folder, and in those below it.

    Links to folders are not followed.

    Args:
      folder: where to look.
      except_in: names of folders in it that are passed over.

    Raises:
      OSError: the folder can't be read.
    """
    images: list[pathlib.Path] = []
    skipped: collections.Counter[str] = collections.Counter()
    waiting = [(os.fspath(folder), False)]
    while waiting:
        place, is_below_hidden = waiting.pop()
        is_top = place == os.fspath(folder)
        for entry in os.scandir(place):
            is_entry_hidden = is_below_hidden or is_hidden(entry.name)
            if entry.is_dir():
                is_wanted = not (is_top and entry.name in except_in)
                if is_wanted and entry.is_symlink():
                    skipped[FOLDER_LINKS] += 1
                elif is_wanted:
                    waiting.append((entry.path, is_entry_hidden))
            elif entry.is_file():
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix in SUFFIXES and not is_entry_hidden:
                    images.append(pathlib.Path(entry.path))
                else:
                    skipped[HIDDEN if is_entry_hidden else suffix or NO_SUFFIX] += 1
            else:
                skipped[NO_FILES] += 1
    return Listing(images=sorted(images), skipped=skipped)


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """A line on files that were left out, the most frequent kind first; or nothing."""
    ordered = sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in ordered)
    return f"files left out: {kinds}" if kinds else ""
