"""Packs a model as hubs do: a gzipped tar file whose root is the model's root."""

from __future__ import annotations

import gzip
import pathlib
import tarfile
from collections.abc import Mapping

_LEVEL = 6  # of compression; weights hardly shrink, whatever it is


def write(files: Mapping[str, pathlib.Path], target: pathlib.Path) -> None:
    """Writes `files`, by their paths inside, to the new file `target`.

    Equal files give equal bytes, wherever and whenever: members are sorted, folders
    come before what is in them, and there are no times, owners or names of machines.
    """
    folders = {
        str(folder)
        for name in files
        for folder in pathlib.PurePosixPath(name).parents
        if folder.name
    }
    with (
        target.open("xb") as file,
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted((*folders, *files)):
            member = tarfile.TarInfo(name)
            if name in folders:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
                continue
            member.size = files[name].stat().st_size
            with files[name].open("rb") as content:
                tar.addfile(member, content)
