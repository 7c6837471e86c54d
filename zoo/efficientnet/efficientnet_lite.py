"""EfficientNet-Lite: EfficientNet without squeeze-excite, ReLU6 instead of SiLU.

Source: `models/official/efficientnet/lite` of the TensorFlow TPU repository (README
and `efficientnet_lite_builder.py`), on Tan and Le, arXiv:1905.11946, Table 1.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, inverted_bottleneck, rounding


class Stage(typing.NamedTuple):
    """One row of Table 1 (stages 2 to 8 there, 1 to 7 here)."""

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
class EfficientNetLite(spec.BackboneSpec):
    """3×3 stem -> seven stages of inverted bottlenecks -> 1×1 conv -> average pool.

    Args:
      width_multiplier: scales the stages' channels; stem and last convolution keep
        theirs.
      depth_multiplier: scales the repeats of all stages but the first and last.
      image_size: pixels.
      drop_path_rate: of the deepest block; it grows linearly from 0 at the first.
      batch_norm_momentum: share of the old statistics kept in a training step.
      batch_norm_epsilon: added to the variance.
      stages: rows of Table 1.
    """

    width_multiplier: float
    depth_multiplier: float
    image_size: int
    drop_path_rate: float = 0.2
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Source: Table 1, top to bottom; `feature_vector` is [B, 1280]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=3, strides=2, style=style, name="stem"
        )(images)
        endpoints["stem"] = x
        depths = [self._depth(number) for number in range(1, len(self.stages) + 1)]
        position = 0
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, depths[number - 1] + 1):
                x = inverted_bottleneck.inverted_bottleneck(
                    x,
                    channels=rounding.round_channels(
                        stage.channels * self.width_multiplier
                    ),
                    hidden_channels=x.shape[-1] * stage.expansion_ratio,
                    kernel_size=stage.kernel_size,
                    strides=stage.strides if block == 1 else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                    drop_path_rate=self.drop_path_rate * position / sum(depths),
                )
                position += 1
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            FEATURE_CHANNELS, kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="efficientnet_lite")

    def _depth(self, number: int) -> int:
        """Blocks of a stage; `fix_head_stem` keeps the first and the last as is."""
        blocks = self.stages[number - 1].blocks
        if number in (1, len(self.stages)):
            return blocks
        return math.ceil(blocks * self.depth_multiplier)

    def _style(self) -> conv_norm.Style:
        # conv_kernel_initializer of the TPU code: normal, variance 2 / fan_out, where
        # a depthwise kernel has a fan_out of its height times its width.
        initializer = keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_out", distribution="untruncated_normal"
        )
        return conv_norm.Style(
            activation="relu6",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
        )
