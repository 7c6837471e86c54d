"""The EXIF orientation of a photograph: finds it, and turns pixels upright.

Cameras store the pixels as the sensor reads them, and note in EXIF how to turn them.
Source: CIPA DC-008 (Exif 2.32), section 4.6.4 A, tag 0x0112; where a file keeps its
EXIF: section 4.7 (JPEG), PNG specification 3rd edition, section 11.3.4.7 (chunk eXIf),
WebP container specification (chunk EXIF).
"""

from __future__ import annotations

import typing

import numpy as np
import tensorflow as tf

from images import formats, jpeg

_TAG = 0x0112
_SHORT, _LONG = 3, 4  # types of 16 and 32 bits; the standard asks for the former
_TIFF = 42  # the third and fourth byte of EXIF, which is a TIFF file in itself
_MOST_ENTRIES = 512  # of a directory, that are looked at
_ENTRY_BYTES = 12
_NOWHERE = -1
_JPEG_FILL, _JPEG_PIXELS = 0xFF, 0xDA  # a marker's first byte; where headers end


class _Container(typing.NamedTuple):
    """How a format puts its parts one after the other.

    Attributes:
      first: position of the first part.
      size: layout of a part's head as far as its size, see `formats.unpack`.
      overhead: bytes of a part that its size does not count.
      padding: to a multiple of how many bytes parts are filled up.
      head: what the head of the part with EXIF is like; a dot is any byte.
      exif: where EXIF begins in that part.
    """

    first: int
    size: str
    overhead: int
    padding: int
    head: bytes
    exif: int


_CONTAINERS = {
    "jpeg": _Container(2, ">2xH", 2, 1, b"\xff\xe1..Exif\0\0", 4),
    "png": _Container(8, ">I", 12, 1, b"....eXIf", 8),
    "webp": _Container(12, "<4xI", 8, 2, b"EXIF", 8),
}
_HEAD_BYTES = 10


def orientation(data: tf.Tensor, format_number: tf.Tensor | int) -> tf.Tensor:
    """The EXIF orientation of an encoded image, scalar int64 from 1 to 8.

    It is 1 (upright as stored) where the file does not say, or says nonsense, and in
    other formats than JPEG, PNG and WebP.

    Args:
      data: scalar string, the bytes of a file.
      format_number: see `formats.number`.
    """
    start = _find(data, format_number)
    return tf.cond(
        start == _NOWHERE, lambda: np.int64(1), lambda: _read_tag(data, start)
    )


def turn_upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors stored pixels [H, W, 3] as their orientation asks."""

    def turned() -> tf.Tensor:
        axes = tf.where(_swaps_sides(orientation), [1, 0, 2], [0, 1, 2])
        x = tf.transpose(pixels, axes)
        return tf.reverse(x, tf.boolean_mask([0, 1], _flips(orientation)))

    return tf.cond(orientation == 1, lambda: pixels, turned)


def upright_size(stored: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Height and width [2] of an image after `turn_upright`."""
    return tf.where(_swaps_sides(orientation), stored[::-1], stored)


def stored_window(
    window: tf.Tensor, size: tf.Tensor, orientation: tf.Tensor
) -> tf.Tensor:
    """Where a window of the upright image is in the stored one.

    Args:
      window: [4] int32: top, left, height, width.
      size: [2] int32, of the upright image.
      orientation: of the stored image.

    Returns:
      [4] int32 of the same kind.
    """
    corner, extent = window[:2], window[2:]
    corner = tf.where(_flips(orientation), size - corner - extent, corner)
    swaps = _swaps_sides(orientation)
    corner, extent = (tf.where(swaps, p[::-1], p) for p in (corner, extent))
    return tf.concat([corner, extent], axis=0)


def _swaps_sides(orientation: tf.Tensor) -> tf.Tensor:
    """Whether rows and columns are exchanged, before anything is flipped."""
    return orientation >= 5


