"""From an image to what a training step sees of it."""

from __future__ import annotations

import dataclasses
import functools
import typing

import gin
import tensorflow as tf

from training.data import randomness
from zoo import inputs
from zoo import spec as specs

CROPS = ("inception", "pad", "central")
_STRONGEST = 10.0  # of RandAugment's scale
_TRIES = 10


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crop -> flip -> RandAugment, of an image; MixUp or CutMix, of a batch.

    Args:
      crop: `inception` is a random part of random shape, resized (arXiv:1409.4842,
        section 6); `pad` moves the resized image by up to `pad` of its side, black
        coming in (arXiv:1512.03385, section 4.2); `central` is what evaluation does.
      area: least and largest share of the image that `inception` keeps.
      aspect: its least and largest ratio of width to height.
      pad: see `crop`.
      flip: whether half of the images are mirrored, left to right.
      rand_augment_layers: operations of RandAugment on each image (arXiv:1909.13719);
        0 is none.
      rand_augment_magnitude: their strength, in [0, 30]; keras-cv knows none beyond 10,
        which is what more amounts to.
      mixup_alpha: of MixUp's beta distribution (arXiv:1710.09412); 0 is none.
      cutmix_alpha: of CutMix's (arXiv:1905.04899); 0 is none. With both, each batch
        has one of them.
      mix_share: of the batches that are mixed.
    """

    crop: str = "central"
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    pad: float = 0.125
    flip: bool = False
    rand_augment_layers: int = 0
    rand_augment_magnitude: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_share: float = 1.0

    def __post_init__(self) -> None:
        specs.check_kinds(self, room="training")
        if self.crop not in CROPS:
            raise ValueError(
                f"training.Augmentation.crop must be one of {', '.join(CROPS)}, not "
                f"{self.crop!r}."
            )
        for name, high in (
            ("pad", 1.0),
            ("rand_augment_magnitude", 30.0),
            ("mixup_alpha", 100.0),
            ("cutmix_alpha", 100.0),
            ("mix_share", 1.0),
        ):
            value = getattr(self, name)
            specs.check_range(f"training.Augmentation.{name}", value, 0.0, high)
        layers = self.rand_augment_layers
        specs.check_range("training.Augmentation.rand_augment_layers", layers, 0, 100)
        for name, most in (("area", 1.0), ("aspect", 100.0)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                raise ValueError(
                    f"training.Augmentation.{name} must be (least, largest) above 0, "
                    f"up to {most:g}, not {(low, high)}."
                )

    def image(
        self,
        image: tf.Tensor,
        seed: tf.Tensor,
        *,
        is_encoded: bool,
        size: int,
        preprocessing: inputs.Preprocessing,
    ) -> tf.Tensor:
        """One image as training sees it.

        Args:
          image: pixels [H, W, 3] uint8, or the bytes of a file.
          seed: [2] int32, which decides on all that is random.
          is_encoded: whether it is a file.
          size: height and width of the result.
          preprocessing: what evaluation does.

        Returns:
          [size, size, 3] float32 in [0, 1].
        """
        seeds = tf.random.split(seed, 3)
        if self.crop == "inception":
            x = _part(image, seeds[0], is_encoded, self.area, self.aspect)
            x = _quickly_resized(x, (size, size), preprocessing.interpolation)
        else:
            x = evaluated(
                image, is_encoded=is_encoded, size=size, preprocessing=preprocessing
            )
        if self.crop == "pad":
            x = _moved(x, seeds[0], margin=round(size * self.pad))
        if self.flip:
            x = tf.image.stateless_random_flip_left_right(x, seeds[1])
        if self.rand_augment_layers:
            keras_cv = _keras_cv()
            with randomness.drawn_from(seeds[2]):
                x = keras_cv.layers.RandAugment(
                    value_range=(0, 1),
                    augmentations_per_image=self.rand_augment_layers,
                    magnitude=min(1.0, self.rand_augment_magnitude / _STRONGEST),
                )(x)
        return tf.clip_by_value(tf.reshape(x, (size, size, 3)), 0.0, 1.0)

    def batch(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images [B, H, W, 3] and labels [B, K] with each other mixed in."""
        mixers = []
        if self.mixup_alpha:
            mixers.append(functools.partial(_mixed_up, alpha=self.mixup_alpha))
        if self.cutmix_alpha:
            mixers.append(functools.partial(_cut_and_mixed, alpha=self.cutmix_alpha))
        if not mixers:
            return images, labels
        seeds = tf.unstack(tf.random.split(seed, 1 + len(mixers)))
        draw = tf.random.stateless_uniform([], seeds[0])
        found = (images, labels)
        for number, mixer in enumerate(mixers):
            with randomness.drawn_from(seeds[1 + number]):
                mixed = mixer(images, labels)
            is_chosen = draw < self.mix_share * (1 - number / len(mixers))
            found = tuple(map(functools.partial(tf.where, is_chosen), mixed, found))
        return found


