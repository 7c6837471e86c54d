"""Paths in a hub in a folder, and the links between its pages."""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

PAGE = "index.html"  # of the hub, and of each model
_FORMATS = "formats"  # folder of a model's archives in other formats
_ARCHIVE = ".tar.gz"

Files = Mapping[str, Mapping[str, Any]]
"""Size and SHA-256 of files by their paths in the hub."""


def link(path: str, folder: str = "") -> str:
    """Returns the address of a path in the hub, relative to a page in `folder`.

    It begins with a dot, so that no name in the path is taken for a scheme.
    """
    relative = posixpath.relpath(path, folder or ".")
    start = "" if relative.startswith("../") else "./"
    return start + urllib.parse.quote(relative)


def documents_folder(handle: str) -> str:
    """Returns the folder of a model's documents in the hub."""
    publisher, _, name = handle.partition("/")
    return f"{publisher}/models/{name}"


def formats(files: Iterable[str]) -> dict[str, str]:
    """Returns the archives of other formats among a model's files, by format."""
    return {
        posixpath.basename(path).removesuffix(_ARCHIVE): path
        for path in sorted(files)
        if path.endswith(_ARCHIVE)
        and posixpath.basename(posixpath.dirname(path)) == _FORMATS
    }
