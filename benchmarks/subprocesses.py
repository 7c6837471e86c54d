"""Runs commands and timing programs in separate processes."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Sequence
from typing import Any

import psutil

from foundation import progress
from zoo import config

_LOG = progress.logger(__name__)

ROOT = config.ZOO.parent
PROGRESS_PREFIX = "now: "
"""Prefix of the lines on standard error in which a timing program logs its progress."""
_POLL = 0.05  # seconds between two samples of the memory
_MIB = 1 << 20


def report_progress(message: str) -> None:
    """Logs the next step of this timing program through the parent process."""
    print(f"{PROGRESS_PREFIX}{message}", file=sys.stderr, flush=True)


def export(arch: str, output: pathlib.Path, *flags: str) -> tuple[float, float]:
    """Runs tools/export without checks, and measures it as `measure` does.

    Args:
      arch: value of --arch.
      output: value of --output.
      flags: further flags.
    """
    command = [sys.executable, str(ROOT / "tools" / "export"), "--check=none"]
    return measure([*command, f"--arch={arch}", f"--output={output}", *flags])


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Runs a command and measures its time and memory.

    Returns:
      Seconds, and the peak memory of the process and its children in MiB.

    Raises:
      ChildProcessError: the command failed.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        peak = [0]
        watch = threading.Thread(target=_watch_memory, args=(process, peak))
        watch.start()
        try:
            status = process.wait()
        finally:  # also if this process is interrupted
            process.kill()
            process.wait()
        spent = time.monotonic() - start
        watch.join()
        if status:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            last = "".join(lines[-1:])
            raise ChildProcessError(f"{command[1]} exited with {status}: {last}")
    return spent, peak[0] / _MIB


def _watch_memory(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            processes = [root, *root.children(recursive=True)]
            memory = sum(process.memory_info().rss for process in processes)
            peak[0] = max(peak[0], memory)
        except psutil.Error:
            pass
        time.sleep(_POLL)


def run(program: types.ModuleType, job: dict[str, Any]) -> Any:
    """Runs a timing program, and returns the JSON that it prints on its last line.

    Args:
      program: a module of this package that takes a job as its argument.
      job: the job, described in the docstring of the program.

    Raises:
      ChildProcessError: the program failed.
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
                if line.startswith(PROGRESS_PREFIX):
                    _LOG.info(line.removeprefix(PROGRESS_PREFIX).strip())
                else:
                    last = line.strip() or last
            printed = process.stdout.read()
        except BaseException:  # also if this process is interrupted
            process.kill()
            raise
    if process.returncode:
        raise ChildProcessError(
            f"{program.__name__} exited with {process.returncode}: {last}"
        )
    return json.loads(printed.splitlines()[-1])
