"""EfficientNet: squeeze-excite inverted bottlenecks, scaled in three dimensions.

Source: Tan and Le, arXiv:1905.11946, Table 1 and section 3. Reference code:
`models/official/efficientnet` of the TensorFlow TPU repository.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import gin
import keras

from zoo import spec
from zoo.efficientnet import blocks
from zoo.layers import conv_norm, rounding


class Stage(typing.NamedTuple):
    """One row of Table 1; the paper's stages 2 to 8 are stages 1 to 7 here."""

    expansion_ratio: int
    channels: int
    blocks: int
    strides: int
    kernel_size: int


# Table 1 without stem and head. Right: output resolution at 224 px.
STAGES = (
    Stage(expansion_ratio=1, channels=16, blocks=1, strides=1, kernel_size=3),  # 112
    Stage(expansion_ratio=6, channels=24, blocks=2, strides=2, kernel_size=3),  # 56
    Stage(expansion_ratio=6, channels=40, blocks=2, strides=2, kernel_size=5),  # 28
    Stage(expansion_ratio=6, channels=80, blocks=3, strides=2, kernel_size=3),  # 14
    Stage(expansion_ratio=6, channels=112, blocks=3, strides=1, kernel_size=5),  # 14
    Stage(expansion_ratio=6, channels=192, blocks=4, strides=2, kernel_size=5),  # 7
    Stage(expansion_ratio=6, channels=320, blocks=1, strides=1, kernel_size=3),  # 7
)
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNet(spec.BackboneSpec):
    """3×3 stem -> seven stages of MBConv blocks -> 1×1 conv -> average pool.

    SiLU and drop path are from section 5.2, not from Table 1.

    Args:
      width_multiplier: scales all channels, 1 to 2 as published.
      depth_multiplier: scales the repeats of all stages, 1 to 3.1 as published.
      image_size: pixels, 224 to 600 as published.
      activation: name of a Keras activation.
      se_ratio: squeeze channels ÷ the block's input channels; 0 for no squeeze-excite.
      fixed_ends: do not scale the channels of the stem and the last convolution, nor
        the repeats of the first and the last stage.
      drop_path_rate: limit towards which the rate of the blocks grows linearly, from 0
        at the first.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      padding: see `conv_norm.Style`; weights trained in PyTorch need `symmetric`.
      stages: the rows of Table 1.
    """

    width_multiplier: float
    depth_multiplier: float
    image_size: int
    activation: str = "silu"
    se_ratio: float = 0.25
    fixed_ends: bool = False
    drop_path_rate: float = 0.2
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Table 1, top to bottom; `feature_vector` is [B, 1280] at width 1."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            self._end(STEM_CHANNELS), kernel_size=3, strides=2, style=style, name="stem"
        )(images)
        endpoints["stem"] = x
        depths = [self._depth(number) for number in range(1, len(self.stages) + 1)]
        position = 0
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, depths[number - 1] + 1):
                x = blocks.mbconv(
                    x,
                    channels=self._width(stage.channels),
                    expansion_ratio=stage.expansion_ratio,
                    kernel_size=stage.kernel_size,
                    strides=stage.strides if block == 1 else 1,
                    se_ratio=self.se_ratio,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                    drop_path_rate=self.drop_path_rate * position / sum(depths),
                )
                position += 1
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            self._end(FEATURE_CHANNELS), kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="efficientnet")

    def _width(self, channels: int) -> int:
        return rounding.round_channels(channels * self.width_multiplier)

    def _end(self, channels: int) -> int:
        return channels if self.fixed_ends else self._width(channels)

    def _depth(self, number: int) -> int:
        """Returns the number of blocks of a stage."""
        repeats = self.stages[number - 1].blocks
        if self.fixed_ends and number in (1, len(self.stages)):
            return repeats
        return math.ceil(repeats * self.depth_multiplier)

    def _style(self) -> conv_norm.Style:
        return blocks.style(
            activation=self.activation,
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            padding=self.padding,
        )
