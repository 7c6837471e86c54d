"""Data augmentation: crop, flip, RandAugment, MixUp and CutMix."""

from __future__ import annotations

import dataclasses
import functools
import typing

import gin
import tensorflow as tf

from images import model_input
from training.data import randomness
from zoo import spec as specs

CROPS = ("inception", "pad", "central")
SEEDS = 3
"""Number of random seeds an image needs: for crop, flip and RandAugment."""
_MAX_MAGNITUDE = 10.0  # of RandAugment in keras-cv


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crop -> flip -> RandAugment for an image; MixUp or CutMix for a batch.

    Args:
      crop: `inception` crops a random area with a random aspect ratio and resizes it
        (arXiv:1409.4842, section 6); `pad` shifts the resized image by up to `pad` of
        its side and fills the border with black (arXiv:1512.03385, section 4.2);
        `central` crops the center, as in evaluation.
      area: (smallest, largest) fraction of the image that `inception` keeps.
      aspect: (smallest, largest) ratio of width to height of the `inception` crop.
      pad: largest shift of the `pad` crop, as a fraction of the image's side.
      flip: whether to mirror a random half of the images left to right.
      rand_augment_layers: number of RandAugment operations per image
        (arXiv:1909.13719); 0 disables RandAugment.
      rand_augment_magnitude: strength of these operations, in [0, 30]. The keras-cv
        scale ends at 10: larger values have the same effect as 10.
      mixup_alpha: parameter of MixUp's beta distribution (arXiv:1710.09412); 0 disables
        MixUp.
      cutmix_alpha: parameter of CutMix's beta distribution (arXiv:1905.04899); 0
        disables CutMix. If both are enabled, each mixed batch uses one of them.
      mix_share: fraction of the batches that are mixed.
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
        specs.check_types(self, package="training")
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
                    f"training.Augmentation.{name} must be (smallest, largest), above "
                    f"0 and at most {most:g}, not {(low, high)}."
                )

    def image(
        self,
        image: tf.Tensor,
        seeds: tf.Tensor,
        *,
        kind: model_input.Kind,
        preprocessing: model_input.Preprocessing,
    ) -> tf.Tensor:
        """Crops and augments one image for training.

        Args:
          image: the image, in the form given by `kind`.
          seeds: [SEEDS, 2] integers that determine all random choices.
          kind: the form of `image`: an encoded file or pixels.
          preprocessing: the preprocessing used in evaluation.

        Returns:
          [height, width, 3] float32 in [0, 1], with the size set by `preprocessing`.
        """
        crop_seed, flip_seed, rand_augment_seed = tf.unstack(seeds)
        if self.crop == "inception":
            x = preprocessing.random_crop(
                image, crop_seed, kind=kind, area=self.area, aspect=self.aspect
            )
        else:
            x = preprocessing.central_crop(image, kind)
        if self.crop == "pad":
            margin = round(preprocessing.height * self.pad)
            x = model_input.shift(x, crop_seed, margin=margin)
        if self.flip:
            is_mirrored = tf.random.stateless_uniform([], flip_seed) < 0.5
            x = model_input.mirror(x, is_mirrored)
        if self.rand_augment_layers:
            keras_cv = _keras_cv()
            with randomness.drawn_from(rand_augment_seed):
                x = keras_cv.layers.RandAugment(
                    value_range=(0, 1),
                    augmentations_per_image=self.rand_augment_layers,
                    magnitude=min(1.0, self.rand_augment_magnitude / _MAX_MAGNITUDE),
                )(x)
            x = tf.clip_by_value(x, 0.0, 1.0)
        return tf.ensure_shape(x, (preprocessing.height, preprocessing.width, 3))

    @property
    def mixes(self) -> bool:
        """Whether `batch` changes its inputs: MixUp or CutMix is enabled."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

    def batch(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies MixUp or CutMix to images [B, H, W, 3] and labels [B, K]."""
        mixers = []
        if self.mixup_alpha:
            mixers.append(functools.partial(_mix_up, alpha=self.mixup_alpha))
        if self.cutmix_alpha:
            mixers.append(functools.partial(_cut_mix, alpha=self.cutmix_alpha))
        if not mixers:
            return images, labels
        seeds = tf.unstack(tf.random.split(seed, 1 + len(mixers)))
        draw = tf.random.stateless_uniform([], seeds[0])
        result = (images, labels)
        for number, mixer in enumerate(mixers):
            with randomness.drawn_from(seeds[1 + number]):
                mixed = mixer(images, labels)
            is_chosen = draw < self.mix_share * (1 - number / len(mixers))
            result = tuple(map(functools.partial(tf.where, is_chosen), mixed, result))
        return result


def _mix_up(images: tf.Tensor, labels: tf.Tensor, alpha: float) -> tuple:
    mixed = _keras_cv().layers.MixUp(alpha=alpha)({"images": images, "labels": labels})
    return mixed["images"], mixed["labels"]


def _cut_mix(images: tf.Tensor, labels: tf.Tensor, alpha: float) -> tuple:
    """Applies CutMix and weights the labels by the visible pixels.

    keras-cv 0.9 weights the labels by the whole patch, even if a part of the patch lies
    outside the image. Here, a mask records the source image of each pixel instead.
    """
    indices = tf.range(tf.shape(images)[0], dtype=images.dtype)[:, None, None, None]
    sources = tf.broadcast_to(indices, tf.shape(images[..., :1]))
    layer = _keras_cv().layers.CutMix(alpha=alpha)
    mixed = layer({"images": images, "segmentation_masks": sources})
    sources = mixed["segmentation_masks"]
    is_unchanged = sources == indices
    share = tf.reduce_mean(tf.cast(is_unchanged, labels.dtype), axis=(1, 2))
    patch_index = tf.reduce_max(tf.where(is_unchanged, 0.0, sources), axis=(1, 2, 3))
    patch_labels = tf.gather(labels, tf.cast(patch_index, tf.int32))
    return mixed["images"], share * labels + (1.0 - share) * patch_labels


def _keras_cv() -> typing.Any:
    try:
        import keras_cv
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup train") from None
    return keras_cv
