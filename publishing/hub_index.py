"""Reads and writes the index of a hub: published models and hashes of all files.

{"format": 2,
 "models": {HANDLE: {"sha256": …, "manifest_sha256": …, "weights": …,
                     "summary": what the front page says about the model,
                     "files": {PATH: {"size": …, "sha256": …}}}},
 "site": {PATH: {"size": …, "sha256": …}},   the front page and the pages' assets
 "signing": signers of a signed hub, see `signed_index`,
 "sha256": of the JSON text of the entries above}

Indexes of format 1 have neither `site` nor `summary`. A signed index has its
signature in signing/index-SHA256.sig.
"""

from __future__ import annotations

import contextlib
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
_LARGEST = 256 << 20  # bytes; a hub of 1,000 pairs has 7 MB

Models = dict[str, manifest.JsonObject]
Files = dict[str, manifest.JsonObject]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """What a hub holds.

    Attributes:
      models: index entries by handle.
      site: size and SHA-256 of the front page and the assets, by path.
      signing: signers of a signed hub; empty if the hub is not signed.
      signature: path of the signature of a signed index.
    """

    models: Models = dataclasses.field(default_factory=dict)
    site: Files = dataclasses.field(default_factory=dict)
    signing: manifest.JsonObject = dataclasses.field(default_factory=dict)
    signature: str = ""

    @functools.cached_property
    def files(self) -> Files:
        """Size and SHA-256 of every published file but the signature, by path."""
        signers = self.signing.get("files", {})
        return {**files(self.models), **self.site, **signers}


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
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path} is damaged: it has more than {_LARGEST} bytes.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Index()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    record: typing.Any = None
    with contextlib.suppress(ValueError, RecursionError):  # a ValueError: long numbers
        record = json.loads(text)
    try:
        _check_format(path, record)
        signing = record.get("signing", {})
        index = Index(
            models=record["models"],
            site=record.get("site", {}),
            signing=signing,
            signature=signature_path(text) if signing else "",
        )
        same = text == to_text(index.models, index.site, index.signing)
        if same and all(map(_is_file, index.files.values())):
            return index
    except (KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged: it is not what tools/publish wrote.")


def _is_file(entry: manifest.JsonObject) -> bool:
    return isinstance(entry["size"], int) and isinstance(entry["sha256"], str)


def _check_format(path: pathlib.Path, record: typing.Any) -> None:
    number = record.get("format")
    if isinstance(number, int) and number > max(_FORMATS):
        raise ValueError(
            f"{path} has the format {number}, which a later version of tools/publish "
            "wrote: update this one."
        )


def to_text(
    models: Models,
    site: Files | None = None,
    signing: manifest.JsonObject | None = None,
) -> str:
    """Returns the text of the index; the same contents always give the same text."""
    record: manifest.JsonObject = {
        "format": 2 if site or signing else 1,
        "models": dict(sorted(models.items())),
    }
    if site:
        record["site"] = dict(sorted(site.items()))
    if signing:
        record["signing"] = signing
    text = manifest.to_json(record)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    end = "\n}\n"  # formatting megabytes a second time would take a second
    return f'{text.removesuffix(end)},\n  "sha256": "{sha256}"{end}'


def signature_path(text: str) -> str:
    """Returns the path of the signature of an index with this text.

    The path belongs to one text, so an index and its signature change at once.
    """
    return f"signing/index-{hashlib.sha256(text.encode()).hexdigest()}.sig"


def files(models: Models) -> Files:
    """Returns size and SHA-256 of every file of the models, by path."""
    return {
        path: file for model in models.values() for path, file in model["files"].items()
    }
