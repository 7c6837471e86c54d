"""MobileNetV1: depthwise separable convolutions.

Source: Howard et al., arXiv:1704.04861, section 3 and Table 1. Reference code:
TF-Slim's `nets/mobilenet_v1.py`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, truncated_normal


class Stage(typing.NamedTuple):
    """Rows of Table 1 with the same output resolution.

    Each block is one `Conv dw` row and one `Conv` row.
    """

    channels: int
    blocks: int
    strides: int


# Table 1 without its first and last rows. Right: output resolution at 224 px.
STAGES = (
    Stage(channels=64, blocks=1, strides=1),  # 112 × 112
    Stage(channels=128, blocks=2, strides=2),  # 56 × 56
    Stage(channels=256, blocks=2, strides=2),  # 28 × 28
    Stage(channels=512, blocks=6, strides=2),  # 14 × 14
    Stage(channels=1024, blocks=2, strides=2),  # 7 × 7
)
STEM_CHANNELS = 32


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV1(spec.BackboneSpec):
    """3×3 stem -> five stages of depthwise separable convolutions -> average pool.

    Args:
      width_multiplier: scales all channels, 0.25 to 1 as published.
      image_size: pixels, 128 to 224 as published.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance; timm's weights need 1e-5.
      padding: see `conv_norm.Style`; timm's weights need `symmetric`.
      stages: the rows of Table 1.

    Deviations:
      The activation is ReLU6 as in TF-Slim; the paper has ReLU. The last depthwise
      convolution has stride 1 as in TF-Slim; Table 1 says 2, with 7 × 7 input and
      output. No convolution follows the last stage: `feature_map` is `stage_5`.
    """

    width_multiplier: float = 1.0
    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Table 1, top to bottom; `feature_vector` is [B, 1024] at width 1."""
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
                x = separable_conv(
                    x,
                    channels=self._width(stage.channels),
                    strides=stage.strides if block == 1 else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mobilenet_v1")

    def _width(self, channels: int) -> int:
        # TF-Slim's min_depth. Later generations round to multiples of 8 instead.
        return max(8, int(channels * self.width_multiplier))

    def _style(self) -> conv_norm.Style:
        # TF-Slim's mobilenet_v1_arg_scope draws every kernel from one distribution.
        initializer = truncated_normal.TruncatedNormal(stddev=0.09)
        return conv_norm.Style(
            activation="relu6",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding=self.padding,
        )


def separable_conv(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """3×3 depthwise -> 1×1, each with batch norm and activation.

    Source: arXiv:1704.04861, Figure 3.

    Args:
      inputs: [B, H, W, C].
      channels: output channels.
      strides: strides of the depthwise convolution, 1 or 2.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels].
    """
    x = conv_norm.ConvNorm(
        None, kernel_size=3, strides=strides, style=style, name=f"{name}_depthwise"
    )(inputs)
    return conv_norm.ConvNorm(
        channels, kernel_size=1, style=style, name=f"{name}_pointwise"
    )(x)
