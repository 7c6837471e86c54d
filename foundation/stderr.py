"""Suppresses what libraries print when they are imported and used."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(backend: str = "tensorflow") -> Iterator[None]:
    """Within the context, suppresses standard error; also chooses Keras' backend.

    After an exception that means a bug, the suppressed text is printed. After a
    ValueError, an OSError, an interruption or an exit it is not: their messages
    suffice.

    Args:
      backend: Keras' backend from now on, for all of the process. It overrides the
        user's keras.json, because everything but training needs TensorFlow's.
    """
    os.environ["KERAS_BACKEND"] = backend
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except (ValueError, OSError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
