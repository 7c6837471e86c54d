"""Files to upload, and the interface that all destinations implement."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import typing
from collections.abc import Iterable, Mapping

from exporters import manifest
from publishing import pairs

REPORT = "conformance.json"  # a model's document with its conformance report

# Documents of each kind, by path.
Documents = Mapping[str, Mapping[str, bytes]]

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_OWNER = re.compile(r"[A-Za-z\d][\w.-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UploadFile:
    """A file to send to a hub.

    Attributes:
      target: its path in the hub.
      source: its local path.
      size: in bytes.
      sha256: of its contents.
    """

    target: str
    source: pathlib.Path
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.sha256}  {self.size:>12}  {self.target}"


class Destination(typing.Protocol):
    """A hub that pairs are published to.

    Attributes:
      takes_formats: whether it takes a pair's other formats, too.
    """

    takes_formats: bool

    def handles(self, pair: pairs.Pair) -> list[str]:
        """Returns the handles of both models, relative to the hub."""

    def has(self, pair: pairs.Pair) -> bool:
        """Checks whether both models are already published.

        Raises:
          ValueError: a model is published with different bytes.
        """

    def pack(
        self, pair: pairs.Pair, documents: Documents, scratch: pathlib.Path
    ) -> list[UploadFile]:
        """Returns all files to send; writes new files to `scratch` first."""

    def publish(self, pair: pairs.Pair, documents: Documents) -> None:
        """Sends the models that are not published yet."""

    def refresh(self) -> None:
        """Brings up to date what the hub derives from all its models, if anything."""


def upload_file(target: str, source: pathlib.Path) -> UploadFile:
    """Hashes an existing file for an upload to `target`."""
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = source.stat().st_size
    return UploadFile(target=target, source=source, size=size, sha256=sha256)


def is_valid_name(target: object) -> bool:
    """Checks that a path stays in a hub and has no unusual characters."""
    return isinstance(target, str) and bool(_NAME.fullmatch(target))


def write_file(target: str, content: bytes, scratch: pathlib.Path) -> UploadFile:
    """Writes `content` below `scratch` for an upload to `target`.

    Raises:
      ValueError: `target` has characters that some file systems do not allow.
    """
    if not is_valid_name(target):
        raise ValueError(f"{target!r} is not a valid name of a document.")
    source = scratch / target
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    return upload_file(target, source)


def check_owner(owner: str, hub: str) -> None:
    """Raises ValueError if `owner` is not a valid account name."""
    if not _OWNER.fullmatch(owner):
        raise ValueError(
            f"--hub={hub}:OWNER requires an account name as OWNER, got {owner!r}."
        )


def documents_below(prefix: str, documents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the documents whose names begin with `prefix`, and removes the prefix."""
    return {
        name.removeprefix(prefix): content
        for name, content in sorted(documents.items())
        if name.startswith(prefix)
    }


def files_in(folder: str, uploads: Iterable[UploadFile]) -> dict[str, pathlib.Path]:
    """Returns the local files whose targets are in a folder, by their paths in it."""
    return {
        upload.target.removeprefix(f"{folder}/"): upload.source
        for upload in uploads
        if upload.target.startswith(f"{folder}/")
    }


def difference(path: pathlib.Path, entry: manifest.JsonObject) -> str:
    """Describes how a file differs from its index entry; empty if it does not."""
    if not os.path.lexists(path):
        return "is missing"
    if path.is_symlink() or not path.is_file():
        return "is not a regular file"
    if path.stat().st_size != entry["size"]:
        return f"has {path.stat().st_size} bytes, was published with {entry['size']}"
    sha256 = upload_file(path.name, path).sha256
    if sha256 != entry["sha256"]:
        return f"was changed: SHA-256 {sha256}, published with {entry['sha256']}"
    return ""
