"""Upright pixels -> a model's input: the central part, resized; or a random part."""

from __future__ import annotations

import dataclasses
import enum
import operator
import typing
from collections.abc import Callable

import tensorflow as tf

from images import decoding, jpeg

INTERPOLATIONS = {"bilinear": "triangle", "bicubic": "keyscubic"}
"""By name, the kernel of TensorFlow's op that is Pillow's."""
LARGEST_SIZE = 4096  # pixels
_TO_UNIT = 1 / 255
_BYTES = tf.TensorSpec([None], tf.string, "image_bytes")
_TRIES = 10  # to draw a window of the wanted area and shape
_LARGE = 2.5  # times the input's side, from which on random parts are antialiased


class Kind(enum.IntEnum):
    """What is known of an image before a graph reads it.

    Attributes:
      JPEG: it is the bytes of a plain JPEG file, see `jpeg.plain_size`; scalar string.
      LARGE_JPEG: those of one that is much larger than the model's input.
      FILE: those of any file.
      PIXELS: it is pixels, [H, W, 3] uint8.
    """

    JPEG = 0
    LARGE_JPEG = 1
    FILE = 2
    PIXELS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photograph becomes a model's input.

    Args:
      height: of the input, in pixels.
      width: of the input, in pixels.
      crop_fraction: share of the largest central part of the input's shape that is
        kept; in (0, 1].
      interpolation: `bilinear` or `bicubic`; shrinking antialiases.
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
        """Decode -> central crop -> resize -> [0, 1].

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
        """Of an image file."""
        size = jpeg.plain_size(data)
        if size is None:
            return Kind.FILE
        is_large = any(map(operator.gt, size, self._most()))
        return Kind.LARGE_JPEG if is_large else Kind.JPEG

    def _most(self) -> tuple[float, float]:
        """The height and width beyond which an image is large."""
        return _LARGE * self.height, _LARGE * self.width

    def central(self, image: tf.Tensor, kind: Kind) -> tf.Tensor:
        """What `read` gives, of an image of any kind."""
        if kind == Kind.FILE:
            return self.read(image)
        if kind == Kind.PIXELS:
            return self.from_pixels(image)
        return self.from_pixels(decoding.decode_jpeg(image))

    def from_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """Central crop -> resize -> [0, 1].

        Source: `_decode_and_center_crop` of the TPU EfficientNet code, for the place
        of the crop: (side - crop + 1) // 2.

        Args:
          pixels: [H, W, 3] uint8.

        Returns:
          [height, width, 3] float32 in [0, 1].
        """
        size = tf.shape(pixels)[:2]
        sides = tf.cast(size, tf.float32)
        height = tf.minimum(sides[0], sides[1] * (self.height / self.width))
        width = tf.minimum(sides[1], sides[0] * (self.width / self.height))
        kept = tf.cast(tf.stack([height, width]) * self.crop_fraction, tf.int32)
        kept = tf.maximum(kept, 1)
        corner = (size - kept + 1) // 2
        x = decoding.crop(pixels, tf.concat([corner, kept], axis=0))
        return self._resize_as_pillow(x)

    def random_part(
        self,
        image: tf.Tensor,
        seed: tf.Tensor,
        *,
        kind: Kind,
        area: tuple[float, float],
        aspect: tuple[float, float],
    ) -> tf.Tensor:
        """A random part of random shape, resized: Inception's crop.

        Source: arXiv:1409.4842, section 6. Parts of an image of up to two and a half
        times the input's size are not antialiased: that takes a third of the time, and
        at such a scale the interpolation still sees most pixels.

        Args:
          image: of a kind.
          seed: [2] integers; the part follows from it.
          kind: what is known of the image.
          area: least and largest share of the image that is kept.
          aspect: least and largest ratio of width to height.

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
            part = decoding.crop(image, choose(size))
        elif kind == Kind.FILE:
            part, size = decoding.decode_window(image, choose)
        else:
            window = choose(decoding.jpeg_size(image))
            part = decoding.decode_jpeg_window(image, window)
        if kind in (Kind.JPEG, Kind.LARGE_JPEG):
            return self._resize(part, antialias=kind == Kind.LARGE_JPEG)
        return tf.cond(
            tf.reduce_any(tf.cast(size, tf.float32) > self._most()),
            lambda: self._resize(part, antialias=True),
            lambda: self._resize(part, antialias=False),
        )

    def named_callable(self) -> typing.Any:
        """`read` of several files, as the part `preprocess` of a SavedModel.

        It holds TensorFlow's own ops alone, and no variables.

        Returns:
          An object whose `__call__` takes `image_bytes` [B] strings to [B, height,
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

        traced = preprocess.get_concrete_function()  # once for all that call it
        part = tf.__internal__.tracking.AutoTrackable()
        part.__call__ = tf.function(traced, input_signature=[_BYTES], autograph=False)
        part.variables, part.trainable_variables = [], []
        part.regularization_losses = []
        return part

    def _resize_as_pillow(self, pixels: tf.Tensor) -> tf.Tensor:
        """Gives what Pillow's `resize` does: most published weights were measured so.

        Pillow resizes the rows, then the columns, and rounds to 8 bits after each. An
        image's second class may be another without the rounding.

        Source: `ImagingResampleInner` in Pillow's `Resample.c`.
        """
        height, width = tf.unstack(tf.shape(pixels)[:2])
        x = tf.cast(pixels, tf.float32)
        x = self._resample(tf.reshape(x, (height, 1, width, 3)), (1, self.width))
        x = tf.reshape(x, (1, height, 1, self.width * 3))
        x = self._resample(x, (self.height, 1))
        return tf.reshape(x, (self.height, self.width, 3)) * _TO_UNIT

    def _resample(self, images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        """Resizes images [B, H, W, C] with antialiasing, and rounds to 8 bits."""
        x = tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=size,
            scale=size / tf.cast(tf.shape(images)[1:3], tf.float32),
            translation=(0.0, 0.0),
            kernel_type=INTERPOLATIONS[self.interpolation],
            antialias=True,
        )
        return tf.clip_by_value(tf.floor(x + 0.5), 0, 255)

    def _resize(self, pixels: tf.Tensor, *, antialias: bool) -> tf.Tensor:
        """Multiplies, where TensorFlow may replace a division by just that."""
        x = tf.image.resize(
            pixels,
            (self.height, self.width),
            method=self.interpolation,
            antialias=antialias,
        )
        x = tf.ensure_shape(x, (self.height, self.width, 3))
        return tf.clip_by_value(x * _TO_UNIT, 0.0, 1.0)


def mirror(image: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """An image [H, W, 3], or what a mirror shows of it, by a scalar bool."""
    # `tf.where` would broadcast the condition, which takes longer.
    return tf.raw_ops.Select(condition=mirrored, x=tf.reverse(image, axis=[1]), y=image)


def shift(image: tf.Tensor, seed: tf.Tensor, *, margin: int) -> tf.Tensor:
    """Moves an image [H, W, 3] by up to `margin` pixels, black coming in.

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
    """The signature `image_bytes` of a model, as a concrete function.

    Args:
      preprocess: as `Preprocessing.named_callable` gives it.
      function: from images [B, H, W, 3] to the model's result.

    Returns:
      From `image_bytes` [B] strings to a dict with the result under `default`.
    """

    @tf.function(input_signature=[_BYTES], autograph=False)
    def signature(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(preprocess(image_bytes))}

    return signature.get_concrete_function()