def evaluated(
    image: tf.Tensor,
    *,
    is_encoded: bool,
    size: int,
    preprocessing: inputs.Preprocessing,
) -> tf.Tensor:
    """The central square of an image, resized: [size, size, 3] float32 in [0, 1].

    Source: `_decode_and_center_crop` of the TPU EfficientNet code, for its place.
    """
    pixels = _decoded(image) if is_encoded else image
    height, width = tf.unstack(tf.shape(pixels)[:2])
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(1, tf.cast(shorter * preprocessing.crop_fraction, tf.int32))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    x = tf.image.crop_to_bounding_box(pixels, top, left, side, side)
    x = _resized(x, (size, size), preprocessing.interpolation)
    return tf.clip_by_value(tf.reshape(x, (size, size, 3)), 0.0, 1.0)


def _decoded(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _resized(pixels: tf.Tensor, size: tuple[int, int], method: str) -> tf.Tensor:
    """Resized with antialiasing, to [0, 1]."""
    x = tf.image.resize(pixels, size, method=method, antialias=True)
    return x / 255.0


def _quickly_resized(
    pixels: tf.Tensor, size: tuple[int, int], method: str
) -> tf.Tensor:
    """As `_resized`; but what shrinks to no less than a half is not antialiased.

    It takes a third of the time, and at that scale the kernel still sees each pixel.
    """
    is_large = tf.reduce_any(tf.shape(pixels)[:2] > 2 * tf.constant(size))
    return tf.cond(
        is_large,
        lambda: _resized(pixels, size, method),
        lambda: tf.image.resize(pixels, size, method=method) / 255.0,
    )


def _part(
    image: tf.Tensor,
    seed: tf.Tensor,
    is_encoded: bool,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tf.Tensor:
    """Pixels of a random part; of a JPEG file, only these are decoded."""
    if is_encoded:
        is_jpeg = tf.io.is_jpeg(image)
        shape = tf.cond(
            is_jpeg,
            lambda: tf.io.extract_jpeg_shape(image),
            lambda: tf.shape(_decoded(image)),
        )
    else:
        shape = tf.shape(image)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=aspect,
        area_range=area,
        max_attempts=_TRIES,
        use_image_if_no_bounding_boxes=True,
    )
    top, left, _ = tf.unstack(begin)
    height, width, _ = tf.unstack(extent)
    if not is_encoded:
        return tf.image.crop_to_bounding_box(image, top, left, height, width)
    window = tf.stack([top, left, height, width])
    return tf.cond(
        is_jpeg,
        lambda: tf.io.decode_and_crop_jpeg(image, window, channels=3),
        lambda: tf.image.crop_to_bounding_box(
            _decoded(image), top, left, height, width
        ),
    )


def _moved(x: tf.Tensor, seed: tf.Tensor, *, margin: int) -> tf.Tensor:
    padded = tf.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    return tf.image.stateless_random_crop(padded, tf.shape(x), seed)


def _mixed_up(images: tf.Tensor, labels: tf.Tensor, alpha: float) -> tuple:
    mixed = _keras_cv().layers.MixUp(alpha=alpha)({"images": images, "labels": labels})
    return mixed["images"], mixed["labels"]


def _cut_and_mixed(images: tf.Tensor, labels: tf.Tensor, alpha: float) -> tuple:
    """CutMix with the labels of what is seen.

    keras-cv 0.9's own are those of the whole patch, also where a part of it is beyond
    the border; so each pixel says here whose it is.
    """
    own = tf.range(tf.shape(images)[0], dtype=images.dtype)[:, None, None, None]
    owners = tf.broadcast_to(own, tf.shape(images[..., :1]))
    layer = _keras_cv().layers.CutMix(alpha=alpha)
    mixed = layer({"images": images, "segmentation_masks": owners})
    owners = mixed["segmentation_masks"]
    is_own = owners == own
    kept = tf.reduce_mean(tf.cast(is_own, labels.dtype), axis=(1, 2))
    other = tf.reduce_max(tf.where(is_own, 0.0, owners), axis=(1, 2, 3))
    others = tf.gather(labels, tf.cast(other, tf.int32))
    return mixed["images"], kept * labels + (1.0 - kept) * others


def _keras_cv() -> typing.Any:
    try:
        import keras_cv
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup train") from None
    return keras_cv
