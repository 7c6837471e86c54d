"""Decodes BMP files of every depth; not compressed ones, nor those of OS/2 1.

TensorFlow's own op takes the numbers of a palette's colours for shades of grey.
Source: Microsoft, "Bitmap Storage" (BITMAPINFOHEADER to BITMAPV5HEADER).
"""

from __future__ import annotations

import typing

import numpy as np
import tensorflow as tf

from images import formats

_CORE = 12  # bytes of the oldest kind of header
_PLAIN, _MASKED, _MASKED_WITH_ALPHA = 0, 3, 6  # kinds of compression
_HAS_ALPHA_MASK = 56  # bytes of the first header that has one
# Red, green, blue and alpha, where the file names none.
_MASKS_16 = np.array([0x7C00, 0x03E0, 0x001F, 0], np.int64)
_MASKS_32 = np.array([0xFF0000, 0x00FF00, 0x0000FF, 0], np.int64)
_OPAQUE = 255


class Header(typing.NamedTuple):
    """The numbers of a file's headers, each a scalar int64.

    Attributes:
      start: where the pixels begin.
      header_size: bytes of the second header; the palette follows it.
      width: in pixels.
      height: in pixels.
      is_upwards: whether rows are stored from the bottom to the top.
      depth: bits of a pixel.
      compression: the method.
      masks: [4], which bits of a pixel are red, green, blue and alpha.
    """

    start: tf.Tensor
    header_size: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    is_upwards: tf.Tensor
    depth: tf.Tensor
    compression: tf.Tensor
    masks: tf.Tensor

    @property
    def is_supported(self) -> tf.Tensor:
        """Whether `decode` reads it: neither compressed nor of the oldest kind."""
        methods = (_PLAIN, _MASKED, _MASKED_WITH_ALPHA)
        depths = (1, 2, 4, 8, 16, 24, 32)
        is_plain = formats.is_one_of(self.compression, methods)
        is_plain &= formats.is_one_of(self.depth, depths)
        is_plain &= (self.width > 0) & (self.height > 0)
        return is_plain & (self.header_size > _CORE)


def read_header(data: tf.Tensor) -> Header:
    """Reads both headers."""
    layout = "<10x2I2I2xHI20x4I"
    start, header_size, width, height, depth, compression, *masks = formats.unpack(
        layout, data
    )
    is_upwards = height < 2**31
    has_alpha = (header_size >= _HAS_ALPHA_MASK) | (compression == _MASKED_WITH_ALPHA)
    masks[-1] = tf.where(has_alpha, masks[-1], np.int64(0))
    usual = tf.where(depth == 16, _MASKS_16, _MASKS_32)
    return Header(
        start=start,
        header_size=header_size,
        width=width,
        height=tf.where(is_upwards, height, 2**32 - height),
        is_upwards=is_upwards,
        depth=depth,
        compression=compression,
        masks=tf.where(compression == _PLAIN, usual, masks),
    )


def decode(data: tf.Tensor, header: Header) -> tf.Tensor:
    """[H, W, 4] uint8, with alpha.

    Raises:
      tf.errors.InvalidArgumentError: the file is damaged, or compressed.
    """
    depth, width, height = header.depth, header.width, header.height
    message = "BMP: compressed, of an old kind, or damaged"
    with tf.control_dependencies([tf.debugging.Assert(header.is_supported, [message])]):
        stride = (width * depth + 31) // 32 * 4
    raw = tf.io.decode_raw(formats.part(data, header.start, stride * height), tf.uint8)
    rows = tf.reshape(raw, [height, stride])

    def indexed() -> tf.Tensor:
        return tf.gather(_palette(data, header), _indices(rows, depth, width))

    def direct() -> tf.Tensor:
        size = depth // 8
        pixels = tf.reshape(rows[:, : size * width], [height, width, size])
        is_plain = (header.compression == _PLAIN) & (depth >= 24)
        return tf.cond(is_plain, lambda: _opaque(pixels), lambda: masked(pixels, size))

    def masked(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        powers = tf.constant(256, tf.int64) ** tf.range(size)
        values = tf.reduce_sum(tf.cast(pixels, tf.int64) * powers, axis=-1)
        return _channels(values, header.masks)

    pixels = tf.cond(depth <= 8, indexed, direct)
    return tf.reverse(pixels, tf.boolean_mask([0], [header.is_upwards]))


def _indices(rows: tf.Tensor, depth: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Numbers of colours [H, W]: several share a byte, those in its high bits first."""
    shifts = tf.range(8 - depth, -1, -depth)
    values = tf.bitwise.right_shift(tf.cast(rows, tf.int64)[..., tf.newaxis], shifts)
    values &= tf.bitwise.left_shift(np.int64(1), depth) - 1
    return tf.reshape(values, [tf.shape(rows)[0], -1])[:, :width]


def _palette(data: tf.Tensor, header: Header) -> tf.Tensor:
    """256 colours [256, 4] uint8, black where the file has fewer."""
    start = 14 + header.header_size
    length = tf.clip_by_value(header.start - start, 0, 256 * 4)
    raw = formats.part(data, start, length)
    raw = tf.io.decode_raw(raw, tf.uint8, fixed_length=256 * 4)
    return _opaque(tf.reshape(raw, [256, 4]))


def _opaque(colours: tf.Tensor) -> tf.Tensor:
    """Blue, green, red and what may follow [..., 3 or 4] as opaque [..., 4]."""
    first = [[0, 0]] * (colours.shape.rank - 1)
    return tf.pad(colours[..., 2::-1], [*first, [0, 1]], constant_values=_OPAQUE)


def _channels(values: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """The parts of pixels [H, W] that masks name, on the scale of 0 to 255."""
    lowest = tf.maximum(masks & -masks, 1)
    largest = tf.maximum(masks // lowest, 1)
    parts = (values[..., tf.newaxis] & masks) // lowest * 255 // largest
    parts = tf.where(masks == 0, np.array([0, 0, 0, _OPAQUE], np.int64), parts)
    return tf.cast(parts, tf.uint8)
