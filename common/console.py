"""Progress on standard error, and silence while libraries are imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from common import messages


def progress(subject: str) -> Callable[[str], None]:
    """Returns a function that prints a line: subject, seconds since now, message."""
    start = time.monotonic()

    def say(message: str) -> None:
        seconds = time.monotonic() - start
        line = messages.printable(f"{subject}  {seconds:5.1f} s  {message}")
        print(line, file=sys.stderr, flush=True)

    return say


@contextlib.contextmanager
def quiet(backend: str = "tensorflow") -> Iterator[None]:
    """Withholds what libraries print on standard error, unless something fails.

    TensorFlow prints a lot while it is imported.

    Args:
      backend: the backend that Keras gets if it is imported here, whatever the user's
        keras.json says: everything but training needs TensorFlow's.
    """
    os.environ["KERAS_BACKEND"] = backend
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as withheld:
        os.dup2(withheld.fileno(), 2)
        try:
            yield
        except (OSError, KeyboardInterrupt, SystemExit):  # their messages say enough
            raise
        except BaseException:
            withheld.seek(0)
            os.write(saved, withheld.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
