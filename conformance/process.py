"""Runs a program in a process of its own, within limits, and reads what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import psutil

_POLL = 0.1  # seconds between two looks at the memory
_LONGEST_MESSAGE = 10_000_000  # bytes
_LONGEST_LINE = 200  # characters of a program's last words
_LARGEST_LOG = 100 << 20  # bytes
_GIB = 1 << 30
_NO_WORDS = re.compile(
    r"\s*($|@|\*\*\*|PC: |\[\[\{\{|I0000 |WARNING: All log messages)"
)  # stack traces, and such


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process may take.

    Args:
      seconds: from one message to the next, or to its end.
      memory: bytes, that it and its children hold together.
      cancelled: once it is set, the process is stopped within a second.
    """

    seconds: float
    memory: int
    cancelled: threading.Event | None = None


class Stopped(Exception):
    """The process crashed, failed, or was stopped at a limit; the message says how."""


def messages(
    command: Sequence[str],
    job: Any,
    *,
    limits: Limits,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """Runs a program, and yields each line of JSON that it writes to its pipe.

    The program gets the number of the pipe as its last argument, and `job` as a line of
    JSON on its standard input, which ends when nobody listens any more. Its temporary
    files are its own, and are removed. Whatever becomes of it, its process and its
    children are gone when this ends.

    Args:
      command: program and arguments.
      job: what JSON can say.
      limits: of the process.
      environment: variables to set for it.

    Raises:
      Stopped: it did not end by itself, and well.
    """
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        stack.callback(os.close, ours)
        process = subprocess.Popen(
            [*command, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[theirs],
            start_new_session=True,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TMPDIR": scratch,
                **(environment or {}),
            },
        )
        stack.callback(_end, process)
        os.close(theirs)
        assert process.stdin
        stack.callback(_close, process.stdin)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        try:
            yield from _lines(process, ours, log, limits=limits)
        except _Silent as error:
            raise Stopped(f"{error}{_last_words(log)}") from None
        status = process.wait(limits.seconds)
        if status:
            raise Stopped(f"{_how(status)}{_last_words(log)}")


class _Silent(Exception):
    """Nothing more is to be expected of a process."""


def _lines(
    process: subprocess.Popen[bytes], pipe: int, log: IO[bytes], *, limits: Limits
) -> Iterator[Any]:
    """The messages until the pipe is closed."""
    data = b""
    deadline = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(_POLL):
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    return
                *lines, data = (data + chunk).split(b"\n")
                for line in lines:
                    yield _message(line)
                    deadline = time.monotonic() + limits.seconds
            if len(data) > _LONGEST_MESSAGE:
                raise _Silent("said more than any message has")
            if _memory(process) > limits.memory:
                raise _Silent(
                    f"took more than {limits.memory / _GIB:.1f} GiB of memory"
                )
            if os.fstat(log.fileno()).st_size > _LARGEST_LOG:
                raise _Silent(f"printed more than {_LARGEST_LOG >> 20} MiB")
            if limits.cancelled and limits.cancelled.is_set():
                raise _Silent("was cancelled")
            if time.monotonic() > deadline:
                raise _Silent(f"did not end within {limits.seconds:g} s")


def _message(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise _Silent("wrote into the pipe of its messages") from error


def _memory(process: subprocess.Popen[bytes]) -> int:
    """Bytes that the process and its children hold."""
    try:
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        with contextlib.suppress(psutil.Error):
            total += member.memory_info().rss
    return total


def _how(status: int) -> str:
    """How a process ended that did not end well."""
    if status > 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    hint = ", as where the machine's memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _last_words(log: IO[bytes]) -> str:
    """The last line for people that a process printed, if any."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 10_000))
    lines = log.read().decode("utf-8", "replace").split("\n")
    words = [line.strip() for line in lines if not _NO_WORDS.match(line)]
    return f"; its last words: {words[-1][:_LONGEST_LINE]}" if words else ""


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder for temporary files; who is killed leaves some."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder


def _close(stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process with all that it started, if they are still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
