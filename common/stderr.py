"""Suppresses the messages that libraries print while they are imported."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(backend: str = "tensorflow") -> Iterator[None]:
    """Within the context, suppresses standard error, and prints it after a failure.

    Args:
      backend: backend of Keras if it is imported here; overrides the user's keras.json,
        because everything but training needs the TensorFlow backend.
    """
    os.environ["KERAS_BACKEND"] = backend
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except (OSError, KeyboardInterrupt, SystemExit):  # their messages suffice
            raise
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
