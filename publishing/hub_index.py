"""Reads and writes the index of a hub: published models and hashes of all files.

{"format": 2,
 "models": {HANDLE: {"sha256": …, "manifest_sha256": …, "weights": …,
                     "summary": what the front page says about the model,
                     "files": {PATH: {"size": …, "sha256": …}}}},
 "site": {PATH: {"size": …, "sha256": …}},   the front page and the pages' assets
 "sha256": of the JSON text of the entries above}

Indexes of format 1 have neither `site` nor `summary`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import threading
import typing

from exporters import manifest

NAME = "index.json"
_FORMATS = (1, 2)

Models = dict[str, manifest.JsonObject]
Files = dict[str, manifest.JsonObject]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What a hub holds.

    Attributes:
      models: index entries by handle.
      site: size and SHA-256 of the front page and the assets, by path.
    """

    models: Models = dataclasses.field(default_factory=dict)
    site: Files = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def files(self) -> Files:
        """Size and SHA-256 of every published file, by path."""
        return {**files(self.models), **self.site}


class Reader:
    """Reads the index of a hub, and again only after it changed.

    Threads may share it. What it returns must not be changed.

    Args:
      hub: folder of the hub.
    """

    def __init__(self, hub: pathlib.Path):
        self._hub = hub
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._index = Index()

    def read(self) -> Index:
        """Returns the index as it is now; see `read_index`."""
        with self._lock:
            try:
                status = (self._hub / NAME).stat()
            except FileNotFoundError:
                return Index()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._index = read_index(self._hub)
                self._stamp = stamp
            return self._index


def read(hub: pathlib.Path) -> Models:
    """Reads the published models by handle; see `read_index`."""
    return read_index(hub).models


def read_index(hub: pathlib.Path) -> Index:
    """Reads the index of a hub; it is empty if there is no index yet.

    Raises:
      ValueError: the index is not what `to_text` returns for its contents.
    """
    path = hub / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Index()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    try:
        record = json.loads(text)
        _check_format(path, record)
        index = Index(models=record["models"], site=record.get("site", {}))
        if text == to_text(index.models, index.site):
            return index
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        pass
    raise ValueError(f"{path} is damaged: it is not what tools/publish wrote.")


def _check_format(path: pathlib.Path, record: dict[str, typing.Any]) -> None:
    number = record.get("format")
    if isinstance(number, int) and number > max(_FORMATS):
        raise ValueError(
            f"{path} has the format {number}, which a later version of tools/publish "
            "wrote: update this one."
        )


def to_text(models: Models, site: Files | None = None) -> str:
    """Returns the text of the index; the same contents always give the same text."""
    record: manifest.JsonObject = {
        "format": 2 if site else 1,
        "models": dict(sorted(models.items())),
    }
    if site:
        record["site"] = dict(sorted(site.items()))
    text = manifest.to_json(record)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    end = "\n}\n"  # formatting megabytes a second time would take a second
    return f'{text.removesuffix(end)},\n  "sha256": "{sha256}"{end}'


def files(models: Models) -> Files:
    """Returns size and SHA-256 of every file of the models, by path."""
    return {
        path: file for model in models.values() for path, file in model["files"].items()
    }
