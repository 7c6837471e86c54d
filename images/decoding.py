"""Decodes images to upright, opaque 8-bit RGB pixels, as TensorFlow graph code.

| format | decoder |
|---|---|
| JPEG, including progressive and CMYK | `DecodeJpeg`, with the exact inverse DCT |
| PNG of 1 to 16 bits, with or without palette | `DecodePng`; 16 bits: the high byte |
| GIF | `gif`; first frame of an animation |
| WebP | `DecodeImage`; first frame of an animation |
| BMP of 1 to 32 bits, bottom-up or top-down | `bmp` |
| TIFF, AVIF, JPEG 2000, compressed BMP, … | `fallback`: Pillow, not in exports |
| CMYK JPEG without Adobe's marker | `fallback`: Pillow, not in exports |

Pixels are rotated and mirrored according to the EXIF orientation. Transparent pixels
are composited onto white. The embedded colour profile is ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from images import bmp, exif, formats, gif, jpeg

MAX_PIXELS = 1 << 28
"""Limit for decoding: a small file could declare a size that exhausts the memory."""

_ALPHA = np.array([0, 0, 0, 1], np.uint8)
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # start of Adobe's APP14 segment of a JPEG file
_ANIMATED, _HAS_ALPHA = 0x02, 0x10  # flags in a WebP header
_TOO_LARGE = f"The image has more than {MAX_PIXELS} pixels."
_Decoder = Callable[[tf.Tensor], tf.Tensor]


@tf.autograph.experimental.do_not_convert
def decode(data: tf.Tensor, *, use_pillow: bool = True) -> tf.Tensor:
    """Decodes an image of any supported format.

    Args:
      data: scalar string, the bytes of a file.
      use_pillow: whether Pillow reads the formats that TensorFlow's ops can't; if
        False, the graph depends on TensorFlow alone.

    Returns:
      [H, W, 3] uint8: upright, composited onto white.

    Raises:
      tf.errors.OpError: raised when the graph runs: the file is damaged, has an
        unsupported format, or has more than `MAX_PIXELS` pixels.
    """
    format_index = formats.detect(data)
    stored = _decode_stored(data, format_index, use_pillow=use_pillow)
    return exif.turn_upright(_on_white(stored), exif.orientation(data, format_index))


@tf.autograph.experimental.do_not_convert
def decode_window(
    data: tf.Tensor, choose: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a window of an image, without decoding the rest of a JPEG file.

    Args:
      data: scalar string, the bytes of a file.
      choose: maps the size [2] int32 of the upright image to a window [4] int32 in
        it: top, left, height, width.

    Returns:
      The window [h, w, 3] uint8: upright, composited onto white. And the size [2] of
      the whole image.

    Raises:
      tf.errors.OpError: see `decode`.
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

    # Windows in the upper part of a truncated file would decode without an error.
    is_complete_jpeg = _is_rgb_jpeg(data) & _is_complete_jpeg(data)
    pixels, size = tf.cond(is_complete_jpeg, decode_jpeg, decode_and_crop)
    return tf.ensure_shape(pixels, [None, None, 3]), size


def jpeg_size(data: tf.Tensor) -> tf.Tensor:
    """Reads the stored height and width [2] int32 of a JPEG file."""
    return _checked_size(tf.image.extract_jpeg_shape(data)[:2])


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG file [H, W, 3] uint8 without applying its EXIF orientation."""
    with tf.control_dependencies([jpeg_size(data)]):
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def decode_jpeg_window(data: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Decodes a window [4] of a JPEG file as stored; see `decode_window`."""
    return tf.image.decode_and_crop_jpeg(
        data, window, channels=3, dct_method="INTEGER_ACCURATE"
    )


def crop(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Crops pixels [H, W, 3] to a window [4]; see `decode_window`."""
    size = tf.concat([window[2:], [3]], axis=0)
    return tf.slice(pixels, tf.pad(window[:2], [[0, 1]]), size)


def _is_rgb_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether an image is an RGB or greyscale JPEG file, not CMYK."""
    return tf.cond(
        formats.is_jpeg(data),
        lambda: tf.image.extract_jpeg_shape(data)[2] < 4,
        lambda: False,
    )


def _is_complete_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether a file ends with JPEG's end marker."""
    start = tf.maximum(tf.strings.length(data) - len(jpeg.END), 0)
    return formats.byte_range(data, tf.cast(start, tf.int64), 2) == jpeg.END


def _decode_any_jpeg(data: tf.Tensor, *, use_pillow: bool) -> tf.Tensor:
    """Decodes a JPEG file; CMYK without Adobe's marker needs Pillow.

    Adobe's software stores inverted CMYK, and TensorFlow assumes that of any CMYK file.
    """
    is_supported = _is_rgb_jpeg(data) | formats.contains(data, _ADOBE)
    if use_pillow:
        return tf.cond(
            is_supported,
            lambda: decode_jpeg(data),
            lambda: _decode_with_pillow(data)[..., :3],
        )
    message = "JPEG: CMYK without Adobe's marker is not supported"
    with tf.control_dependencies([tf.debugging.Assert(is_supported, [message])]):
        return decode_jpeg(data)


def _decode_stored(
    data: tf.Tensor, format_index: tf.Tensor, *, use_pillow: bool
) -> tf.Tensor:
    """Decodes the pixels as stored, [H, W, 3 or 4] uint8; channel 4 is alpha."""
    decoders: dict[str, _Decoder] = {
        "jpeg": functools.partial(_decode_any_jpeg, use_pillow=use_pillow),
        "png": _decode_png,
        "webp": _decode_webp,
        "gif": _decode_gif,
        "bmp": functools.partial(_decode_bmp, use_pillow=use_pillow),
    }
    default = _decode_with_pillow if use_pillow else _fail
    branches = [functools.partial(decoders[name], data) for name in formats.NAMES]
    return tf.switch_case(format_index, [*branches, functools.partial(default, data)])


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG file with alpha, [H, W, 4] uint8.

    Without an alpha channel, the op fills alpha with the largest value of the file's
    bit depth instead of 255.
    """
    *size, depth = formats.unpack(">16x2IB", data)
    with tf.control_dependencies([_checked_size(size)]):
        pixels = tf.io.decode_png(data, channels=4)
    largest = tf.bitwise.left_shift(np.int64(1), tf.minimum(depth, 8)) - 1
    has_alpha = tf.reduce_any(pixels[..., 3] != tf.cast(largest, tf.uint8))
    opaque = tf.where(has_alpha, np.uint8(0), np.uint8(255)) * _ALPHA
    return tf.bitwise.bitwise_or(pixels, opaque)


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    """Decodes a WebP file, the first frame of an animation.

    TensorFlow writes four channels for every animation, but allocates three if the
    file's alpha flag is off, and so overruns the buffer. The flag is therefore set.
    """
    flags, *sides = formats.unpack("<20xB3xHBHB", data)
    is_extended = formats.byte_range(data, 12, 4) == b"VP8X"
    is_animated = is_extended & (flags & _ANIMATED > 0)
    # Other WebP files store each side in 14 bits and can't exceed `MAX_PIXELS`.
    size = [low + 2**16 * high + 1 for low, high in (sides[:2], sides[2:])]
    with tf.control_dependencies([_checked_size(tf.where(is_animated, size, 0))]):
        flags = formats.byte(flags | _HAS_ALPHA)
        before = formats.byte_range(data, 0, 20)
        after = formats.byte_range(data, np.int64(21), 2**31)
        with_alpha = tf.strings.join([before, flags, after])
        return tf.io.decode_image(
            tf.where(is_animated, with_alpha, data), expand_animations=False
        )


def _decode_gif(data: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([_checked_size(gif.size(data))]):
        return gif.decode(data)


def _decode_bmp(data: tf.Tensor, *, use_pillow: bool) -> tf.Tensor:
    header = bmp.read_header(data)

    def decode_supported() -> tf.Tensor:
        size = tf.where(header.is_supported, [header.height, header.width], 0)
        with tf.control_dependencies([_checked_size(size)]):
            return bmp.decode(data, header)

    if not use_pillow:
        return decode_supported()
    return tf.cond(
        header.is_supported, decode_supported, lambda: _decode_with_pillow(data)
    )


def _decode_with_pillow(data: tf.Tensor) -> tf.Tensor:
    from images import fallback

    pixels = tf.numpy_function(fallback.decode, [data], tf.uint8, stateful=False)
    return tf.ensure_shape(pixels, [None, None, 4])


def _fail(data: tf.Tensor) -> tf.Tensor:
    message = "The image is not a JPEG, PNG, GIF, WebP or BMP file."
    with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
        return tf.zeros([1, 1, 3], tf.uint8)


def _checked_size(size: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the height and width [2], and fails beyond `MAX_PIXELS`."""
    is_small = tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(is_small, [_TOO_LARGE])]):
        return tf.identity(size)


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Composites RGB or RGBA [H, W, 3 or 4] uint8 onto white: [H, W, 3].

    Results are rounded to the nearest integer: for x from 0 to 255², x / 255 rounds to
    (y + y // 256) // 256, where y is x + 128.
    """
    colours, alpha = pixels[..., :3], pixels[..., 3:]

    def composite() -> tf.Tensor:
        a = tf.cast(alpha, tf.uint16)
        x = tf.cast(colours, tf.uint16) * a + 255 * (255 - a) + 128
        x = tf.bitwise.right_shift(x + tf.bitwise.right_shift(x, 8), 8)
        return tf.cast(x, tf.uint8)

    # Without an alpha channel, `alpha` is empty and the condition holds.
    return tf.cond(tf.reduce_all(alpha == 255), lambda: colours, composite)
