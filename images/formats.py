"""Detects the format of an encoded image and reads integers from its headers."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from images import jpeg

# Format -> the first bytes of a file; a dot matches any byte.
_SIGNATURES = {
    "jpeg": jpeg.START,
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF....WEBP",
    "gif": b"GIF8.a",
    "bmp": b"BM",
}
NAMES = tuple(_SIGNATURES)
"""Formats that TensorFlow's ops read; `detect` returns an index into them."""

JPEG = NAMES.index("jpeg")
_LENGTH = max(map(len, _SIGNATURES.values()))
_PATTERNS = np.array(
    [list(signature.ljust(_LENGTH, b".")) for signature in _SIGNATURES.values()], "u1"
)
_SIZES = {"B": 1, "H": 2, "I": 4}  # bytes
_BYTES = np.array([bytes([value]) for value in range(256)], object)


def detect(data: tf.Tensor) -> tf.Tensor:
    """Returns the index in `NAMES` of an image's format, scalar int32.

    The index of any other format is `len(NAMES)`.
    """
    first = leading_bytes(data, _LENGTH)
    is_match = tf.reduce_all((first == _PATTERNS) | (ord(".") == _PATTERNS), axis=1)
    return tf.argmax(tf.concat([is_match, [True]], axis=0), output_type=tf.int32)


def is_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether an image is a JPEG file, scalar bool."""
    return tf.strings.substr(data, 0, 3) == _SIGNATURES["jpeg"]


def contains(data: tf.Tensor, sequence: bytes) -> tf.Tensor:
    """Whether a byte sequence occurs anywhere in a file, scalar bool."""
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=sequence, maxsplit=1)
    return tf.size(parts.values) > 1


def leading_bytes(
    data: tf.Tensor, length: int, start: tf.Tensor | int = 0
) -> tf.Tensor:
    """Returns bytes from `start` on, [length] uint8, zero-padded after the end."""
    raw = byte_range(data, start, length)
    return tf.io.decode_raw(raw, tf.uint8, fixed_length=length)


def byte_range(
    data: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int
) -> tf.Tensor:
    """Returns up to `length` bytes from `start` on, scalar string.

    The result is shorter, or empty, if the file ends earlier. `tf.strings.substr` would
    fail for a start after the end, with a message that quotes the whole binary file.
    """
    if isinstance(start, int):
        return tf.strings.substr(data, start, length)
    end = tf.cast(tf.strings.length(data), tf.int64)
    return tf.strings.substr(data, tf.minimum(start, end), tf.cast(length, tf.int64))


def byte(value: tf.Tensor) -> tf.Tensor:
    """Converts an integer from 0 to 255 to a string of one byte."""
    return tf.gather(_BYTES, value)


def unpack(layout: str, data: tf.Tensor, start: tf.Tensor | int = 0) -> list[tf.Tensor]:
    """Reads unsigned integers as int64 scalars, like `struct.unpack`.

    Args:
      layout: `<` or `>`, followed by `B`, `H`, `I`, or `x` for a byte to skip; a number
        in front of a letter repeats it.
      data: scalar string, the bytes of a file.
      start: byte offset of the first integer.

    Returns:
      The integers; bytes after the end of the file count as 0.
    """
    matrix = unpack_matrix(layout)
    raw = tf.cast(leading_bytes(data, len(matrix), start), tf.int64)
    return tf.unstack(tf.linalg.matvec(matrix, raw, transpose_a=True))


def unpack_matrix(layout: str) -> np.ndarray:
    """Returns the matrix [bytes, integers] int64 that maps bytes to integers."""
    columns, offset = [], 0
    for repeat, code in re.findall(r"(\d*)([xBHI])", layout):
        for _ in range(int(repeat or 1)):
            size = _SIZES.get(code, 1)
            powers = [256**n for n in range(size)]
            if code != "x":
                columns.append((offset, powers[::-1] if layout[0] == ">" else powers))
            offset += size
    matrix = np.zeros((offset, len(columns)), np.int64)
    for column, (start, powers) in enumerate(columns):
        matrix[start : start + len(powers), column] = powers
    return matrix


def is_one_of(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    """Whether a scalar equals any of `values`."""
    return tf.reduce_any(value == tf.constant(values, value.dtype))
