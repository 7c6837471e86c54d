"""Exports several archs, each in a separate process."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from collections.abc import Sequence

_BAR = 30  # characters: the width of the progress bar


def export(archs: Sequence[str], *, jobs: int, argv: Sequence[str]) -> int:
    """Runs the command `argv` for each arch, and continues after failures.

    With separate processes, an export has the same bytes as if it ran alone, and the
    memory of an arch is freed before the next one.

    Args:
      archs: names that --arch takes.
      jobs: number of concurrent processes.
      argv: command line of the whole export, without --arch.

    Returns:
      The largest exit code of the processes; a signal counts as 1.
    """
    running: list[subprocess.Popen[str]] = []

    def export_one(arch: str) -> tuple[int, str]:
        # If the user gave --jobs, too, the last one counts.
        command = [sys.executable, *argv, f"--arch={arch}", "--jobs=1"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        running.append(process)
        stdout, _ = process.communicate()
        return process.returncode, stdout

    failed = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            results = zip(archs, pool.map(export_one, archs), strict=True)
            for number, (arch, (code, stdout)) in enumerate(results, start=1):
                print(stdout, end="", flush=True)
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
    """Formats a progress line, which begins with a bar on a terminal."""
    done = _BAR * number // total
    bar = f"{'█' * done}{'·' * (_BAR - done)} " if sys.stderr.isatty() else ""
    return f"{bar}{number}/{total} {arch}"
