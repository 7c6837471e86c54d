"""Exports of many archs, each in a process of its own."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from collections.abc import Sequence

_BAR = 30  # characters


def export(archs: Sequence[str], *, jobs: int, argv: Sequence[str]) -> int:
    """Runs the command `argv` for each arch; one that fails does not stop the rest.

    A process each keeps the memory that of the largest, and the bytes those of an
    export alone.

    Args:
      archs: names.
      jobs: how many run at once.
      argv: the command line that asked for all of them, without their names.

    Returns:
      The largest of the processes' exit codes, a signal counting as 1.
    """
    running: list[subprocess.Popen[str]] = []

    def one(arch: str) -> tuple[int, str]:
        # Of flags that come twice the later holds.
        command = [sys.executable, *argv, f"--arch={arch}", "--jobs=1"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        running.append(process)
        printed, _ = process.communicate()
        return process.returncode, printed

    failed = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            results = zip(archs, pool.map(one, archs), strict=True)
            for number, (arch, (code, printed)) in enumerate(results, start=1):
                print(printed, end="", flush=True)
                print(_progress(number, len(archs), arch), file=sys.stderr)
                if code:
                    failed[arch] = max(1, code)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return max(failed.values(), default=0)


def _progress(number: int, total: int, arch: str) -> str:
    """How far it is; with a bar on a terminal, between the lines of each export."""
    done = _BAR * number // total
    bar = f"{'█' * done}{'·' * (_BAR - done)} " if sys.stderr.isatty() else ""
    return f"{bar}{number}/{total} {arch}"
