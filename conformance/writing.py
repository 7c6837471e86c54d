"""Writes reports to files."""

from __future__ import annotations

import os
import pathlib
import tempfile


def check_folder(folder: pathlib.Path) -> None:
    """Raises ValueError where no file can be written: before the work, not after it."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} can't be written.")


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all; what is no file is written to as it is."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(f"{text}\n", encoding="utf-8")
        return
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise
