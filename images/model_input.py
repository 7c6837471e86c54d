"""Preprocessing: central or random crop -> resize, from image files or pixels."""

from __future__ import annotations

import dataclasses
import enum
import operator
import typing
from collections.abc import Callable

import tensorflow as tf

from images import decoding, jpeg

INTERPOLATIONS = {"bilinear": "triangle", "bicubic": "keyscubic"}
"""Interpolation -> kernel of the `ScaleAndTranslate` op that equals Pillow's."""
LARGEST_SIZE = 4096  # pixels
_TO_UNIT = 1 / 255
_BYTES = tf.TensorSpec([None], tf.string, "image_bytes")
_TRIES = 10  # attempts to sample a window with the requested area and aspect ratio
_LARGE = 2.5  # ratio of image side to input side above which random crops antialias


class Kind(enum.IntEnum):
    """How an image is represented; Python finds it before the graph is run.

    Attributes:
      JPEG: bytes of a plain JPEG file, scalar string; see `jpeg.plain_size`.
      LARGE_JPEG: bytes of a plain JPEG file much larger than the model's input.
      FILE: bytes of any image file, scalar string.
      PIXELS: decoded pixels, [H, W, 3] uint8.
    """

    JPEG = 0
    LARGE_JPEG = 1
    FILE = 2
    PIXELS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preprocessing of photographs for a model.

    Args:
      height: height of the model's input in pixels.
      width: width of the model's input in pixels.
      crop_fraction: side of the central crop, relative to the largest central crop with
        the aspect ratio of the input; in (0, 1].
      interpolation: `bilinear` or `bicubic`; antialiased when it shrinks an image, but
        for `random_crop` of images up to 2.5 times the input's size.
    """

    height: int
    width: int
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            if not isinstance(side, int) or not 1 <= side <= LARGEST_SIZE:
                raise ValueError(
                    f"{name} must be a number of pixels from 1 to {LARGEST_SIZE}, "
                    f"not {side!r}"
                )
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(
                f"crop_fraction must be in (0, 1], not {self.crop_fraction!r}"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not "
                f"{self.interpolation!r}"
            )

    def read(self, data: tf.Tensor, *, use_pillow: bool = True) -> tf.Tensor:
        """Reads an image file: decode -> central crop -> resize -> scale to [0, 1].

        Args:
          data: scalar string, the bytes of an image file.
          use_pillow: see `decoding.decode`.

        Returns:
          [height, width, 3] float32 in [0, 1].

        Raises:
          tf.errors.OpError: see `decoding.decode`.
        """
        return self.from_pixels(decoding.decode(data, use_pillow=use_pillow))

    def kind(self, data: bytes) -> Kind:
        """Returns the kind of an image file from its bytes."""
        size = jpeg.plain_size(data)
        if size is None:
            return Kind.FILE
        is_large = any(map(operator.gt, size, self.size_limits()))
        return Kind.LARGE_JPEG if is_large else Kind.JPEG

    def size_limits(self) -> tuple[float, float]:
        """Returns the height and width above which an image counts as large."""
        return _LARGE * self.height, _LARGE * self.width

    def central_crop(self, image: tf.Tensor, kind: Kind) -> tf.Tensor:
        """Preprocesses an image of any kind: decode -> central crop -> resize -> scale.

        For files, the result is that of `read`, for pixels that of `from_pixels`.

        Args:
          image: scalar string, the bytes of a file; or pixels, [H, W, 3] uint8.
          kind: what `image` is: the result of `kind`, or `Kind.PIXELS`.

        Returns:
          [height, width, 3] float32 in [0, 1].
        """
        if kind == Kind.FILE:
            return self.read(image)
        if kind == Kind.PIXELS:
            return self.from_pixels(image)
        return self.from_pixels(decoding.decode_jpeg(image))

    def from_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Preprocesses pixels: central crop -> resize -> scale to [0, 1].

        Source: `_decode_and_center_crop` of the TPU EfficientNet code, for the position
        of the crop: (side - crop + 1) // 2.

        Args:
          pixels: [H, W, 3] uint8.

        Returns:
          [height, width, 3] float32 in [0, 1].
        """
        # The central crop. Clause S04 repeats this arithmetic independently, in
        # conformance/checks/encoded_images.py.
        size = tf.shape(pixels)[:2]
        sides = tf.cast(size, tf.float32)
        height = tf.minimum(sides[0], sides[1] * (self.height / self.width))
        width = tf.minimum(sides[1], sides[0] * (self.width / self.height))
        extent = tf.cast(tf.stack([height, width]) * self.crop_fraction, tf.int32)
        extent = tf.maximum(extent, 1)
        corner = (size - extent + 1) // 2
        x = decoding.crop(pixels, tf.concat([corner, extent], axis=0))
        return self._resize_as_pillow(x)

    def random_crop(
        self,
        image: tf.Tensor,
        seed: tf.Tensor,
        *,
        kind: Kind,
        area: tuple[float, float],
        aspect: tuple[float, float],
    ) -> tf.Tensor:
        """Inception's random crop: random area and aspect ratio -> resize -> [0, 1].

        Source: arXiv:1409.4842, section 6. Crops of images up to 2.5 times the input's
        size are resized without antialiasing: that takes a third of the time, and at
        such a scale the interpolation still reads most pixels.

        Args:
          image: tensor of the given kind.
          seed: [2] integers that determine the crop.
          kind: kind of `image`.
          area: smallest and largest area of the crop as a fraction of the image.
          aspect: smallest and largest ratio of width to height.

        Returns:
          [height, width, 3] float32 in [0, 1].

        Raises:
          tf.errors.OpError: see `decoding.decode`.
        """

        def choose(size: tf.Tensor) -> tf.Tensor:
            begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
                tf.concat([size, [3]], axis=0),
                bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
                seed=seed,
                min_object_covered=0.0,
                aspect_ratio_range=aspect,
                area_range=area,
                max_attempts=_TRIES,
                use_image_if_no_bounding_boxes=True,
            )
            return tf.concat([begin[:2], extent[:2]], axis=0)

        if kind == Kind.PIXELS:
            size = tf.shape(image)[:2]
            pixels = decoding.crop(image, choose(size))
        elif kind == Kind.FILE:
            pixels, size = decoding.decode_window(image, choose)
        else:
            window = choose(decoding.jpeg_size(image))
            pixels = decoding.decode_jpeg_window(image, window)
        if kind in (Kind.JPEG, Kind.LARGE_JPEG):
            return self._resize(pixels, antialias=kind == Kind.LARGE_JPEG)
        return tf.cond(
            tf.reduce_any(tf.cast(size, tf.float32) > self.size_limits()),
            lambda: self._resize(pixels, antialias=True),
            lambda: self._resize(pixels, antialias=False),
        )

    def named_callable(self) -> typing.Any:
        """Builds the `preprocess` attribute of a SavedModel: `read` for a batch.

        It contains standard TensorFlow ops only, and no variables.

        Returns:
          An object whose `__call__` maps `image_bytes` [B] strings to [B, height,
          width, 3] float32 in [0, 1].
        """

        @tf.function(input_signature=[_BYTES], autograph=False)
        def preprocess(image_bytes: tf.Tensor) -> tf.Tensor:
            shape = (self.height, self.width, 3)
            return tf.map_fn(
                lambda data: self.read(data, use_pillow=False),
                image_bytes,
                fn_output_signature=tf.TensorSpec(shape, tf.float32),
            )

        traced = (
            preprocess.get_concrete_function()
        )  # one trace for the root and the signature
        root = tf.__internal__.tracking.AutoTrackable()
        root.__call__ = tf.function(traced, input_signature=[_BYTES], autograph=False)
        root.variables, root.trainable_variables = [], []
        root.regularization_losses = []
        return root

    def _resize_as_pillow(self, pixels: tf.Tensor) -> tf.Tensor:
        """Resizes pixels exactly as Pillow does, and scales them to [0, 1].

        Most published weights were evaluated with Pillow's `resize`. Pillow resizes
        horizontally, then vertically, and rounds to 8 bits after each. Without the
        rounding, the second most probable class of an image can change.

        Source: `ImagingResampleInner` in Pillow's `Resample.c`.
        """
        height, width = tf.unstack(tf.shape(pixels)[:2])
        # Weighted sums of rows of many values are fast, those of pixels of three are
        # not. So the image is transposed to resize it horizontally.
        x = tf.transpose(tf.reshape(pixels, (height, width * 3)))
        x = tf.cast(tf.reshape(x, (width, 3 * height)), tf.float32)
        x = tf.reshape(self._resample(x, self.width), (self.width * 3, height))
        x = self._resample(tf.transpose(x), self.height)
        return tf.reshape(x, (self.height, self.width, 3)) * _TO_UNIT

    def _resample(self, rows: tf.Tensor, count: int) -> tf.Tensor:
        """Resizes rows [N, K] to [count, K] as an image, and rounds to 8 bits."""
        x = tf.raw_ops.ScaleAndTranslate(
            images=rows[tf.newaxis, :, tf.newaxis],
            size=(count, 1),
            scale=tf.stack([count / tf.cast(tf.shape(rows)[0], tf.float32), 1.0]),
            translation=(0.0, 0.0),
            kernel_type=INTERPOLATIONS[self.interpolation],
            antialias=True,
        )
        return tf.clip_by_value(tf.floor(x[0, :, 0] + 0.5), 0, 255)

    def _resize(self, pixels: tf.Tensor, *, antialias: bool) -> tf.Tensor:
        """Resizes pixels [H, W, 3] to the model's input and scales them to [0, 1].

        The code multiplies by 1 / 255 because TensorFlow may replace a division by this
        multiplication, which rounds differently.
        """
        x = tf.image.resize(
            pixels,
            (self.height, self.width),
            method=self.interpolation,
            antialias=antialias,
        )
        x = tf.ensure_shape(x, (self.height, self.width, 3))
        return tf.clip_by_value(x * _TO_UNIT, 0.0, 1.0)


