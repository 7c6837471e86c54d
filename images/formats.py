"""Recognises the format of an encoded image, and reads integers out of its headers."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from images import jpeg

# Format -> its first bytes; a dot is any byte.
_SIGNATURES = {
    "jpeg": jpeg.START,
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF....WEBP",
    "gif": b"GIF8.a",
    "bmp": b"BM",
}
NAMES = tuple(_SIGNATURES)
"""The formats that TensorFlow's ops read, in the order of their numbers."""

JPEG = NAMES.index("jpeg")
_LENGTH = max(map(len, _SIGNATURES.values()))
_WANTED = np.array([list(s.ljust(_LENGTH, b".")) for s in _SIGNATURES.values()], "u1")
_SIZES = {"B": 1, "H": 2, "I": 4}  # bytes
_BYTES = np.array([bytes([value]) for value in range(256)], object)


def number(data: tf.Tensor) -> tf.Tensor:
    """The number of an image's format, scalar int32; `len(NAMES)` is any other."""
    first = leading_bytes(data, _LENGTH)
    is_like = tf.reduce_all((first == _WANTED) | (ord(".") == _WANTED), axis=1)
    return tf.argmax(tf.concat([is_like, [True]], axis=0), output_type=tf.int32)


def is_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether an image is a JPEG file, scalar bool."""
    return tf.strings.substr(data, 0, 3) == _SIGNATURES["jpeg"]


def contains(data: tf.Tensor, some: bytes) -> tf.Tensor:
    """Whether some bytes occur anywhere in a file, scalar bool."""
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=some, maxsplit=1)
    return tf.size(parts.values) > 1


def leading_bytes(
    data: tf.Tensor, length: int, start: tf.Tensor | int = 0
) -> tf.Tensor:
    """The bytes from `start` on, [length] uint8; zeros where the file is shorter."""
    return tf.io.decode_raw(part(data, start, length), tf.uint8, fixed_length=length)


def part(data: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """The bytes from `start` on, scalar string; fewer where the file is shorter.

    TensorFlow's own op would fail beyond the end, with a message that quotes the whole
    file and is no text.
    """
    if isinstance(start, int):
        return tf.strings.substr(data, start, length)
    end = tf.cast(tf.strings.length(data), tf.int64)
    return tf.strings.substr(data, tf.minimum(start, end), tf.cast(length, tf.int64))


def byte(value: tf.Tensor) -> tf.Tensor:
    """An integer from 0 to 255 as a string of one byte."""
    return tf.gather(_BYTES, value)


def unpack(layout: str, data: tf.Tensor, start: tf.Tensor | int = 0) -> list[tf.Tensor]:
    """Reads unsigned integers, scalar int64 each, as `struct.unpack` does.

    Args:
      layout: `<` or `>`, then `B`, `H`, `I` or, for bytes to skip, `x`; a number in
        front repeats one.
      data: scalar string, the bytes of a file.
      start: where to begin.

    Returns:
      The integers; what is beyond the end of the file is 0.
    """
    matrix = weights(layout)
    raw = tf.cast(leading_bytes(data, len(matrix), start), tf.int64)
    return tf.unstack(tf.linalg.matvec(matrix, raw, transpose_a=True))


def weights(layout: str) -> np.ndarray:
    """The matrix [bytes, integers] int64 that unpacks bytes when it multiplies them."""
    columns, place = [], 0
    for repeat, code in re.findall(r"(\d*)([xBHI])", layout):
        for _ in range(int(repeat or 1)):
            size = _SIZES.get(code, 1)
            powers = [256**n for n in range(size)]
            if code != "x":
                columns.append((place, powers[::-1] if layout[0] == ">" else powers))
            place += size
    matrix = np.zeros((place, len(columns)), np.int64)
    for column, (start, powers) in enumerate(columns):
        matrix[start : start + len(powers), column] = powers
    return matrix


def is_one_of(value: tf.Tensor, values: tuple[int, ...]) -> tf.Tensor:
    """Whether a scalar equals any of `values`."""
    return tf.reduce_any(value == tf.constant(values, value.dtype))
