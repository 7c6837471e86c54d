"""Logs progress, and shows it on standard error as log lines or a progress bar.

Every package logs to `logger(__name__)`. Nothing is printed until a program calls
`show` or configures Python's logging.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import typing
from collections.abc import Iterator

from foundation import messages

ROOT = "image_model_zoo"
"""Name of the parent logger of all packages."""
_STEP = logging.DEBUG + 5  # log level of steps
_MAX_SILENCE = 60.0  # seconds without a line, after which a step is printed
logging.getLogger(ROOT).addHandler(logging.NullHandler())  # else warnings are printed


def logger(module: str) -> logging.Logger:
    """Returns the logger of a module, given its `__name__`."""
    return logging.getLogger(f"{ROOT}.{module.removeprefix(ROOT + '.')}")


def step(log: logging.Logger, number: int, total: int, message: str) -> None:
    """Logs that step `number` of `total` is done; `message` holds its metrics."""
    extra = {"step": (number, total, message)}
    log.log(_STEP, "step %d/%d  %s", number, total, message, extra=extra)


@contextlib.contextmanager
def show(subject: str) -> Iterator[None]:
    """Within the context, prints log lines on standard error.

    A line consists of the subject, the seconds since the context was entered, and the
    message. On a terminal, steps appear as a progress bar if tqdm is installed, and are
    not shown otherwise. Elsewhere, a step is printed after a minute without any line.
    """
    root, handler = logging.getLogger(ROOT), _Handler(subject)
    previous = root.level, root.propagate, root.handlers
    root.handlers = [handler]
    root.setLevel(_STEP)
    root.propagate = False  # absl's handler would print each line again
    try:
        yield
    finally:
        handler.close()
        level, root.propagate, root.handlers = previous
        root.setLevel(level)


class _Handler(logging.Handler):
    """Prints log records on standard error, and draws steps as a progress bar."""

    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject
        self._start = self._last_line_time = time.monotonic()
        self._bar: typing.Any = None

    def emit(self, record: logging.LogRecord) -> None:
        details = getattr(record, "step", None)
        if details and sys.stderr.isatty():
            self._draw(*details)
        elif not details or time.monotonic() - self._last_line_time > _MAX_SILENCE:
            self._print(record.getMessage())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        super().close()

    def _print(self, message: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self._last_line_time = time.monotonic()
        seconds = self._last_line_time - self._start
        line = messages.printable(f"{self._subject}  {seconds:5.1f} s  {message}")
        print(line, file=sys.stderr, flush=True)

    def _draw(self, number: int, total: int, message: str) -> None:
        try:
            import tqdm
        except ImportError:
            return
        if self._bar is None or self._bar.total != total:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm.tqdm(
                total=total,
                initial=number,  # not 0 if the work was resumed
                unit="step",
                leave=False,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(message, refresh=False)
        self._bar.update(number - self._bar.n)
