"""Progress of long work: log lines, and a bar on a terminal.

Every package logs to `logger(__name__)`. Nothing is printed until a program calls
`show`, or configures Python's logging by itself.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import typing
from collections.abc import Iterator

from common import messages

ROOT = "image_model_zoo"
"""Logger above those of all packages."""
_STEP = logging.DEBUG + 5  # level of finished steps
_SECONDS_BETWEEN_STEPS = 60.0  # where there is no terminal


def logger(module: str) -> logging.Logger:
    """The logger of a module, by its `__name__`."""
    return logging.getLogger(f"{ROOT}.{module}")


def step(log: logging.Logger, number: int, total: int, about: str) -> None:
    """Logs that step `number` of `total` is done; `about` says how it went."""
    extra = {"step": (number, total, about)}
    log.log(_STEP, "step %d/%d  %s", number, total, about, extra=extra)


@contextlib.contextmanager
def show(subject: str) -> Iterator[None]:
    """Within the context, log lines are printed on standard error.

    A line has the subject, seconds since the context was entered, and the message.
    Steps are a bar on a terminal, if tqdm is installed; elsewhere a line a minute.
    """
    root, handler = logging.getLogger(ROOT), _Handler(subject)
    before = root.level, root.propagate, root.handlers
    root.handlers = [handler]
    root.setLevel(_STEP)
    root.propagate = False  # absl has a handler of its own
    try:
        yield
    finally:
        handler.close()
        level, root.propagate, root.handlers = before
        root.setLevel(level)


class _Handler(logging.Handler):
    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject
        self._start = self._last_line = time.monotonic()
        self._bar: typing.Any = None

    def emit(self, record: logging.LogRecord) -> None:
        found = getattr(record, "step", None)
        if found and sys.stderr.isatty():
            self._draw(*found)
        elif not found or time.monotonic() - self._last_line > _SECONDS_BETWEEN_STEPS:
            self._print(record.getMessage())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        super().close()

    def _print(self, message: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._last_line = time.monotonic()
        seconds = self._last_line - self._start
        line = messages.printable(f"{self._subject}  {seconds:5.1f} s  {message}")
        print(line, file=sys.stderr, flush=True)

    def _draw(self, number: int, total: int, about: str) -> None:
        try:
            import tqdm
        except ImportError:
            return
        if self._bar is None or self._bar.total != total:  # it may begin in the middle
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm.tqdm(
                total=total,
                initial=number,
                unit="step",
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(about, refresh=False)
        self._bar.update(number - self._bar.n)