def _flips(orientation: tf.Tensor) -> tf.Tensor:
    """Whether it is flipped from top to bottom, and from left to right: [2] bool."""
    flipping = tf.constant([[3, 4, 7, 8], [2, 3, 6, 7]], tf.int64)
    return tf.reduce_any(orientation == flipping, axis=1)


def _find(data: tf.Tensor, format_number: tf.Tensor | int) -> tf.Tensor:
    """Where EXIF begins, going from part to part of the file; or _NOWHERE."""
    rows = [_CONTAINERS[n] for n in formats.NAMES if n in _CONTAINERS]
    row = tf.minimum(format_number, len(rows) - 1)
    sizes = [np.pad(w := formats.weights(r.size), _rest(w)) for r in rows]
    heads = np.array([list(r.head.ljust(_HEAD_BYTES, b".")) for r in rows])
    size_weights = tf.gather(np.stack(sizes)[..., 0], row)
    wanted = tf.gather(heads.astype(np.int64), row)
    numbers = [(r.first, r.overhead, r.padding, r.exif) for r in rows]
    first, overhead, padding, exif = tf.unstack(
        tf.gather(np.array(numbers, np.int64), row)
    )
    length = tf.cast(tf.strings.length(data), tf.int64)
    is_jpeg = format_number == formats.JPEG

    def goes_on(position: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return (found == _NOWHERE) & (position < length)

    def step(position: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = formats.leading_bytes(data, _HEAD_BYTES, position)
        head = tf.cast(head, tf.int64)
        is_exif = tf.reduce_all((head == wanted) | (wanted == ord(".")))
        size = tf.reduce_sum(head * size_weights)
        following = position + overhead + size + size % padding
        is_fill = is_jpeg & (head[1] == _JPEG_FILL)
        following = tf.where(is_fill, position + 1, following)
        is_end = is_jpeg & ((head[0] != _JPEG_FILL) | (head[1] == _JPEG_PIXELS))
        following = tf.where(is_end, length, following)
        return following, tf.where(is_exif, position + exif, np.int64(_NOWHERE))

    is_known = format_number < len(rows)
    start = tf.where(is_known, first, length)
    return tf.while_loop(goes_on, step, [start, np.int64(_NOWHERE)])[1]


def _rest(matrix: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """What `np.pad` adds, for a matrix to have a row for each byte of a head."""
    return (0, _HEAD_BYTES - len(matrix)), (0, 0)


def _read_tag(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The orientation that the EXIF at `start` gives, or 1."""
    has_prefix = formats.part(data, start, len(jpeg.EXIF)) == jpeg.EXIF
    start += tf.cast(has_prefix, tf.int64) * len(jpeg.EXIF)
    order = formats.part(data, start, 2)
    is_big = order == b"MM"

    def numbers(raw: tf.Tensor, layout: str) -> tf.Tensor:
        orders = (formats.weights(order + layout) for order in "><")
        return tf.linalg.matmul(tf.cast(raw, tf.int64), tf.where(is_big, *orders))

    head = formats.leading_bytes(data, 8, start)[tf.newaxis]
    magic, first = tf.unstack(numbers(head, "2xHI")[0])
    length = 2 + _MOST_ENTRIES * _ENTRY_BYTES
    directory = formats.leading_bytes(data, length, start + first)
    count = numbers(directory[tf.newaxis, :2], "H")[0, 0]
    entries = tf.reshape(directory[2:], [_MOST_ENTRIES, _ENTRY_BYTES])
    tags, kinds, longs = tf.unstack(numbers(entries, "2H4xI"), axis=1)
    shorts = numbers(entries, "8xH2x")[:, 0]
    values = tf.where(kinds == _LONG, longs, shorts)
    is_said = (tags == _TAG) & (values >= 1) & (values <= 8) & (magic == _TIFF)
    is_said &= (is_big | (order == b"II")) & ((kinds == _SHORT) | (kinds == _LONG))
    is_said &= np.arange(_MOST_ENTRIES) < count
    return tf.reduce_max(tf.where(is_said, values, np.int64(1)))
