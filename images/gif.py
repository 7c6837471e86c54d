"""Decodes the first frame of a GIF file, with transparent pixels in white.

TensorFlow's op returns black for transparent pixels, and for pixels outside a frame
that is smaller than the image. The file is therefore rewritten before decoding: it
holds the first frame only, without transparency, and its palette has white instead of
the transparent colour.

Source: GIF89a specification (CompuServe, 1990), sections 18 to 26.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from images import formats

_SCREEN_END = 13  # size in bytes of the header and logical screen descriptor
_DESCRIPTOR = 10  # size in bytes of an image descriptor
_EXTENSION, _IMAGE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_HAS_TABLE, _INTERLACED, _TABLE_SIZE = 0x80, 0x40, 0x07
_NONE = -1
_WHITE = 255


def size(data: tf.Tensor) -> tf.Tensor:
    """Reads the height and width of the canvas, [2] int64."""
    return tf.stack(formats.unpack("<6x2H", data)[::-1])


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes the first frame, placed on its canvas, as [H, W, 3] uint8.

    Raises:
      tf.errors.InvalidArgumentError: the file is damaged or has no frame.
    """
    _, _, screen_flags = formats.unpack("<6x2HB", data)
    global_bytes = _table_bytes(screen_flags)
    start, transparent = _first_image(data, _SCREEN_END + global_bytes)
    left, top, width, height, flags = formats.unpack("<x4HB", data, start)
    corner, extent = tf.stack([top, left]), tf.stack([height, width])
    local_bytes = _table_bytes(flags)
    end = start + _DESCRIPTOR
    is_local = local_bytes > 0
    table = formats.byte_range(
        data,
        tf.where(is_local, end, np.int64(_SCREEN_END)),
        tf.where(is_local, local_bytes, global_bytes),
    )
    table_size = tf.where(is_local, flags, screen_flags) & _TABLE_SIZE
    sides = formats.byte_range(data, start + 5, 4)
    pixels = tf.io.decode_image(
        tf.strings.join(
            [
                b"GIF89a",
                *(sides, b"\0\0\0"),  # screen: size of the frame, no colour table
                *(b"\x2c\0\0\0\0", sides),  # frame at the top left corner
                formats.byte(_HAS_TABLE | flags & _INTERLACED | table_size),
                _with_white(table, transparent),
                formats.byte_range(data, end + local_bytes, 2**31),
            ]
        ),
        channels=3,
        expand_animations=False,
    )
    frame = pixels[:height, :width]
    after = tf.maximum(size(data) - corner - extent, 0)
    margins = tf.pad(tf.stack([corner, after], axis=1), [[0, 1], [0, 0]])
    return tf.pad(frame, margins, constant_values=_WHITE)


def _table_bytes(flags: tf.Tensor) -> tf.Tensor:
    """Returns the size in bytes of the colour table that `flags` declare."""
    size = 3 * tf.bitwise.left_shift(np.int64(2), flags & _TABLE_SIZE)
    return tf.where(flags & _HAS_TABLE > 0, size, np.int64(0))


def _first_image(data: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the first frame: its descriptor's offset, its transparent colour or _NONE.

    Extensions come before the descriptor: a code, a label, and blocks. Each block
    begins with its length, and an empty block ends the extension.
    """

    def has_next(position: tf.Tensor, in_blocks: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return in_blocks | (formats.unpack("<B", data, position)[0] == _EXTENSION)

    def step(
        position: tf.Tensor, in_blocks: tf.Tensor, transparent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length, label, flags, colour = formats.unpack("<2BxB2xB", data, position)
        is_control = ~in_blocks & (label == _GRAPHIC_CONTROL) & (flags & 1 > 0)
        next_position = position + tf.where(in_blocks, 1 + length, np.int64(2))
        in_blocks = ~in_blocks | (length > 0)
        return next_position, in_blocks, tf.where(is_control, colour, transparent)

    first = [start, tf.constant(False), tf.constant(_NONE, tf.int64)]
    position, _, transparent = tf.while_loop(has_next, step, first)
    is_image = formats.unpack("<B", data, position)[0] == _IMAGE
    message = "GIF: the file has no frame"
    with tf.control_dependencies([tf.debugging.Assert(is_image, [message])]):
        return tf.identity(position), transparent


def _with_white(table: tf.Tensor, transparent: tf.Tensor) -> tf.Tensor:
    """Replaces the transparent colour of a colour table, if any, by white."""
    end = tf.cast(tf.strings.length(table), tf.int64)
    is_inside = (transparent != _NONE) & (3 * transparent < end)
    position = tf.where(is_inside, 3 * transparent, end)
    white = tf.where(is_inside, b"\xff\xff\xff", b"")
    before = tf.strings.substr(table, np.int64(0), position)
    after = tf.strings.substr(table, tf.minimum(position + 3, end), end)
    return tf.strings.join([before, white, after])
