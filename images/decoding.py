"""Encoded images -> upright, opaque 8-bit RGB pixels, as TensorFlow graph code.

| format | read by |
|---|---|
| JPEG, progressive and CMYK too | `DecodeJpeg`, with the exact inverse DCT |
| PNG of 1 to 16 bits, with or without palette | `DecodePng`; the high byte of 16 bits |
| GIF | `gif`; of an animation the first frame |
| WebP | `DecodeImage`; of an animation the first frame |
| BMP of 1 to 32 bits, both orders of rows | `bmp` |
| TIFF, AVIF, JPEG 2000, compressed BMP, … | `fallback`: Pillow, outside of exports |
| CMYK in a JPEG file that is not Adobe's | likewise |

All of them are turned as their EXIF orientation says, and what is transparent is put on
white. The embedded colour profile is ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from images import bmp, exif, formats, gif, jpeg

MAX_PIXELS = 1 << 28
"""Larger images are refused: a small file may claim to be one that fills all memory."""

_ALPHA = np.array([0, 0, 0, 1], np.uint8)
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # begins the part of a JPEG file that Adobe writes
_ANIMATED, _HAS_ALPHA = 0x02, 0x10  # flags of WebP
_TOO_LARGE = f"The image has more than {MAX_PIXELS} pixels."
_Decoder = Callable[[tf.Tensor], tf.Tensor]


@tf.autograph.experimental.do_not_convert
def decode(data: tf.Tensor, *, use_pillow: bool = True) -> tf.Tensor:
    """Decodes an image of any format.

    Args:
      data: scalar string, the bytes of a file.
      use_pillow: whether Pillow reads what TensorFlow's ops can't; without it, the
        graph needs nothing but TensorFlow.

    Returns:
      [H, W, 3] uint8: upright, on white.

    Raises:
      tf.errors.OpError: when the graph runs; the file is damaged, of a format that
        can't be read, or has more than `MAX_PIXELS` pixels.
    """
    number = formats.number(data)
    stored = _decode_stored(data, number, use_pillow=use_pillow)
    return exif.turn_upright(_on_white(stored), exif.orientation(data, number))


@tf.autograph.experimental.do_not_convert
def decode_window(
    data: tf.Tensor, choose: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a window of an image; of a JPEG file, only that is decoded.

    Args:
      data: scalar string, the bytes of a file.
      choose: from the size [2] int32 of the upright image to the window [4] int32 in
        it: top, left, height, width.

    Returns:
      [h, w, 3] uint8: upright, on white. And the size [2] of the whole.

    Raises:
      tf.errors.OpError: as `decode`.
    """

    def decode_jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        orientation = exif.orientation(data, formats.JPEG)
        size = exif.upright_size(jpeg_size(data), orientation)
        window = exif.stored_window(choose(size), size, orientation)
        pixels = decode_jpeg_window(data, window)
        return exif.turn_upright(pixels, orientation), size

    def decode_and_crop() -> tuple[tf.Tensor, tf.Tensor]:
        pixels = decode(data)
        size = tf.shape(pixels)[:2]
        return crop(pixels, choose(size)), size

    # Of a file that is cut off, windows in the upper part would be read.
    is_whole_jpeg = _is_rgb_jpeg(data) & _is_whole_jpeg(data)
    pixels, size = tf.cond(is_whole_jpeg, decode_jpeg, decode_and_crop)
    return tf.ensure_shape(pixels, [None, None, 3]), size


