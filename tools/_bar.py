"""How far a long work is: lines, and a bar where somebody looks at a terminal."""

from __future__ import annotations

import _cli  # noqa: F401
import sys
import time

from common import console

_PATIENCE = 60.0  # seconds without a line, where there is no terminal


class Watcher:
    """Lines on stderr, and a bar of the steps where that is a terminal."""

    def __init__(self, subject: str) -> None:
        import tqdm

        self._say = console.progress(subject)
        self._last = time.monotonic()
        self._make = tqdm.tqdm
        self._bar = tqdm.tqdm(disable=True)

    def say(self, line: str) -> None:
        self._bar.clear()
        self._say(line)
        self._last = time.monotonic()

    def step(self, number: int, total: int, about: str) -> None:
        if not sys.stderr.isatty():
            if time.monotonic() - self._last > _PATIENCE:
                self.say(f"step {number}/{total}  {about}")
            return
        if self._bar.total != total:  # it may begin in the middle
            self._bar.close()
            self._bar = self._make(
                total=total,
                initial=number,
                unit="step",
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(about, refresh=False)
        self._bar.update(number - self._bar.n)
