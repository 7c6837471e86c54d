"""Runs tools in forks of a process that has already imported TensorFlow.

An export then takes 3.9 seconds instead of 7.3. A fork behaves like a new process,
except that all forks share the seed of Python's hashes. A test that compares the output
of two processes must therefore start new processes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pathlib
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import typing
from collections.abc import Sequence

_LONGEST_REQUEST = 1 << 22  # bytes


class Server:
    """Forks a process for each program; the first one starts the parent process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._fork: int | None = None
        self._environment: dict[str, str] = {}

    def run(
        self, command: Sequence[str], *, timeout: float, file_limit: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a Python program like `subprocess.run`, and captures its output as text.

        Args:
          command: path of the program, then its arguments.
          timeout: seconds.
          file_limit: the most bytes that a file may have; it stands in for a full disk.
            It also applies to the files that capture the output.

        Raises:
          subprocess.TimeoutExpired: the program took longer and was killed.
        """
        if self._process is None:
            self._start()
        if _environment() != self._environment:
            return subprocess.run(
                [sys.executable, *command],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                preexec_fn=lambda: _limit_files(file_limit),
            )
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            request: dict[str, typing.Any] = {"command": list(command)}
            request |= {"folder": os.getcwd(), "file_limit": file_limit}
            request["test"] = os.environ.get("PYTEST_CURRENT_TEST", "")
            handles = [file.fileno() for file in files]
            try:
                code = self._exchange(request, handles, timeout)
            except BaseException as error:  # an answer may be unread: start afresh
                self._abandon()
                if not isinstance(error, TimeoutError):
                    raise
                raise subprocess.TimeoutExpired(command, timeout) from None
            output = []
            for file in files:
                file.seek(0)
                output.append(file.read().decode())
        return subprocess.CompletedProcess(command, code, *output)

    def _exchange(
        self, request: dict[str, typing.Any], handles: Sequence[int], timeout: float
    ) -> int:
        """Sends a request and returns the exit code of the program."""
        self._socket.settimeout(timeout)
        socket.send_fds(self._socket, [json.dumps(request).encode()], handles)
        self._fork = int(self._socket.recv(32))
        code = int(self._socket.recv(32))
        self._fork = None
        return code

    def _abandon(self) -> None:
        """Kills the process, and the fork that it may be waiting for."""
        process, self._process = self._process, None
        if self._fork:
            os.kill(self._fork, signal.SIGKILL)
            self._fork = None
        if process:
            process.kill()
            process.wait()
            self._socket.close()

    def _start(self) -> None:
        self._environment = _environment()
        self._socket, child_socket = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET
        )
        command = [sys.executable, __file__, str(child_socket.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[child_socket.fileno()], stderr=subprocess.DEVNULL
        )
        child_socket.close()

    def stop(self) -> None:
        """Ends the process."""
        if self._process:
            self._socket.close()
            self._process.wait(10)


def _limit_files(file_limit: int | None) -> None:
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("PYTEST_CURRENT_TEST", None)
    return environment


def _serve(connection: socket.socket) -> None:
    """Forks for each request until the connection is closed."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    gc.disable()
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    # Otherwise the garbage collector of each fork visits every object of the imports,
    # and the kernel copies the pages that they are on: a second for each fork.
    gc.collect()
    gc.freeze()
    gc.enable()
    while True:
        data, handles, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 2)
        if not data:
            return
        request = json.loads(data)
        pid = os.fork()
        if not pid:
            connection.close()
            _become(request, handles)
        for handle in handles:
            os.close(handle)
        connection.send(str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.send(str(code).encode())


def _become(request: dict[str, typing.Any], handles: Sequence[int]) -> None:
    """Runs the program as if this process had been started for it."""
    for target, handle in enumerate(handles, start=1):
        os.dup2(handle, target)
        os.close(handle)
    program, *arguments = request["command"]
    os.chdir(request["folder"])
    os.environ["PYTEST_CURRENT_TEST"] = request["test"]
    for name in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND"):
        del os.environ[name]
    _limit_files(request["file_limit"])
    sys.argv = [program, *arguments]
    sys.path[0] = str(pathlib.Path(program).parent)
    runpy.run_path(program, run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
