"""Runs a program in a subprocess with time and memory limits; reads its messages."""

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
from collections.abc import Iterator, Mapping
from typing import IO, Any

import psutil

from conformance import forks

_POLL = 0.1  # seconds between checks of the limits
_TIME_LIMIT = "the time limit; a slow or busy machine needs a longer one"
_LONGEST_MESSAGE = 10_000_000  # bytes
_LONGEST_LINE = 200  # characters of the last output line in an error
_LARGEST_LOG = 100 << 20  # bytes
_GIB = 1 << 30
_Process = forks.Process | subprocess.Popen[bytes]
_NOISE = re.compile(
    r"\s*($|@|\*\*\*|PC: |\[\[\{\{|I0000 |WARNING: All log messages)"
)  # empty lines, stack traces and TensorFlow's log lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a process.

    Args:
      seconds: longest time from the start to the first message, between two messages,
        and from closing the pipe to the end of the process.
      memory: bytes that the process and its children may use together.
      cancelled: setting this event ends the process within a second.
    """

    seconds: float
    memory: int
    cancelled: threading.Event | None = None


class Slots:
    """Limits how many processes run at once, and the sum of their memory limits.

    Threads share one object; each waits for its turn in `claim`. Closing it ends the
    server.

    Args:
      jobs: most processes at a time, at least 1.
      memory: most bytes of all their limits together. A process with a higher limit
        runs alone.

    Attributes:
      server: starts the processes.
    """

    def __init__(self, jobs: int, memory: int):
        self.jobs = jobs
        self.memory = memory
        self.server = forks.Server()
        self._claims: list[int] = []  # bytes of each running process
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def claim(self, limits: Limits) -> Iterator[None]:
        """Waits until a process with these limits may run; the context is its life.

        Raises:
          Cancelled: `limits.cancelled` was set.
        """
        with self._changed:
            while not self._fits(limits.memory):
                if limits.cancelled and limits.cancelled.is_set():
                    raise Cancelled
                self._changed.wait(_POLL)
            self._claims.append(limits.memory)
        try:
            yield
        finally:
            with self._changed:
                self._claims.remove(limits.memory)
                self._changed.notify_all()

    def __enter__(self) -> Slots:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def _fits(self, memory: int) -> bool:
        if not self._claims:
            return True
        is_free = len(self._claims) < self.jobs
        return is_free and sum(self._claims) + memory <= self.memory


class Stopped(Exception):
    """The process crashed, failed or exceeded a limit; the message says which."""


class Cancelled(Exception):
    """The caller does not want the result any more."""


def messages(
    program: forks.Program,
    job: Any,
    *,
    limits: Limits,
    server: forks.Server,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """Runs a program and yields the JSON messages that it writes to a pipe, one a line.

    The program gets the pipe's file descriptor as its last argument, and `job` as a
    line of JSON on standard input. Standard input is closed when the caller stops
    reading messages. TMPDIR is a directory that is deleted at the end. The process and
    its children are always killed at the end.

    Args:
      program: the program.
      job: a JSON-serialisable value.
      limits: limits of the process.
      server: starts the process.
      environment: additional environment variables.

    Raises:
      Stopped: the process crashed, failed or exceeded a limit.
      Cancelled: `limits.cancelled` was set.
    """
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        stack.callback(os.close, read_end)
        process = server.popen(
            program,
            pipe=write_end,
            output=log,
            environment={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TMPDIR": scratch,
                **(environment or {}),
            },
        )
        stack.callback(_kill, process)
        os.close(write_end)
        assert process.stdin
        stack.callback(_close, process.stdin)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        try:
            yield from _read_messages(process, read_end, log, limits=limits)
        except _GiveUpError as error:
            raise Stopped(f"{error}{_last_output(log)}") from None
        try:
            status = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            raise Stopped(
                f"did not end within {limits.seconds:g} s after its last message, "
                f"{_TIME_LIMIT}{_last_output(log)}"
            ) from None
        if status:
            raise Stopped(f"{_exit_reason(status)}{_last_output(log)}")


class _GiveUpError(Exception):
    """A process exceeded a limit, or sent an invalid message."""


def _read_messages(
    process: _Process, pipe: int, log: IO[bytes], *, limits: Limits
) -> Iterator[Any]:
    """Yields messages until the program closes the pipe."""
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
                    yield _parse(line)
                    deadline = time.monotonic() + limits.seconds
            if len(data) > _LONGEST_MESSAGE:
                raise _GiveUpError("sent too long a message")
            if _memory(process) > limits.memory:
                raise _GiveUpError(
                    f"used more than {limits.memory / _GIB:.1f} GiB of memory"
                )
            if os.fstat(log.fileno()).st_size > _LARGEST_LOG:
                raise _GiveUpError(f"printed more than {_LARGEST_LOG >> 20} MiB")
            if limits.cancelled and limits.cancelled.is_set():
                raise Cancelled
            if time.monotonic() > deadline:
                raise _GiveUpError(
                    f"sent no message for {limits.seconds:g} s, {_TIME_LIMIT}"
                )


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise _GiveUpError("wrote invalid JSON to the message pipe") from error


def _memory(process: _Process) -> int:
    """Returns the bytes of memory that the process and its children use."""
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


def _exit_reason(status: int) -> str:
    """Describes a non-zero exit status."""
    if status > 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    hint = (
        ", possibly because the machine ran out of memory" if name == "SIGKILL" else ""
    )
    return f"was killed by {name}{hint}"


def _last_output(log: IO[bytes]) -> str:
    """Returns "; its last output: …" with the last line that a process printed.

    Lines that match `_NOISE` are skipped. Without any other line, returns "".
    """
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - 10_000))
    lines = log.read().decode("utf-8", "replace").split("\n")
    lines = [line.strip() for line in lines if not _NOISE.match(line)]
    return f"; its last output: {lines[-1][:_LONGEST_LINE]}" if lines else ""


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """Yields a folder for temporary files, which a killed process may leave behind."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder


def _close(stdin: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        stdin.close()


def _kill(process: _Process) -> None:
    """Kills a process and its children if they are still running."""
    for kill in (os.killpg, os.kill):  # a new fork has no process group yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process.pid, signal.SIGKILL)
    process.wait()
