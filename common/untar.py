"""Extracts files from tar archives that nobody vouches for."""

from __future__ import annotations

import pathlib
import shutil
import tarfile


def extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: pathlib.Path
) -> None:
    """Extracts a file or a folder with its contents alone: no owner, mode or time.

    `TarFile.extract(filter="data")` would do, but Python has it only since 3.11.4, and
    Debian 12 has 3.11.2.

    Raises:
      ValueError: the member is neither, or its path leads out of `folder`.
    """
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"its member {member.name!r} is neither file nor folder")
    root = folder.resolve()
    target = (root / member.name).resolve()
    if not target.is_relative_to(root):
        raise ValueError(f"its member {member.name!r} leads outside its folder")
    parent = target if member.isdir() else target.parent
    parent.mkdir(parents=True, exist_ok=True)
    if member.isfile():
        source = tar.extractfile(member)
        assert source is not None  # since it is a file
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
