"""Starts programs as forks of processes that have imported what the programs import.

The imports of a client take 4 to 5 CPU seconds, a fork takes 0.1. There is one process
for each set of imports. It never runs a model, so TensorFlow initialises in each fork.
Clients must not see this project. Therefore these processes start with -I, and this
file imports nothing of the project.

Unlike new processes, forks share the seed of Python's hashes, print no warnings of
imports, and end without freeing modules. Forking needs Linux; elsewhere, and if
TensorFlow can't be imported, programs start as new processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence

_LONGEST_REQUEST = 1 << 20  # bytes
_SECONDS_TO_STOP = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A Python program, and what is imported before it is forked.

    Its last argument is the file descriptor of a pipe that it writes to.

    Attributes:
      flags: of the interpreter.
      path: of a script; if the last flag is -m, the name of a module in PYTHONPATH.
      imports: names of modules to import after TensorFlow, if they are installed.
      environment: variables to set before these imports.
    """

    flags: tuple[str, ...]
    path: str
    imports: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Process:
    """A fork, with the methods of `subprocess.Popen` that `process.messages` calls."""

    def __init__(self, pid: int, stdin: io.BufferedWriter, status: socket.socket):
        self.pid = pid
        self.stdin = stdin
        self._status = status
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._status.settimeout(timeout)
            try:
                self._code = int(self._status.recv(32) or -signal.SIGKILL)
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self._status.close()
        return self._code


class Server:
    """Starts programs as forks. The first start takes longer: it imports TensorFlow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._root: subprocess.Popen[bytes] | None = None
        self._connections: dict[str, socket.socket] = {}

    def popen(
        self,
        program: Program,
        *,
        pipe: int,
        output: typing.IO[bytes],
        environment: Mapping[str, str],
    ) -> Process | subprocess.Popen[bytes]:
        """Starts a program in a session of its own, with a pipe as standard input.

        Args:
          program: the program.
          pipe: the file descriptor that it writes to.
          output: file for standard output and standard error.
          environment: all environment variables.
        """
        try:
            return self._fork(program, pipe, output, environment)
        except (AttributeError, OSError, ValueError):  # not on Linux; no TensorFlow
            return subprocess.Popen(
                [sys.executable, *program.flags, program.path, str(pipe)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[pipe],
                start_new_session=True,
                env=environment,
            )

    def _fork(
        self,
        program: Program,
        pipe: int,
        output: typing.IO[bytes],
        environment: Mapping[str, str],
    ) -> Process:
        request = {
            "flags": program.flags,
            "program": program.path,
            "environment": dict(environment),
            "folder": os.getcwd(),
        }
        connection = self._connection(program)
        reader, writer = os.pipe()
        stdin = os.fdopen(writer, "wb")
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                handles = [reader, output.fileno(), pipe, theirs.fileno()]
                _send(connection, request, handles)
            return Process(int(status.recv(32)), stdin, status)
        except BaseException:
            stdin.close()
            status.close()
            raise
        finally:
            os.close(reader)

    def _connection(self, program: Program) -> socket.socket:
        """Returns the connection to the process with a program's imports."""
        request = {
            "imports": program.imports,
            "environment": dict(program.environment),
        }
        key = json.dumps(request)
        with self._lock:
            if self._root is None:
                self._start()
            if key not in self._connections:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    _send(self._connections[""], request, [theirs.fileno()])
                self._connections[key] = ours
            return self._connections[key]

    def _start(self) -> None:
        os.pidfd_open(os.getpid())  # raises where forks can't be waited for
        # Imports write temporary files, too.
        self._scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._root = subprocess.Popen(
                [sys.executable, "-I", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                    "TMPDIR": self._scratch.name,
                },
            )
        self._connections[""] = ours

    def stop(self) -> None:
        """Ends the processes with imports; forks of them go on."""
        with self._lock:
            for connection in self._connections.values():
                connection.close()
            if self._root:
                try:
                    self._root.wait(_SECONDS_TO_STOP)
                except subprocess.TimeoutExpired:  # it is still importing
                    self._root.kill()
                    self._root.wait()
            if self._scratch:
                self._scratch.cleanup()
            self._root, self._scratch, self._connections = None, None, {}


def _send(connection: socket.socket, request: object, handles: Sequence[int]) -> None:
    socket.send_fds(connection, [json.dumps(request).encode()], handles)


def _serve(connection: socket.socket, imports: Sequence[str]) -> None:
    """Imports modules, and forks for each request until the connection is closed."""
    for name in imports:
        with contextlib.suppress(ImportError):  # the program reports it
            importlib.import_module(name)
    # Otherwise each fork's garbage collector visits all objects of the imports.
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket | None]] = {}  # by pidfd
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is connection:
                    data, handles, _, _ = socket.recv_fds(
                        connection, _LONGEST_REQUEST, 4
                    )
                    if not data:
                        return
                    pidfd, pid, status = _fork(connection, json.loads(data), handles)
                    running[pidfd] = pid, status
                    selector.register(pidfd, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    pid, status = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.close(key.fd)
                    if status:
                        with contextlib.suppress(OSError):  # nobody waits any more
                            status.send(str(code).encode())
                        status.close()


def _fork(
    connection: socket.socket, request: dict[str, typing.Any], handles: Sequence[int]
) -> tuple[int, int, socket.socket | None]:
    """Forks for a request; returns pidfd, pid, and the socket for the exit code."""
    pid = os.fork()
    if not pid:
        connection.close()
        if "imports" in request:
            os.environ.update(request["environment"])
            _exit_after(
                lambda: _serve(socket.socket(fileno=handles[0]), request["imports"])
            )
        _exit_after(lambda: _become(request, handles))
    status = None
    if "program" in request:
        status = socket.socket(fileno=handles[-1])
        status.send(str(pid).encode())
        handles = handles[:-1]
    for handle in handles:
        os.close(handle)
    return os.pidfd_open(pid), pid, status


def _become(request: dict[str, typing.Any], handles: Sequence[int]) -> None:
    """Runs a program as if this process had been started for it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stdin, output, pipe, status = handles
    os.close(status)
    for source, target in ((stdin, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(stdin)
    os.close(output)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # an import may have found the one of TMPDIR then
    program, flags = request["program"], request["flags"]
    sys.argv = [program, str(pipe)]
    if "ignore" in flags:
        warnings.simplefilter("ignore")
    if "-m" in flags:
        sys.path.insert(0, os.environ["PYTHONPATH"])
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")


def _exit_after(run: Callable[[], None]) -> typing.NoReturn:
    """Runs a program and ends this process with its exit code, without cleaning up."""
    code: typing.Any = 1
    try:
        run()
        code = 0
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the suite
    import tensorflow  # noqa: F401

    _serve(socket.socket(fileno=int(sys.argv[1])), [])
