"""Reads single image files, and explains why a file can't be read."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import tensorflow as tf

from images import model_input

_OWN_MESSAGES = ("The image", "BMP:", "GIF:", "JPEG:", "not an image", "pixel mode")
"""Prefixes of the error messages that the modules of this package raise."""


class Reader:
    """Reads image files and preprocesses them for a model.

    Args:
      preprocessing: converts an image file to the model's input.
    """

    def __init__(self, preprocessing: model_input.Preprocessing) -> None:
        self._from_pixels = tf.function(
            preprocessing.from_pixels,
            input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)],
            autograph=False,
        )
        self._read = tf.function(
            preprocessing.read,
            input_signature=[tf.TensorSpec([], tf.string)],
            autograph=False,
        )

    def read(self, path: pathlib.Path) -> np.ndarray:
        """Reads a file as [height, width, 3] float32 in [0, 1].

        Raises:
          ValueError: the file can't be read; the message gives its path and the reason.
        """
        if not path.is_file():
            raise ValueError(f"{path} is not a file.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}.") from error
        return self.decode(str(path), data)

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Preprocesses pixels [H, W, 3] uint8; see `read`."""
        return self._from_pixels(pixels).numpy()

    def decode(self, name: str, data: bytes) -> np.ndarray:
        """Decodes the bytes of a file; see `read`. Error messages begin with `name`."""
        try:
            return self._read(data).numpy()
        except tf.errors.OpError as error:
            problem = _explained(name, data, reason(error))
            raise ValueError(f"{name} is not a usable image: {problem}.") from error


def _explained(name: str, data: bytes, message: str) -> str:
    """Returns a message for users on what is wrong with an image.

    Messages of TensorFlow's decoders and kernels are about their internals, so they
    only follow in parentheses.
    """
    if name.lower().endswith((".heic", ".heif")):
        return "HEIC is not supported; convert it first, for example to JPEG"
    if not data:
        return "the file is empty"
    if message.startswith(_OWN_MESSAGES):
        return message
    return f"it is damaged or incomplete ({message})"


# Prefixes of the lines in TensorFlow's error messages that locate an op.
_LOCATIONS = ("Graph execution error", "Detected at", "<stack", " ", "\t")


def reason(error: tf.errors.OpError) -> str:
    """Returns the reason in a TensorFlow error message, without names of nodes."""
    message = re.sub(r"\{\{.*?\}\}\s*", "", error.message)
    lines = [line for line in message.splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith(_LOCATIONS)), "unknown")
    match = re.fullmatch(r"(?:ValueError: |assertion failed: \[)?(.*?)\.?\]?", first)
    return match[1] if match else first
