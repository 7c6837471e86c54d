"""Reads the EXIF orientation of an image and turns its pixels upright.

Cameras store the pixels as the sensor reads them, and record the rotation in EXIF.
Source: CIPA DC-008 (Exif 2.32), section 4.6.4 A, tag 0x0112; location of EXIF in a
file: section 4.7 (JPEG), PNG specification 3rd edition, section 11.3.4.7 (chunk eXIf),
WebP container specification (chunk EXIF).

Two other modules deal with the orientation: files with EXIF do not count as plain in
`jpeg.plain_size`, and `fallback.decode` turns images of formats that Pillow reads.
"""

from __future__ import annotations

import typing

import numpy as np
import tensorflow as tf

from images import formats, jpeg

_TAG = 0x0112
_SHORT, _LONG = 3, 4  # field types of 16 and 32 bits; the standard requires SHORT
_TIFF = 42  # magic number in bytes 3 and 4 of EXIF data, which is a TIFF file
_MAX_ENTRIES = 512  # number of directory entries that are read
_ENTRY_BYTES = 12
_NOT_FOUND = -1
_JPEG_FILL = 0xFF  # first byte of a marker, which may be repeated
_JPEG_PIXELS = 0xDA  # second byte of the marker that starts the pixels


class _Container(typing.NamedTuple):
    """Layout of the segments or chunks of a file format.

    Attributes:
      first: byte offset of the first segment.
      size: layout of a segment header up to its size field; see `formats.unpack`.
      overhead: bytes of a segment that its size field does not count.
      padding: segments are padded to a multiple of this number of bytes, 1 or 2.
      head: header of the segment that holds EXIF; a dot matches any byte.
      exif: byte offset of EXIF in that segment.
    """

    first: int
    size: str
    overhead: int
    padding: int
    head: bytes
    exif: int


# In the order of `formats.NAMES`, of which these are the first.
_CONTAINERS = {
    "jpeg": _Container(2, ">2xH", 2, 1, b"\xff\xe1..Exif\0\0", 4),
    "png": _Container(8, ">I", 12, 1, b"....eXIf", 8),
    "webp": _Container(12, "<4xI", 8, 2, b"EXIF", 8),
}
_HEAD_BYTES = 10  # longest of the headers above


def orientation(data: tf.Tensor, format_index: tf.Tensor | int) -> tf.Tensor:
    """Reads the EXIF orientation of an encoded image, scalar int64 from 1 to 8.

    The result is 1 (stored upright) if the orientation is missing or invalid, and for
    formats other than JPEG, PNG and WebP.

    Args:
      data: scalar string, the bytes of a file.
      format_index: see `formats.detect`.
    """
    start = _find(data, format_index)
    return tf.cond(
        start == _NOT_FOUND, lambda: np.int64(1), lambda: _read_tag(data, start)
    )


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors stored pixels [H, W, 3] according to their orientation."""

    def transform() -> tf.Tensor:
        axes = tf.where(_swaps_sides(orientation), [1, 0, 2], [0, 1, 2])
        x = tf.transpose(pixels, axes)
        return tf.reverse(x, tf.boolean_mask([0, 1], _flips(orientation)))

    return tf.cond(orientation == 1, lambda: pixels, transform)


def upright_size(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the height and width [2] of an image after `turn_upright`."""
    return tf.where(_swaps_sides(orientation), stored[::-1], stored)


