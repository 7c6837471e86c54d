"""Reads image files one by one, with a message for each that can't be read."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import tensorflow as tf

from images import model_input


class Reader:
    """Reads image files as a model's input.

    Args:
      preprocessing: from an image to the model's input.
    """

    def __init__(self, preprocessing: model_input.Preprocessing) -> None:
        self._read = tf.function(
            preprocessing.read,
            input_signature=[tf.TensorSpec([], tf.string)],
            autograph=False,
        )

    def read(self, path: pathlib.Path) -> np.ndarray:
        """Reads a file: [height, width, 3] float32 in [0, 1].

        Raises:
          ValueError: it can't be read; the message names it and says why.
        """
        if not path.is_file():
            raise ValueError(f"{path} is no file.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}.") from error
        return self.decode(str(path), data)

    def decode(self, name: str, data: bytes) -> np.ndarray:
        """Decodes a file's bytes; see `read`. `name` says what they are of."""
        try:
            return self._read(data).numpy()
        except tf.errors.OpError as error:
            raise ValueError(
                f"{name} is not a usable image: {reason(error)}."
            ) from error


# How the lines begin in which TensorFlow says where an op is.
_PLACES = ("Graph execution error", "Detected at", "<stack", " ", "\t")


def reason(error: tf.errors.OpError) -> str:
    """Why an image can't be read: TensorFlow's message without the names of nodes."""
    message = re.sub(r"\{\{.*?\}\}\s*", "", error.message)
    lines = [line for line in message.splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith(_PLACES)), "unknown")
    found = re.fullmatch(r"(?:ValueError: |assertion failed: \[)?(.*?)\.?\]?", first)
    return found[1] if found else first
