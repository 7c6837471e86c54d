"""MobileNetV2: inverted bottlenecks with linear projections.

Source: Sandler et al., arXiv:1801.04381, section 4 and Table 2. Reference code:
TF-Slim's `nets/mobilenet/mobilenet_v2.py`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, inverted_bottleneck, rounding, truncated_normal


class Stage(typing.NamedTuple):
    """One row of Table 2; the fields are the paper's t, c, n and s."""

    expansion_ratio: int
    channels: int
    blocks: int
    strides: int


# Table 2 without its first and last rows. Right: output resolution at 224 px.
STAGES = (
    Stage(expansion_ratio=1, channels=16, blocks=1, strides=1),  # 112 × 112
    Stage(expansion_ratio=6, channels=24, blocks=2, strides=2),  # 56 × 56
    Stage(expansion_ratio=6, channels=32, blocks=3, strides=2),  # 28 × 28
    Stage(expansion_ratio=6, channels=64, blocks=4, strides=2),  # 14 × 14
    Stage(expansion_ratio=6, channels=96, blocks=3, strides=1),  # 14 × 14
    Stage(expansion_ratio=6, channels=160, blocks=3, strides=2),  # 7 × 7
    Stage(expansion_ratio=6, channels=320, blocks=1, strides=1),  # 7 × 7
)
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2(spec.BackboneSpec):
    """3×3 stem -> seven stages of inverted bottlenecks -> 1×1 conv -> average pool.

    Args:
      width_multiplier: scales all channels, 0.35 to 1.4 as published.
      image_size: pixels, 96 to 224 as published.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance; timm's and torchvision's weights need
        1e-5.
      padding: see `conv_norm.Style`; timm's and torchvision's weights need `symmetric`.
      stages: the rows of Table 2.

    Deviations:
      A width multiplier below 1 does not scale the 1280 channels of the last
      convolution, as in the paper's section on trade-off hyper parameters and in
      TF-Slim.
    """

    width_multiplier: float = 1.0
    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Table 2, top to bottom; `feature_vector` is [B, 1280] at width 1."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            self._width(STEM_CHANNELS),
            kernel_size=3,
            strides=2,
            style=style,
            name="stem",
        )(images)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks + 1):
                x = inverted_bottleneck.inverted_bottleneck(
                    x,
                    channels=self._width(stage.channels),
                    hidden_channels=x.shape[-1] * stage.expansion_ratio,
                    kernel_size=3,
                    strides=stage.strides if block == 1 else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        features = rounding.round_channels(
            FEATURE_CHANNELS * max(1.0, self.width_multiplier)
        )
        x = conv_norm.ConvNorm(
            features, kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mobilenet_v2")

    def _width(self, channels: int) -> int:
        return rounding.round_channels(channels * self.width_multiplier)

    def _style(self) -> conv_norm.Style:
        # TF-Slim's training_scope draws every kernel from one distribution.
        initializer = truncated_normal.TruncatedNormal(stddev=0.09)
        return conv_norm.Style(
            activation="relu6",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding=self.padding,
        )