def mirror(image: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Flips an image [H, W, 3] horizontally if the scalar bool `mirrored` is true."""
    # `tf.where` would broadcast the condition, which takes longer.
    return tf.raw_ops.Select(condition=mirrored, x=tf.reverse(image, axis=[1]), y=image)


def shift(image: tf.Tensor, seed: tf.Tensor, *, margin: int) -> tf.Tensor:
    """Shifts an image [H, W, 3] randomly by up to `margin` pixels, padding with black.

    Source: arXiv:1512.03385, section 4.2.
    """
    padded = tf.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return typing.cast(
        tf.Tensor, tf.image.stateless_random_crop(padded, tf.shape(image), seed)
    )


def bytes_signature(
    preprocess: Callable[[tf.Tensor], tf.Tensor],
    function: Callable[[tf.Tensor], tf.Tensor],
) -> typing.Any:
    """Builds the signature `image_bytes` of a model, as a concrete function.

    Args:
      preprocess: callable that `Preprocessing.named_callable` returns.
      function: maps images [B, H, W, 3] to the model's output.

    Returns:
      A function that maps `image_bytes` [B] strings to a dict whose key `default` has
      the model's output.
    """

    @tf.function(input_signature=[_BYTES], autograph=False)
    def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(preprocess(image_bytes))}

    return signature.get_concrete_function()
