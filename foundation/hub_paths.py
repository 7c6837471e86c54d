"""Paths in a hub in a folder, and the links between its pages."""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

MODELS = "models"  # folder of documents, next to the folders of archs
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
    """Returns the folder of a model's documents: PUBLISHER/models/ARCH/KIND/VERSION."""
    publisher, _, name = handle.partition("/")
    return f"{publisher}/{MODELS}/{name}"


def is_of_model(path: str, handle: str) -> bool:
    """Checks whether a path is that of a model's archive or documents."""
    folder = documents_folder(handle)
    return path in (handle, f"{folder}.md") or path.startswith(f"{folder}/")


def format_archive(handle: str, name: str) -> str:
    """Returns the path of a model's archive in another format."""
    return f"{documents_folder(handle)}/{_FORMATS}/{name}{_ARCHIVE}"


def format_report(handle: str, name: str) -> str:
    """Returns the path of the comparison of another format with the SavedModel."""
    return f"{documents_folder(handle)}/{_FORMATS}/{name}.json"


def formats(files: Iterable[str]) -> dict[str, str]:
    """Returns the archives of other formats among a model's files, by format."""
    return {
        posixpath.basename(path).removesuffix(_ARCHIVE): path
        for path in sorted(files)
        if path.endswith(_ARCHIVE)
        and posixpath.basename(posixpath.dirname(path)) == _FORMATS
    }
