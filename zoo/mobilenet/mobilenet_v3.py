"""MobileNetV3: inverted bottlenecks with squeeze-excite and hard swish.

Source: Howard et al., arXiv:1905.02244, section 5, Tables 1 and 2. Reference code:
TF-Slim's `nets/mobilenet/mobilenet_v3.py`, which also has the minimalistic variants.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import (
    conv_norm,
    inverted_bottleneck,
    rounding,
    squeeze_excite,
    truncated_normal,
)


class Stage(typing.NamedTuple):
    """Rows of Table 1 or 2 with the same #out; they differ only in exp size."""

    kernel_size: int
    exp_sizes: tuple[int, ...]
    channels: int
    squeeze_excite: bool
    activation: str
    strides: int


# Tables 1 and 2 without stem and last layers. Right: output resolution at 224 px.
# fmt: off
LARGE_STAGES = (
    Stage(kernel_size=3, exp_sizes=(16,), channels=16,
          squeeze_excite=False, activation="relu", strides=1),  # 112 × 112
    Stage(kernel_size=3, exp_sizes=(64, 72), channels=24,
          squeeze_excite=False, activation="relu", strides=2),  # 56 × 56
    Stage(kernel_size=5, exp_sizes=(72, 120, 120), channels=40,
          squeeze_excite=True, activation="relu", strides=2),  # 28 × 28
    Stage(kernel_size=3, exp_sizes=(240, 200, 184, 184), channels=80,
          squeeze_excite=False, activation="hard_swish", strides=2),  # 14 × 14
    Stage(kernel_size=3, exp_sizes=(480, 672), channels=112,
          squeeze_excite=True, activation="hard_swish", strides=1),  # 14 × 14
    Stage(kernel_size=5, exp_sizes=(672, 960, 960), channels=160,
          squeeze_excite=True, activation="hard_swish", strides=2),  # 7 × 7
)
SMALL_STAGES = (
    Stage(kernel_size=3, exp_sizes=(16,), channels=16,
          squeeze_excite=True, activation="relu", strides=2),  # 56 × 56
    Stage(kernel_size=3, exp_sizes=(72, 88), channels=24,
          squeeze_excite=False, activation="relu", strides=2),  # 28 × 28
    Stage(kernel_size=5, exp_sizes=(96, 240, 240), channels=40,
          squeeze_excite=True, activation="hard_swish", strides=2),  # 14 × 14
    Stage(kernel_size=5, exp_sizes=(120, 144), channels=48,
          squeeze_excite=True, activation="hard_swish", strides=1),  # 14 × 14
    Stage(kernel_size=5, exp_sizes=(288, 576, 576), channels=96,
          squeeze_excite=True, activation="hard_swish", strides=2),  # 7 × 7
)
# fmt: on
STEM_CHANNELS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3(spec.BackboneSpec):
    """3×3 stem -> stages of inverted bottlenecks -> 1×1 conv -> pool -> 1×1 conv.

    Args:
      width_multiplier: scales all channels, 0.75 and 1 as published.
      minimalistic: use only 3×3 kernels and ReLU, and no squeeze-excite.
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance; timm's weights need 1e-5.
      padding: see `conv_norm.Style`; timm's and torchvision's weights need `symmetric`.
        timm's `tf_` weights need the default padding and epsilon; their tensors have
        the same names.
      stages: the rows of the paper's table.
      feature_channels: channels of the convolution after the pooling, which has a bias
        and no batch norm. A width multiplier below 1 does not scale them.

    Deviations:
      In the small network, the last 1×1 convolution before the pooling has no
      squeeze-excite, as in TF-Slim and its weights; Table 2 has it. Expanded channels
      are a multiple of the scaled input channels, as in TF-Slim, not exp size times the
      width. Momentum, dropout and weight decay are those of section 6.1.1; TF-Slim's
      training scope was made for MobileNetV2.
    """

    width_multiplier: float = 1.0
    minimalistic: bool = False
    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    stages: tuple[Stage, ...]
    feature_channels: int

    def build(self) -> keras.Model:
        """Builds Table 1 or 2, top to bottom; rows with the same #out form a stage.

        As in TF-Slim and on TensorFlow Hub, the `feature_vector`, [B, 1280] or
        [B, 1024], is the output of the convolution after the pooling.
        """
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
        table_channels = STEM_CHANNELS
        for number, stage in enumerate(self.stages, start=1):
            for block, exp_size in enumerate(stage.exp_sizes, start=1):
                expansion_ratio = exp_size / table_channels
                x = self._block(
                    x,
                    hidden_channels=rounding.round_channels(
                        x.shape[-1] * expansion_ratio
                    ),
                    strides=stage.strides if block == 1 else 1,
                    stage=stage,
                    name=f"stage_{number}_block_{block}",
                )
                table_channels = stage.channels
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            self._width(6 * table_channels),
            kernel_size=1,
            style=style,
            name="feature_map",
        )(x)
        endpoints["feature_map"] = x
        endpoints["feature_vector"] = self._feature_vector(x, style)
        return keras.Model(images, endpoints, name="mobilenet_v3")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        hidden_channels: int,
        strides: int,
        stage: Stage,
        name: str,
    ) -> keras.KerasTensor:
        """Adds one inverted bottleneck of a stage."""
        style = self._style()
        if not self.minimalistic:
            style = dataclasses.replace(style, activation=stage.activation)
        squeeze = None
        if stage.squeeze_excite and not self.minimalistic:
            squeeze = squeeze_excite.SqueezeExcite(
                rounding.round_channels(hidden_channels / 4),
                activation="relu",
                gate="hard_sigmoid",
                initializer=style.initializer,
                name=f"{name}_squeeze_excite",
            )
        return inverted_bottleneck.inverted_bottleneck(
            inputs,
            channels=self._width(stage.channels),
            hidden_channels=hidden_channels,
            kernel_size=3 if self.minimalistic else stage.kernel_size,
            strides=strides,
            style=style,
            name=name,
            squeeze_excite=squeeze,
        )

    def _feature_vector(
        self, feature_map: keras.KerasTensor, style: conv_norm.Style
    ) -> keras.KerasTensor:
        """Average pool -> 1×1 conv with bias and without batch norm -> activation."""
        x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(feature_map)
        x = keras.layers.Conv2D(
            rounding.round_channels(
                self.feature_channels * max(1.0, self.width_multiplier)
            ),
            kernel_size=1,
            activation=style.activation,
            kernel_initializer=style.initializer,
            name="feature_vector",
        )(x)
        return keras.layers.Flatten(name="flatten")(x)

    def _width(self, channels: int) -> int:
        return rounding.round_channels(channels * self.width_multiplier)

    def _style(self) -> conv_norm.Style:
        """Returns the style of stem and last layers; stages replace its activation."""
        # TF-Slim's training_scope draws every kernel from one distribution.
        initializer = truncated_normal.TruncatedNormal(stddev=0.09)
        return conv_norm.Style(
            activation="relu" if self.minimalistic else "hard_swish",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding=self.padding,
        )


@gin.register(denylist=["stages", "feature_channels"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3Large(MobileNetV3):
    """MobileNetV3-Large, Table 1."""

    stages: tuple[Stage, ...] = LARGE_STAGES
    feature_channels: int = 1280


@gin.register(denylist=["stages", "feature_channels"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3Small(MobileNetV3):
    """MobileNetV3-Small, Table 2."""

    stages: tuple[Stage, ...] = SMALL_STAGES
    feature_channels: int = 1024
