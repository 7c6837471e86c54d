"""Exports of many archs, each in a process of its own."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from collections.abc import Sequence


def export(archs: Sequence[str], *, jobs: int, argv: Sequence[str]) -> int:
    """Runs the command `argv` for each arch; one that fails does not stop the rest.

    A process each keeps the memory that of the largest, and the bytes those of an
    export alone.

    Args:
      archs: names.
      jobs: how many run at once.
      argv: the command line that asked for all of them.

    Returns:
      The largest of the processes' exit codes.
    """

    def one(arch: str) -> subprocess.CompletedProcess[str]:
        # Later flags override earlier ones.
        command = [sys.executable, *argv, f"--arch={arch}", "--jobs=1"]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )

    failed = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for number, (arch, done) in enumerate(
            zip(archs, pool.map(one, archs), strict=True), start=1
        ):
            print(done.stdout, end="", flush=True)
            if done.returncode:
                failed[arch] = done.returncode
            print(f"{number}/{len(archs)} {arch}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return max(map(abs, failed.values()), default=0)
