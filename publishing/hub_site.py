"""The web site of a hub in a folder: its front page, and the assets of all pages.

Assets (styles, scripts) are in assets/HASH, where HASH is that of their contents: a
page keeps the assets that it was published with. Each publish writes the front page
again, after the index that names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import typing
from collections.abc import Mapping

from exporters import manifest
from foundation import hub_paths
from publishing import archives, hub_index, upload_files

FRONT_PAGE = hub_paths.PAGE
ASSETS = "assets"  # no publisher may have this name
_REPLACES = "replaces"  # SHA-256 of the front page before; "" without one
_HASH_LENGTH = 16  # hexadecimal digits in the name of a folder of assets
_VERSION = re.compile(r"[1-9]\d*", re.ASCII)

AssetFolders = Mapping[str, str]


class Pages(typing.Protocol):
    """Writes the pages of a hub."""

    @property
    def assets(self) -> Mapping[str, Mapping[str, pathlib.Path]]:
        """Folders of assets by name, each with its local files by path."""

    def summary(
        self, model: pathlib.Path, report: Mapping[str, typing.Any]
    ) -> manifest.JsonObject:
        """Returns what the front page says about a model, for the index."""

    def model_page(
        self,
        model: pathlib.Path,
        report: Mapping[str, typing.Any],
        *,
        handle: str,
        other: str,
        files: hub_index.Files,
        formats: Mapping[str, pathlib.Path],
        previous: manifest.JsonObject | None,
        assets: AssetFolders,
    ) -> str:
        """Returns the page of a model.

        Args:
          model: folder of the SavedModel.
          report: its conformance report.
          handle: its handle.
          other: handle of the other model of the pair.
          files: size and SHA-256 of its other files in the hub, by path.
          formats: local folders of the same model in other formats, by format.
          previous: `version`, `manifest` and `report` of the version before; the last
            two are None if they can't be read. None for a first version.
          assets: paths of the folders of assets in the hub, by name.
        """

    def front_page(self, models: hub_index.Models, *, assets: AssetFolders) -> str:
        """Returns the front page of a hub with these models."""


def asset_folders(pages: Pages) -> dict[str, str]:
    """Returns the paths of the folders of assets in a hub, by name."""
    folders = {}
    for name, files in pages.assets.items():
        if not files:
            continue
        hashes = {}
        for path, source in files.items():
            with source.open("rb") as file:
                hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        content = manifest.content_hash(dict(sorted(hashes.items())))
        folders[name] = f"{ASSETS}/{content[:_HASH_LENGTH]}"
    return folders


def missing_assets(
    pages: Pages,
    folders: AssetFolders,
    hub: pathlib.Path,
    index: hub_index.Index,
    scratch: pathlib.Path,
) -> list[upload_files.UploadFile]:
    """Copies to `scratch` the assets that a hub does not have yet.

    Args:
      pages: writes the pages.
      folders: of its assets, see `asset_folders`.
      hub: folder of the hub.
      index: its index.
      scratch: folder for the copies.
    """
    uploads = []
    for name, folder in folders.items():
        for path, source in sorted(pages.assets[name].items()):
            target = f"{folder}/{path}"
            if target in index.site and os.path.lexists(hub / target):
                continue
            copy = scratch / target
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            uploads.append(upload_files.upload_file(target, copy))
    return uploads


def previous_version(
    hub: pathlib.Path, index: hub_index.Index, handle: str
) -> manifest.JsonObject | None:
    """Reads the version before `handle` for `Pages.model_page`.

    Args:
      hub: folder of the hub.
      index: its index.
      handle: PUBLISHER/ARCH/KIND/VERSION.
    """
    name, _, version = handle.rpartition("/")
    versions = [
        int(other.rpartition("/")[2])
        for other in index.models
        if other.startswith(f"{name}/") and _VERSION.fullmatch(other[len(name) + 1 :])
    ]
    earlier = [number for number in versions if number < int(version)]
    if not earlier:
        return None
    before = f"{name}/{max(earlier)}"
    report = hub / hub_paths.documents_folder(before) / upload_files.REPORT
    content = archives.read_file(hub / before, str(manifest.MANIFEST))
    return {
        "version": max(earlier),
        "manifest": _parse(content),
        "report": _parse(report.read_bytes() if report.is_file() else None),
    }


def _parse(content: bytes | None) -> manifest.JsonObject | None:
    """Returns a JSON object; None if there is none."""
    try:
        record = json.loads(content or b"")
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def site_entries(
    hub: pathlib.Path,
    index: hub_index.Index,
    assets: list[upload_files.UploadFile],
    front_page: upload_files.UploadFile,
) -> hub_index.Files:
    """Returns the entry `site` of an index with new assets and a new front page."""
    files = [*assets, front_page]
    entries = {
        file.target: {"size": file.size, "sha256": file.sha256} for file in files
    }
    old = index.site.get(FRONT_PAGE)
    if old and old["sha256"] == front_page.sha256:
        entries[FRONT_PAGE] = old
    else:
        before = old["sha256"] if old else ""
        if old and is_replaced(hub, old):
            before = old[_REPLACES]
        entries[FRONT_PAGE][_REPLACES] = before
    return {**index.site, **entries}


def is_replaced(hub: pathlib.Path, entry: manifest.JsonObject) -> bool:
    """Checks whether the front page is still the one before that of the index.

    A publish that was killed between the index and the front page leaves it so.
    """
    return _front_page_hash(hub) == entry[_REPLACES] != ""


def is_current(hub: pathlib.Path, entry: manifest.JsonObject) -> bool:
    """Checks whether the front page is the one in the index."""
    return _front_page_hash(hub) == entry["sha256"]


def _front_page_hash(hub: pathlib.Path) -> str | None:
    """Returns the SHA-256 of the front page; None without a regular file."""
    path = hub / FRONT_PAGE
    if path.is_symlink() or not path.is_file():
        return None
    return upload_files.upload_file(FRONT_PAGE, path).sha256
