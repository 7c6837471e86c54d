"""SqueezeNet: fire modules of a narrow 1×1 and wide 1×1 and 3×3 convolutions.

Source: Iandola et al., arXiv:1602.07360, Figure 1 and Table 1. Version 1.1 is that of
the authors' repository, forresti/SqueezeNet. Reference code: torchvision.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, dropping


class Fire(typing.NamedTuple):
    """A fire module; the fields are the columns s1x1, and e1x1 = e3x3, of Table 1."""

    squeeze: int
    expand: int


# Table 1. Right: output resolution at 224 px of versions 1.0 and 1.1.
FIRE_MODULES = {
    "fire2": Fire(squeeze=16, expand=64),  # 54 × 54, 55 × 55
    "fire3": Fire(squeeze=16, expand=64),  # 54 × 54, 55 × 55
    "fire4": Fire(squeeze=32, expand=128),  # 54 × 54, 27 × 27
    "fire5": Fire(squeeze=32, expand=128),  # 27 × 27, 27 × 27
    "fire6": Fire(squeeze=48, expand=192),  # 27 × 27, 13 × 13
    "fire7": Fire(squeeze=48, expand=192),  # 27 × 27, 13 × 13
    "fire8": Fire(squeeze=64, expand=256),  # 27 × 27, 13 × 13
    "fire9": Fire(squeeze=64, expand=256),  # 13 × 13, 13 × 13
}


@gin.register(denylist=["fire_modules"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeNet(spec.BackboneSpec):
    """Stem -> three stages, each a max pool and fire modules -> average pool.

    The classifier does not read the feature vector: its head is a convolution of the
    feature map, and the mean over positions comes last.

    Args:
      image_size: pixels; the smallest size is 21 in version 1.0, and 17 in 1.1.
      stem_channels: filters of conv1.
      stem_kernel_size: height and width of conv1's kernel, pixels.
      stage_starts: the three fire modules that follow a max pool, such as `fire2`.
      fire_modules: the rows of Table 1.

    Deviations:
      conv1 pads nothing, as in the authors' code and torchvision; with the authors'
      images of 227 px its output has the 111 px of Table 1.
      conv10 pads nothing, as in torchvision; the authors' code of version 1.0 pads 1.
      The feature vector, the mean of fire9 over all positions, is not in the paper.
    """

    image_size: int
    stem_channels: int
    stem_kernel_size: int
    stage_starts: tuple[str, ...]
    fire_modules: Mapping[str, Fire] = dataclasses.field(
        default_factory=lambda: FIRE_MODULES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("SqueezeNet.stem_channels", self.stem_channels, 1, 4096)
        spec.check_range("SqueezeNet.stem_kernel_size", self.stem_kernel_size, 1, 31)
        names = list(self.fire_modules)
        starts = [name for name in names if name in self.stage_starts]
        if starts[:1] != names[:1] or starts != list(self.stage_starts):
            raise ValueError(
                f"SqueezeNet.stage_starts must be some of {', '.join(names)}, in this "
                f"order, the first one included, not {self.stage_starts!r}."
            )

    def build(self) -> keras.Model:
        """Builds the network; `feature_vector` is [B, 512] float32.

        Beside the stages, the endpoints are `stem`, conv1 before its max pool, and the
        fire modules by the paper's names.
        """
        images = keras.Input((None, None, 3), name="images")
        x = _convolution(self.stem_channels, self.stem_kernel_size, 2, name="stem")(
            images
        )
        endpoints = {"stem": x}
        stage = block = 0
        for name, module in self.fire_modules.items():
            if name in self.stage_starts:
                stage, block = stage + 1, 0
                x = _max_pool(x, name=f"stage_{stage}")
            block += 1
            x = _fire(x, module, name=f"stage_{stage}_block_{block}")
            endpoints[name] = endpoints[f"stage_{stage}"] = x
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="squeezenet")

    def build_head(
        self,
        endpoints: Mapping[str, keras.KerasTensor],
        *,
        num_classes: int,
        dropout_rate: float,
    ) -> keras.Model:
        """Builds the head: dropout -> 1×1 conv (conv10) -> ReLU -> average pool."""
        channels = endpoints["feature_map"].shape[-1]
        features = keras.Input((None, None, channels), name="feature_map")
        x = dropping.Dropout(dropout_rate, name="dropout")(features)
        x = keras.layers.Conv2D(
            num_classes,
            1,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="logits",
        )(x)
        mean = keras.layers.GlobalAveragePooling2D(name="logits_mean")(x)
        return keras.Model(features, mean, name="head")


def _fire(x: keras.KerasTensor, module: Fire, *, name: str) -> keras.KerasTensor:
    """1×1 conv -> 1×1 and 3×3 conv, side by side; a ReLU after each convolution."""
    x = _convolution(module.squeeze, 1, name=f"{name}_squeeze")(x)
    expanded = [
        _convolution(module.expand, 1, name=f"{name}_expand_1x1")(x),
        _convolution(module.expand, 3, name=f"{name}_expand_3x3")(x),
    ]
    return keras.layers.Concatenate(name=name)(expanded)


def _convolution(
    filters: int, kernel_size: int, strides: int = 1, *, name: str
) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding="same" if strides == 1 else "valid",
        activation="relu",
        kernel_initializer=conv_norm.clone_initializer("lecun_uniform"),
        name=name,
    )


def _max_pool(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """3×3 max pool with stride 2, whose last window may reach beyond the border.

    After ReLU, zeros there are never the maximum.
    """
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)