def jpeg_size(data: tf.Tensor) -> tf.Tensor:
    """Height and width [2] int32 of a JPEG file as it is stored."""
    return _checked_size(tf.image.extract_jpeg_shape(data)[:2])


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """`decode` of a JPEG file as it is stored, not turned."""
    with tf.control_dependencies([jpeg_size(data)]):
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def decode_jpeg_window(data: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of `decode_jpeg` that a window [4] names; see `decode_window`."""
    return tf.image.decode_and_crop_jpeg(
        data, window, channels=3, dct_method="INTEGER_ACCURATE"
    )


def crop(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of pixels [H, W, 3] that a window [4] names; see `decode_window`."""
    size = tf.concat([window[2:], [3]], axis=0)
    return tf.slice(pixels, tf.pad(window[:2], [[0, 1]]), size)


def _is_rgb_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether an image is a JPEG file of colours or greys, not CMYK."""
    return tf.cond(
        formats.is_jpeg(data),
        lambda: tf.image.extract_jpeg_shape(data)[2] < 4,
        lambda: False,
    )


def _is_whole_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether a file ends as JPEG files do."""
    start = tf.maximum(tf.strings.length(data) - len(jpeg.END), 0)
    return formats.part(data, tf.cast(start, tf.int64), 2) == jpeg.END


def _decode_any_jpeg(data: tf.Tensor, *, use_pillow: bool) -> tf.Tensor:
    """Adobe stores CMYK as negatives, and TensorFlow takes all CMYK for such."""
    is_known = _is_rgb_jpeg(data) | formats.contains(data, _ADOBE)
    if use_pillow:
        return tf.cond(
            is_known,
            lambda: decode_jpeg(data),
            lambda: _decode_with_pillow(data)[..., :3],
        )
    message = "JPEG: CMYK that is not Adobe's"
    with tf.control_dependencies([tf.debugging.Assert(is_known, [message])]):
        return decode_jpeg(data)


def _decode_stored(
    data: tf.Tensor, number: tf.Tensor, *, use_pillow: bool
) -> tf.Tensor:
    """[H, W, 3 or 4] uint8 as it is stored; a fourth channel is alpha."""
    decoders: dict[str, _Decoder] = {
        "jpeg": functools.partial(_decode_any_jpeg, use_pillow=use_pillow),
        "png": _decode_png,
        "webp": _decode_webp,
        "gif": _decode_gif,
        "bmp": functools.partial(_decode_bmp, use_pillow=use_pillow),
    }
    rest = _decode_with_pillow if use_pillow else _refuse
    branches = [functools.partial(decoders[name], data) for name in formats.NAMES]
    return tf.switch_case(number, [*branches, functools.partial(rest, data)])


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    """Where a file has no alpha, the op gives the largest value of its bit depth."""
    *size, depth = formats.unpack(">16x2IB", data)
    with tf.control_dependencies([_checked_size(size)]):
        pixels = tf.io.decode_png(data, channels=4)
    largest = tf.bitwise.left_shift(np.int64(1), tf.minimum(depth, 8)) - 1
    has_alpha = tf.reduce_any(pixels[..., 3] != tf.cast(largest, tf.uint8))
    opaque = tf.where(has_alpha, np.uint8(0), np.uint8(255)) * _ALPHA
    return tf.bitwise.bitwise_or(pixels, opaque)


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    """Of an animation, TensorFlow always writes four channels.

    It has room for three of them if the file says that it has no alpha, and writes
    beyond: so it is made to say that it has.
    """
    flags, *sides = formats.unpack("<20xB3xHBHB", data)
    is_animated = (formats.part(data, 12, 4) == b"VP8X") & (flags & _ANIMATED > 0)
    # Other files have 14 bits for each side, which is never more than `MAX_PIXELS`.
    size = [low + 2**16 * high + 1 for low, high in (sides[:2], sides[2:])]
    with tf.control_dependencies([_checked_size(tf.where(is_animated, size, 0))]):
        flags = formats.byte(flags | _HAS_ALPHA)
        rest = formats.part(data, np.int64(21), 2**31)
        with_alpha = tf.strings.join([formats.part(data, 0, 20), flags, rest])
        return tf.io.decode_image(
            tf.where(is_animated, with_alpha, data), expand_animations=False
        )


def _decode_gif(data: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([_checked_size(gif.size(data))]):
        return gif.decode(data)


def _decode_bmp(data: tf.Tensor, *, use_pillow: bool) -> tf.Tensor:
    header = bmp.read_header(data)

    def plain() -> tf.Tensor:
        size = tf.where(header.is_supported, [header.height, header.width], 0)
        with tf.control_dependencies([_checked_size(size)]):
            return bmp.decode(data, header)

    if not use_pillow:
        return plain()
    return tf.cond(header.is_supported, plain, lambda: _decode_with_pillow(data))


def _decode_with_pillow(data: tf.Tensor) -> tf.Tensor:
    from images import fallback

    pixels = tf.numpy_function(fallback.decode, [data], tf.uint8, stateful=False)
    return tf.ensure_shape(pixels, [None, None, 4])


def _refuse(data: tf.Tensor) -> tf.Tensor:
    message = "The image is none of JPEG, PNG, GIF, WebP and BMP."
    with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
        return tf.zeros([1, 1, 3], tf.uint8)


def _checked_size(size: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
    """Height and width [2], if the image is not too large."""
    is_small = tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(is_small, [_TOO_LARGE])]):
        return tf.identity(size)


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Puts [H, W, 3 or 4] uint8, a fourth channel being alpha, on white: [H, W, 3].

    Rounded to the nearest integer: for x from 0 to 255², x / 255 is
    (y + y // 256) // 256, where y is x + 128.
    """
    colours, alpha = pixels[..., :3], pixels[..., 3:]

    def composite() -> tf.Tensor:
        share = tf.cast(alpha, tf.uint16)
        x = tf.cast(colours, tf.uint16) * share + 255 * (255 - share) + 128
        x = tf.bitwise.right_shift(x + tf.bitwise.right_shift(x, 8), 8)
        return tf.cast(x, tf.uint8)

    # No alpha at all is opaque as well.
    return tf.cond(tf.reduce_all(alpha == 255), lambda: colours, composite)
