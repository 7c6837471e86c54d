"""Writes files and folders so that each is complete or absent, even after a crash.

New contents are written beside the target, under a hidden name, and renamed into place.
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

STAGING_PREFIX = ".partial-"
"""Names of folders that an interrupted writer leaves behind begin with this."""


def check_target(path: pathlib.Path) -> None:
    """Raises ValueError if `path` can't be written; call it before long work."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of a file to write.")
    check_folder(path.parent)


def check_folder(folder: pathlib.Path) -> None:
    """Raises ValueError if no file can be created in `folder`."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} can't be written.")


def write_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file completely or not at all; devices and pipes are written directly.

    Args:
      path: the file to write.
      content: bytes, or text without its last newline.

    Raises:
      OSError: the file can't be written; the message names it.
    """
    data = content if isinstance(content, bytes) else f"{content}\n".encode()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with replacement(path) as partial, naming(path):
        partial.write_bytes(data)


@contextlib.contextmanager
def replacement(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty file beside `path` that replaces it if the block succeeds.

    Raises:
      OSError: the file can't be created or replaced; the message names it.
    """
    path = path.resolve()
    with naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
    partial = pathlib.Path(name)
    try:
        yield partial
        with naming(path):
            _sync_one(partial)
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Within the context, an OSError says that `path` can't be written, and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"Can't write {path}: {reason}") from error


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Creates `folder` and locks it for this process; other processes wait.

    A folder that was created here and is still empty at the end is removed again.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _lock(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in created:
                path.rmdir()
        os.close(handle)


def _lock(folder: pathlib.Path) -> int:
    """Returns an open, locked handle of the folder; closing it unlocks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another process to finish", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # The former holder may have removed the folder, and another recreated it.
        if folder.exists() and folder.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


@contextlib.contextmanager
def staging_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder inside the locked `folder`, and removes it at the end.

    Leftovers of killed writers are removed first: the lock proves that they are dead.
    """
    for leftover in folder.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(staged_path: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a finished file or folder to `target`, replacing what is there.

    A folder that is replaced is moved away first: if the process is killed in between,
    the target is absent.
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


def _umask() -> int:
    """The umask of this process; reading it means setting it for a moment."""
    umask = os.umask(0o022)
    os.umask(umask)
    return umask
