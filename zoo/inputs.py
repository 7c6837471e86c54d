"""Preprocessing of images, and their normalisation inside the model.

Messages call these values `model.NAME`, as gin files do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from zoo import spec as specs

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """Normalisation inside the model: (255 · x - mean) / std for images in [0, 1].

    Args:
      mean: number to subtract, on the scale 0 to 255: one, or one per RGB channel.
      std: number to divide by, on the same scale: one, or one per RGB channel.
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __post_init__(self) -> None:
        for name, low in (("mean", -1e6), ("std", 1e-6)):
            value = getattr(self, name)
            channels = value if isinstance(value, (tuple, list)) else [value]
            if len(channels) not in (1, 3):
                raise ValueError(f"model.{name} must be 1 or 3 numbers, not {value!r}.")
            for number in channels:
                specs.check_range(f"model.{name}", number, low, 1e6)

    def layer(self) -> keras.layers.Layer:
        """Returns the normalisation as a layer without variables."""
        mean = np.asarray(self.mean, np.float64)
        std = np.asarray(self.std, np.float64)
        return keras.layers.Rescaling(
            scale=(255.0 / std).tolist(),
            offset=(-mean / std).tolist(),
            name="normalize",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images are cropped and resized; `images.model_input` does it.

    Args:
      crop_fraction: share of the shorter side that the central square crop keeps.
      interpolation: how to resize the crop to the backbone's `image_size`: `bilinear`
        or `bicubic`.
    """

    crop_fraction: float
    interpolation: str

    def __post_init__(self) -> None:
        specs.check_range("model.crop_fraction", self.crop_fraction, 0.01, 1.0)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"model.interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"not {self.interpolation!r}."
            )
