"""Writes files and folders atomically: complete or absent, even after a crash.

New contents are written next to the target under a hidden name, and then renamed.
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
"""Prefix of the staging folders that an interrupted writer leaves behind."""


def check_target(path: pathlib.Path) -> None:
    """Raises ValueError if `path` can't be written; call it before long work."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of a file to write.")
    check_folder(path.parent)


def check_folder(folder: pathlib.Path) -> None:
    """Raises ValueError if no file can be created in `folder`."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} can't be written.")


def write_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file atomically; devices and pipes are written directly.

    Args:
      path: the file to write.
      content: bytes, or text without the final newline.

    Raises:
      OSError: the file can't be written; the message gives its path.
    """
    data = content if isinstance(content, bytes) else f"{content}\n".encode()
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with replacement(path) as partial, naming(path):
        partial.write_bytes(data)


@contextlib.contextmanager
def replacement(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty file that replaces `path` when the block succeeds.

    Raises:
      OSError: the file can't be created or replaced; the message gives its path.
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
    """Within the context, rewords an OSError: `path` can't be written, and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"Can't write {path}: {reason}") from error


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Creates `folder` and locks it for this process; other processes wait.

    At the end, folders that were created here are removed if they are empty.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = -1
    try:
        handle = _lock(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            if handle < 0:  # interrupted before it was locked; another may have it now
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in created:
                path.rmdir()
        if handle >= 0:
            os.close(handle)


def _lock(folder: pathlib.Path) -> int:
    """Locks a folder and returns its file descriptor; closing it unlocks."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waiting for another process to finish", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # The last holder may have removed the folder, and another process recreated it.
        if folder.exists() and folder.stat().st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


@contextlib.contextmanager
def staging_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder inside the locked `folder`, and removes it at the end.

    It first removes staging folders of other processes. As `folder` is locked, those
    processes have ended.
    """
    for leftover in folder.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(staged_path: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a finished file or folder to `target`, replacing an existing one.

    An existing folder is moved away first. If the process is killed in between, the
    target is absent.
    """
    staged_path.chmod(0o755 if staged_path.is_dir() else 0o644)
    _sync(staged_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rename(staged_path.with_name(f"{staged_path.name}-replaced"))
    staged_path.replace(target)
    _sync_one(target.parent)


def _sync(path: pathlib.Path) -> None:
    """Flushes a file, or a folder with all its contents, to disk."""
    for child in [*path.rglob("*"), path]:
        _sync_one(child)


def _sync_one(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Returns the umask of this process; it can only be read by setting it."""
    umask = os.umask(0o022)
    os.umask(umask)
    return umask
