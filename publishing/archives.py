"""Packs a model for a hub, and reads single files of a packed model.

An archive is a gzipped tar file whose root is the model's root.
"""

from __future__ import annotations

import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Mapping

_LEVEL = 6  # of compression; weights hardly shrink at any level


def write(files: Mapping[str, pathlib.Path], target: pathlib.Path) -> None:
    """Writes `files`, by path in the archive, to the new file `target`.

    The same files always give the same bytes, on any machine: members are sorted,
    folders precede their contents, and no times, owners or host names are stored.
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


def read_file(archive: pathlib.Path, name: str) -> bytes | None:
    """Returns a file of an archive; None if it can't be read.

    Reads only as much as precedes the file: members are sorted by name.
    """
    try:
        with tarfile.open(archive, mode="r|gz") as tar:
            for member in tar:
                if member.name == name and (file := tar.extractfile(member)):
                    return file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        pass
    return None
