"""Withholds what libraries print while they are imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(backend: str = "tensorflow") -> Iterator[None]:
    """Withholds standard error, unless something fails: TensorFlow prints a lot.

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
