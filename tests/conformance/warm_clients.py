"""Runs the suite's worker and clients in forks of processes with warm imports.

The imports of a client take 4 to 5 CPU seconds, a fork takes 0.1. There is one process
for each set of imports. It never runs a model, so TensorFlow initialises in each fork.
Clients must not see this project. Therefore these processes start with -I, and this
file imports nothing of the project.

Unlike new processes, forks share the seed of Python's hashes, print no warnings of
imports, and end without freeing modules. So some tests start new processes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pathlib
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
from collections.abc import Callable, Sequence

_LONGEST_REQUEST = 1 << 20  # bytes
_CLI = "tensorflow.python.tools.saved_model_cli"
_WORKER = "conformance.worker"
_FLAGS = {_WORKER: ["-P", "-m"]}  # of the interpreter, by program
_CLIENT_FLAGS = ["-I", "-W", "ignore"]
_LEGACY_KERAS = {"TF_USE_LEGACY_KERAS": "1"}
# hub.KerasLayer imports keras when it is created.
_HUB = (["tensorflow_hub", "tf_keras", "keras"], _LEGACY_KERAS)
# Modules to import for a program, after TensorFlow, and environment variables for that.
_IMPORTS: dict[str, tuple[list[str], dict[str, str]]] = {
    _WORKER: ([], {}),
    "hub_load.py": _HUB,
    "hub_keras_layer.py": _HUB,
    "tf1_hub.py": _HUB,
    "keras_3.py": (["keras"], {"KERAS_BACKEND": "tensorflow"}),
    "command_line.py": ([_CLI], {}),
}


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
                self._code = int(self._status.recv(32))
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self._status.close()
        return self._code


class Server:
    """Forks a process for each program of the suite; starts on the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._root: subprocess.Popen[bytes] | None = None
        self._connections: dict[str, socket.socket] = {}

    def popen(
        self, command: Sequence[str], *, pass_fds: Sequence[int], **kwargs: typing.Any
    ) -> Process | subprocess.Popen[bytes]:
        """Forks for a command of the suite; starts a new process for any other."""
        interpreter, *flags, path, _ = command
        program = pathlib.Path(path).name
        expected = _FLAGS.get(program, _CLIENT_FLAGS)
        if program not in _IMPORTS or (interpreter, flags) != (
            sys.executable,
            expected,
        ):
            return subprocess.Popen(command, pass_fds=pass_fds, **kwargs)
        request = {"program": path, "environment": kwargs["env"], "folder": os.getcwd()}
        reader, writer = os.pipe()
        output = kwargs["stdout"].fileno()
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handles = [reader, output, pass_fds[0], theirs.fileno()]
            _send(self._connection(program), request, handles)
        os.close(reader)
        return Process(int(status.recv(32)), open(writer, "wb"), status)

    def _connection(self, program: str) -> socket.socket:
        imports, environment = _IMPORTS[program]
        key = json.dumps(imports)
        with self._lock:
            if self._root is None:
                self._start()
            if key not in self._connections:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                request = {"imports": imports, "environment": environment}
                with theirs:
                    _send(self._connections[""], request, [theirs.fileno()])
                self._connections[key] = ours
            return self._connections[key]

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._root = subprocess.Popen(
                [sys.executable, "-I", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self._connections[""] = ours

    def stop(self) -> None:
        for connection in self._connections.values():
            connection.close()
        if self._root:
            self._root.wait(60)


def _send(connection: socket.socket, request: object, handles: Sequence[int]) -> None:
    socket.send_fds(connection, [json.dumps(request).encode()], handles)


def _serve(connection: socket.socket, imports: Sequence[str]) -> None:
    """Imports modules, and forks for each request until the connection is closed."""
    for name in imports:
        with contextlib.suppress(ImportError):  # the client reports it
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
                    pidfd, *entry = _fork(connection, json.loads(data), handles)
                    running[pidfd] = (entry[0], entry[1])
                    selector.register(pidfd, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    pid, status = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    os.close(key.fd)
                    if status:
                        with contextlib.suppress(
                            OSError
                        ):  # the test has stopped waiting
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
    program = request["program"]
    sys.argv = [program, str(pipe)]
    if program == _WORKER:
        sys.path.insert(0, os.environ["PYTHONPATH"])
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    warnings.simplefilter("ignore")
    if pathlib.Path(program).name == "command_line.py":
        subprocess.run = _run_cli  # type: ignore[assignment]
    runpy.run_path(program, run_name="__main__")


def _run_cli(
    command: Sequence[str], *, capture_output: bool, text: bool
) -> subprocess.CompletedProcess[str]:
    """Stands in for `subprocess.run` of saved_model_cli."""
    assert (*command[1:4], capture_output, text) == ("-I", "-m", _CLI, True, True)

    def run() -> None:
        for number, file in enumerate(files, start=1):
            os.dup2(file.fileno(), number)
        sys.argv = [*command[3:]]
        sys.modules[_CLI].main()

    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = (stdout, stderr)
        pid = os.fork()
        if not pid:
            _exit_after(run)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output = []
        for file in files:
            file.seek(0)
            output.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *output)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    import tensorflow  # noqa: F401

    _serve(socket.socket(fileno=int(sys.argv[1])), [])
