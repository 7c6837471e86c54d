"""From an image to what a training step sees of it."""

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
"""How many an image needs: for its part, for the mirror, for RandAugment."""
_STRONGEST = 10.0  # of RandAugment's scale


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
        seeds: tf.Tensor,
        *,
        kind: model_input.Kind,
        preprocessing: model_input.Preprocessing,
    ) -> tf.Tensor:
        """Crops and changes one image for training.

        Args:
          image: of a kind.
          seeds: [SEEDS, 2] integers; all that is random follows from them.
          kind: what is known of the image.
          preprocessing: what evaluation does.

        Returns:
          [height, width, 3] float32 in [0, 1], of the size that `preprocessing` gives.
        """
        of_part, of_mirror, of_layers = tf.unstack(seeds)
        if self.crop == "inception":
            x = preprocessing.random_part(
                image, of_part, kind=kind, area=self.area, aspect=self.aspect
            )
        else:
            x = preprocessing.central(image, kind)
        if self.crop == "pad":
            margin = round(preprocessing.height * self.pad)
            x = model_input.shift(x, of_part, margin=margin)
        if self.flip:
            is_mirrored = tf.random.stateless_uniform([], of_mirror) < 0.5
            x = model_input.mirror(x, is_mirrored)
        if self.rand_augment_layers:
            keras_cv = _keras_cv()
            with randomness.drawn_from(of_layers):
                x = keras_cv.layers.RandAugment(
                    value_range=(0, 1),
                    augmentations_per_image=self.rand_augment_layers,
                    magnitude=min(1.0, self.rand_augment_magnitude / _STRONGEST),
                )(x)
            x = tf.clip_by_value(x, 0.0, 1.0)
        return tf.ensure_shape(x, (preprocessing.height, preprocessing.width, 3))

    @property
    def mixes(self) -> bool:
        """Whether `batch` does anything."""
        return bool(self.mixup_alpha or self.cutmix_alpha)

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