def stored_window(
    window: tf.Tensor, size: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
    """Maps a window of the upright image to the stored image.

    Args:
      window: [4] int32: top, left, height, width.
      size: [2] int32, height and width of the upright image.
      orientation: EXIF orientation of the stored image.

    Returns:
      [4] int32: top, left, height, width in the stored image.
    """
    corner, extent = window[:2], window[2:]
    corner = tf.where(_flips(orientation), size - corner - extent, corner)
    swaps = _swaps_sides(orientation)
    corner, extent = (tf.where(swaps, p[::-1], p) for p in (corner, extent))
    return tf.concat([corner, extent], axis=0)


def _swaps_sides(orientation: tf.Tensor) -> tf.Tensor:
    """Whether the image is transposed, which happens before any flip."""
    return orientation >= 5


def _flips(orientation: tf.Tensor) -> tf.Tensor:
    """Two flags [2] bool: whether to flip vertically, and whether horizontally."""
    flipping = tf.constant([[3, 4, 7, 8], [2, 3, 6, 7]], tf.int64)
    return tf.reduce_any(orientation == flipping, axis=1)


def _find(data: tf.Tensor, format_index: tf.Tensor | int) -> tf.Tensor:
    """Walks a file's segments to the byte offset of EXIF, or returns _NOT_FOUND."""
    rows = [_CONTAINERS[n] for n in formats.NAMES if n in _CONTAINERS]
    row = tf.minimum(format_index, len(rows) - 1)
    sizes = [
        np.pad(matrix := formats.unpack_matrix(r.size), _padding_rows(matrix))
        for r in rows
    ]
    heads = np.array([list(r.head.ljust(_HEAD_BYTES, b".")) for r in rows])
    size_weights = tf.gather(np.stack(sizes)[..., 0], row)
    pattern = tf.gather(heads.astype(np.int64), row)
    numbers = [(r.first, r.overhead, r.padding, r.exif) for r in rows]
    first, overhead, padding, exif = tf.unstack(
        tf.gather(np.array(numbers, np.int64), row)
    )
    length = tf.cast(tf.strings.length(data), tf.int64)
    is_jpeg = format_index == formats.JPEG

    def has_next(position: tf.Tensor, exif_start: tf.Tensor) -> tf.Tensor:
        return (exif_start == _NOT_FOUND) & (position < length)

    def step(position: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = formats.leading_bytes(data, _HEAD_BYTES, position)
        head = tf.cast(head, tf.int64)
        is_exif = tf.reduce_all((head == pattern) | (pattern == ord(".")))
        size = tf.reduce_sum(head * size_weights)
        next_position = position + overhead + size + size % padding
        is_fill = is_jpeg & (head[1] == _JPEG_FILL)
        next_position = tf.where(is_fill, position + 1, next_position)
        is_end = is_jpeg & ((head[0] != _JPEG_FILL) | (head[1] == _JPEG_PIXELS))
        next_position = tf.where(is_end, length, next_position)
        return next_position, tf.where(is_exif, position + exif, np.int64(_NOT_FOUND))

    can_have_exif = format_index < len(rows)
    start = tf.where(can_have_exif, first, length)
    return tf.while_loop(has_next, step, [start, np.int64(_NOT_FOUND)])[1]


def _padding_rows(matrix: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns `np.pad` widths that extend a matrix to one row per header byte."""
    return (0, _HEAD_BYTES - len(matrix)), (0, 0)


def _read_tag(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Reads the orientation from the EXIF data at `start`; 1 if there is none."""
    has_prefix = formats.byte_range(data, start, len(jpeg.EXIF)) == jpeg.EXIF
    start += tf.cast(has_prefix, tf.int64) * len(jpeg.EXIF)
    order = formats.byte_range(data, start, 2)
    is_big = order == b"MM"

    def numbers(raw: tf.Tensor, layout: str) -> tf.Tensor:
        matrices = (formats.unpack_matrix(order + layout) for order in "><")
        return tf.linalg.matmul(tf.cast(raw, tf.int64), tf.where(is_big, *matrices))

    head = formats.leading_bytes(data, 8, start)[tf.newaxis]
    magic, first = tf.unstack(numbers(head, "2xHI")[0])
    length = 2 + _MAX_ENTRIES * _ENTRY_BYTES
    directory = formats.leading_bytes(data, length, start + first)
    count = numbers(directory[tf.newaxis, :2], "H")[0, 0]
    entries = tf.reshape(directory[2:], [_MAX_ENTRIES, _ENTRY_BYTES])
    tags, types, longs = tf.unstack(numbers(entries, "2H4xI"), axis=1)
    shorts = numbers(entries, "8xH2x")[:, 0]
    values = tf.where(types == _LONG, longs, shorts)
    is_valid = (tags == _TAG) & (values >= 1) & (values <= 8) & (magic == _TIFF)
    is_valid &= (is_big | (order == b"II")) & ((types == _SHORT) | (types == _LONG))
    is_valid &= np.arange(_MAX_ENTRIES) < count
    return tf.reduce_max(tf.where(is_valid, values, np.int64(1)))
