"""Runs commands and timing programs in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Sequence
from typing import Any

import psutil

from common import progress
from zoo import config

_LOG = progress.logger(__name__)

ROOT = config.ZOO.parent
TELL = "now: "
"""Lines on standard error with this prefix tell what a timing program does next."""
_POLL = 0.05  # seconds between two looks at the memory
_MIB = 1 << 20


def tell(message: str) -> None:
    """Tells the parent process what this timing program does next."""
    print(f"{TELL}{message}", file=sys.stderr, flush=True)


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Runs a command to its end.

    Returns:
      Seconds of the process, and the most memory that it and its children held, in MiB.

    Raises:
      ChildProcessError: it failed.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        peak = [0]
        watch = threading.Thread(target=_watch_memory, args=(process, peak))
        watch.start()
        try:
            status = process.wait()
        finally:  # this process may have been interrupted
            process.kill()
            process.wait()
        spent = time.monotonic() - start
        watch.join()
        if status:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            raise ChildProcessError(f"{command[1]} ended with {status}: {lines[-1:]}")
    return spent, peak[0] / _MIB


def _watch_memory(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            family = [root, *root.children(recursive=True)]
            held = sum(member.memory_info().rss for member in family)
            peak[0] = max(peak[0], held)
        except psutil.Error:
            pass
        time.sleep(_POLL)


def run(program: types.ModuleType, job: dict[str, Any]) -> Any:
    """Runs a timing program, and returns the JSON that it prints on its last line.

    Args:
      program: a module of this package that takes a job for its argument.
      job: the program's docstring says what is in it.

    Raises:
      ChildProcessError: it failed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", program.__name__, json.dumps(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr
        assert process.stdout
        try:
            last = ""
            for line in process.stderr:
                if line.startswith(TELL):
                    _LOG.info(line.removeprefix(TELL).strip())
                else:
                    last = line.strip() or last
            printed = process.stdout.read()
        except BaseException:  # this process is interrupted
            process.kill()
            raise
    if process.returncode:
        raise ChildProcessError(f"timing ended with {process.returncode}: {last}")
    return json.loads(printed.splitlines()[-1])
