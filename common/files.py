"""Writes reports and pictures to files."""

from __future__ import annotations

import os
import pathlib
import tempfile


def check_target(path: pathlib.Path) -> None:
    """Raises ValueError where no file can be written: before the work, not after it."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of a file to write.")
    check_folder(path.parent)


def check_folder(folder: pathlib.Path) -> None:
    """Raises ValueError where no file can be made."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} can't be written.")


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all; what is no file is written to as it is.

    Args:
      path: of the file.
      content: lines of text, of which the last one has no end yet, or bytes.
    """
    path = path.resolve()
    data = content if isinstance(content, bytes) else f"{content}\n".encode()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise
