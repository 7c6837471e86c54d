"""Writing folders so that each is whole or absent, whenever the writer is killed.

Everything is written into a hidden folder beside the target and renamed into place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator

PREFIX = ".partial-"  # of what an unfinished writer has


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Makes `folder` and holds it for this process alone; others wait their turn.

    A folder made here and still empty at the end is removed again.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _lock(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        os.close(handle)


def _lock(folder: pathlib.Path) -> int:
    """An open handle on the folder, locked while it is open."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another process to finish", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever held it may have removed the folder, and a third one made it anew.
        if folder.exists() and folder.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


@contextlib.contextmanager
def staged(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder inside the locked `folder`, gone at the end.

    What a killed writer left behind is removed first: the lock says it is dead.
    """
    for leftover in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(leftover)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def place(staged_path: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a finished file or folder to `target`, in place of what is there.

    A folder that is replaced is moved away first: killed in between, the target is
    absent.
    """
    staged_path.chmod(0o755 if staged_path.is_dir() else 0o644)
    _sync(staged_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rename(staged_path.with_name(f"{staged_path.name}-replaced"))
    staged_path.replace(target)
    _sync_one(target.parent)


def _sync(path: pathlib.Path) -> None:
    for child in [*path.rglob("*"), path]:
        _sync_one(child)


def _sync_one(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
