"""Decodes uncompressed BMP files of any bit depth, except OS/2 1 files.

TensorFlow's `DecodeBmp` op misreads palette indices as shades of grey.
Source: Microsoft, "Bitmap Storage" (BITMAPINFOHEADER to BITMAPV5HEADER).
"""

from __future__ import annotations

import typing

import numpy as np
import tensorflow as tf

from images import formats

_CORE = 12  # size in bytes of the oldest header, BITMAPCOREHEADER
_PLAIN, _MASKED, _MASKED_WITH_ALPHA = 0, 3, 6  # values of the compression field
_HAS_ALPHA_MASK = 56  # size in bytes of the smallest header with an alpha mask
# Masks of red, green, blue and alpha for files that do not define any.
_MASKS_16 = np.array([0x7C00, 0x03E0, 0x001F, 0], np.int64)
_MASKS_32 = np.array([0xFF0000, 0x00FF00, 0x0000FF, 0], np.int64)
_OPAQUE = 255


class Header(typing.NamedTuple):
    """Fields of the file header and the info header, as int64 scalars.

    Attributes:
      start: byte offset of the pixels.
      header_size: size of the info header in bytes; the palette follows it.
      width: in pixels.
      height: in pixels.
      is_bottom_up: whether the bottom row is stored first; scalar bool.
      depth: bits per pixel.
      compression: compression method.
      masks: [4], bit masks of red, green, blue and alpha within a pixel.
    """

    start: tf.Tensor
    header_size: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    is_bottom_up: tf.Tensor
    depth: tf.Tensor
    compression: tf.Tensor
    masks: tf.Tensor

    @property
    def is_supported(self) -> tf.Tensor:
        """Whether `decode` can read the file: uncompressed, not BITMAPCOREHEADER."""
        methods = (_PLAIN, _MASKED, _MASKED_WITH_ALPHA)
        depths = (1, 2, 4, 8, 16, 24, 32)
        is_supported = formats.is_one_of(self.compression, methods)
        is_supported &= formats.is_one_of(self.depth, depths)
        is_supported &= (self.width > 0) & (self.height > 0)
        return is_supported & (self.header_size > _CORE)


def read_header(data: tf.Tensor) -> Header:
    """Reads the file header and the info header."""
    layout = "<10x2I2I2xHI20x4I"
    start, header_size, width, height, depth, compression, *masks = formats.unpack(
        layout, data
    )
    is_bottom_up = height < 2**31
    has_alpha = (header_size >= _HAS_ALPHA_MASK) | (compression == _MASKED_WITH_ALPHA)
    masks[-1] = tf.where(has_alpha, masks[-1], np.int64(0))
    default_masks = tf.where(depth == 16, _MASKS_16, _MASKS_32)
    return Header(
        start=start,
        header_size=header_size,
        width=width,
        height=tf.where(is_bottom_up, height, 2**32 - height),
        is_bottom_up=is_bottom_up,
        depth=depth,
        compression=compression,
        masks=tf.where(compression == _PLAIN, default_masks, masks),
    )


def decode(data: tf.Tensor, header: Header) -> tf.Tensor:
    """Decodes the pixels, with alpha, as [H, W, 4] uint8.

    Raises:
      tf.errors.InvalidArgumentError: the file is damaged or not supported.
    """
    depth, width, height = header.depth, header.width, header.height
    message = "BMP: the file is compressed, in the OS/2 1 format, or damaged"
    with tf.control_dependencies([tf.debugging.Assert(header.is_supported, [message])]):
        stride = (width * depth + 31) // 32 * 4
    raw = tf.io.decode_raw(
        formats.byte_range(data, header.start, stride * height), tf.uint8
    )
    rows = tf.reshape(raw, [height, stride])

    def decode_indexed() -> tf.Tensor:
        return tf.gather(_palette(data, header), _indices(rows, depth, width))

    def decode_direct() -> tf.Tensor:
        size = depth // 8
        pixels = tf.reshape(rows[:, : size * width], [height, width, size])
        is_plain = (header.compression == _PLAIN) & (depth >= 24)
        return tf.cond(
            is_plain, lambda: _opaque(pixels), lambda: apply_masks(pixels, size)
        )

    def apply_masks(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        powers = tf.constant(256, tf.int64) ** tf.range(size)
        values = tf.reduce_sum(tf.cast(pixels, tf.int64) * powers, axis=-1)
        return _channels(values, header.masks)

    pixels = tf.cond(depth <= 8, decode_indexed, decode_direct)
    return tf.reverse(pixels, tf.boolean_mask([0], [header.is_bottom_up]))


def _indices(rows: tf.Tensor, depth: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns palette indices [H, W]; pixels are packed from the high bits down."""
    shifts = tf.range(8 - depth, -1, -depth)
    values = tf.bitwise.right_shift(tf.cast(rows, tf.int64)[..., tf.newaxis], shifts)
    values &= tf.bitwise.left_shift(np.int64(1), depth) - 1
    return tf.reshape(values, [tf.shape(rows)[0], -1])[:, :width]


def _palette(data: tf.Tensor, header: Header) -> tf.Tensor:
    """Returns the palette [256, 4] uint8, filled up with black."""
    start = 14 + header.header_size
    length = tf.clip_by_value(header.start - start, 0, 256 * 4)
    raw = formats.byte_range(data, start, length)
    raw = tf.io.decode_raw(raw, tf.uint8, fixed_length=256 * 4)
    return _opaque(tf.reshape(raw, [256, 4]))


def _opaque(colours: tf.Tensor) -> tf.Tensor:
    """Converts BGR or BGRX [..., 3 or 4] to opaque RGBA [..., 4]."""
    no_padding = [[0, 0]] * (colours.shape.rank - 1)
    paddings = [*no_padding, [0, 1]]
    return tf.pad(colours[..., 2::-1], paddings, constant_values=_OPAQUE)


def _channels(values: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Extracts masked channels from pixels [H, W] and scales them to 0 to 255."""
    lowest = tf.maximum(masks & -masks, 1)
    largest = tf.maximum(masks // lowest, 1)
    parts = (values[..., tf.newaxis] & masks) // lowest * 255 // largest
    parts = tf.where(masks == 0, np.array([0, 0, 0, _OPAQUE], np.int64), parts)
    return tf.cast(parts, tf.uint8)
