"""What is sent to a hub, file by file."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
import typing
from collections.abc import Iterable, Mapping

from publishing import pairs

Documents = Mapping[
    str, Mapping[str, bytes]
]  # of each kind, the documents by their names

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_OWNER = re.compile(r"[A-Za-z\d][\w.-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UploadFile:
    """A file on its way.

    Attributes:
      target: where it goes, relative to the hub.
      source: where it is now.
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
    """Where pairs are published."""

    def handles(self, pair: pairs.Pair) -> list[str]:
        """What the halves are found by, relative to the hub."""

    def has(self, pair: pairs.Pair) -> bool:
        """Whether both halves are published already.

        Raises:
          ValueError: a half is, with other bytes: versions do not change.
        """

    def pack(
        self, pair: pairs.Pair, papers: Documents, scratch: pathlib.Path
    ) -> list[UploadFile]:
        """All that is to be sent; what must be made first is made in `scratch`."""

    def publish(self, pair: pairs.Pair, papers: Documents) -> None:
        """Sends it, unless it is there."""


def upload_file(target: str, source: pathlib.Path) -> UploadFile:
    """A file as it is now."""
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = source.stat().st_size
    return UploadFile(target=target, source=source, size=size, sha256=sha256)


def written_file(target: str, content: bytes, scratch: pathlib.Path) -> UploadFile:
    """A file that is made of `content`, below `scratch`.

    Raises:
      ValueError: the target's name is not one for every file system.
    """
    if not _NAME.fullmatch(target):
        raise ValueError(f"A document can't be called {target!r}.")
    source = scratch / target
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    return upload_file(target, source)


def check_owner(owner: str, hub: str) -> None:
    """Raises ValueError where `owner` is no name of an account."""
    if not _OWNER.fullmatch(owner):
        raise ValueError(
            f"--hub={hub}:OWNER needs the name of an account, got {owner!r}."
        )


def under(prefix: str, documents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The documents whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): content
        for name, content in sorted(documents.items())
        if name.startswith(prefix)
    }


def inside(folder: str, items: Iterable[UploadFile]) -> dict[str, pathlib.Path]:
    """The files whose targets are below a folder, by their paths in it."""
    return {
        each.target.removeprefix(f"{folder}/"): each.source
        for each in items
        if each.target.startswith(f"{folder}/")
    }
