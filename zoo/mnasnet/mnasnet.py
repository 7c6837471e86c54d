"""MnasNet: inverted bottlenecks whose kernels and ratios a search chose by stage.

Source: Tan et al., arXiv:1807.11626, sections 6 and 7.3, Tables 1, 2 and 4, and Figure
7. Reference code: `models/official/mnasnet` of the TensorFlow TPU repository.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, inverted_bottleneck, rounding, squeeze_excite


class Stage(typing.NamedTuple):
    """One row of a table: `blocks` inverted bottlenecks.

    Figure 7 calls the row a block, and an inverted bottleneck a layer.
    """

    expansion_ratio: int
    kernel_size: int
    channels: int
    blocks: int
    strides: int
    se_ratio: float = 0.0  # squeeze channels ÷ the block's input channels


# Right: output resolution at 224 px. A1 is Figure 7; `mnasnet_b1` and `mnasnet_small`
# of the reference code have the other tables.
# fmt: off
A1_STAGES = (
    Stage(expansion_ratio=1, kernel_size=3, channels=16, blocks=1,
          strides=1),  # 112 × 112
    Stage(expansion_ratio=6, kernel_size=3, channels=24, blocks=2,
          strides=2),  # 56 × 56
    Stage(expansion_ratio=3, kernel_size=5, channels=40, blocks=3,
          strides=2, se_ratio=0.25),  # 28 × 28
    Stage(expansion_ratio=6, kernel_size=3, channels=80, blocks=4,
          strides=2),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=3, channels=112, blocks=2,
          strides=1, se_ratio=0.25),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=5, channels=160, blocks=3,
          strides=2, se_ratio=0.25),  # 7 × 7
    Stage(expansion_ratio=6, kernel_size=3, channels=320, blocks=1,
          strides=1),  # 7 × 7
)
B1_STAGES = (
    Stage(expansion_ratio=1, kernel_size=3, channels=16, blocks=1,
          strides=1),  # 112 × 112
    Stage(expansion_ratio=3, kernel_size=3, channels=24, blocks=3,
          strides=2),  # 56 × 56
    Stage(expansion_ratio=3, kernel_size=5, channels=40, blocks=3,
          strides=2),  # 28 × 28
    Stage(expansion_ratio=6, kernel_size=5, channels=80, blocks=3,
          strides=2),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=3, channels=96, blocks=2,
          strides=1),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=5, channels=192, blocks=4,
          strides=2),  # 7 × 7
    Stage(expansion_ratio=6, kernel_size=3, channels=320, blocks=1,
          strides=1),  # 7 × 7
)
SMALL_STAGES = (
    Stage(expansion_ratio=1, kernel_size=3, channels=8, blocks=1,
          strides=1),  # 112 × 112
    Stage(expansion_ratio=3, kernel_size=3, channels=16, blocks=1,
          strides=2),  # 56 × 56
    Stage(expansion_ratio=6, kernel_size=3, channels=16, blocks=2,
          strides=2),  # 28 × 28
    Stage(expansion_ratio=6, kernel_size=5, channels=32, blocks=4,
          strides=2, se_ratio=0.25),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=3, channels=32, blocks=3,
          strides=1, se_ratio=0.25),  # 14 × 14
    Stage(expansion_ratio=6, kernel_size=5, channels=88, blocks=3,
          strides=2, se_ratio=0.25),  # 7 × 7
    Stage(expansion_ratio=6, kernel_size=3, channels=144, blocks=1,
          strides=1),  # 7 × 7
)
# fmt: on
FEATURE_CHANNELS = 1280
ACTIVATION = "relu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MnasNet(spec.BackboneSpec):
    """3×3 stem -> seven stages of inverted bottlenecks -> 1×1 conv -> average pool.

    Args:
      width_multiplier: scales all channels but the 1280 of the last convolution.
      image_size: pixels, 96 to 224 as published.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
        torchvision trains with 0.9997.
      batch_norm_epsilon: added to the variance; timm's and torchvision's weights need
        1e-5.
      padding: see `conv_norm.Style`; timm's and torchvision's weights need `symmetric`.
      stages: the rows of the table.
      stem_channels: channels of the stem before scaling.

    Deviations:
      Channels are rounded by `round_channels`. At all widths here, the rules of the
      reference code, timm and torchvision give the same numbers. Checkpoints of
      torchvision before version 2 fit width 1 only: their stem and first stage are not
      scaled.
      The small network adds the input of its first block to its output, as in timm;
      the reference code does not, since its table gives that block 16 input channels,
      which the stem does not have.
    """

    width_multiplier: float = 1.0
    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    stages: tuple[Stage, ...]
    stem_channels: int = 32

    def build(self) -> keras.Model:
        """Builds the table, top to bottom; `feature_vector` is [B, 1280]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            self._width(self.stem_channels),
            kernel_size=3,
            strides=2,
            style=style,
            name="stem",
        )(images)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks + 1):
                x = self._block(
                    x,
                    strides=stage.strides if block == 1 else 1,
                    stage=stage,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            FEATURE_CHANNELS, kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mnasnet")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        strides: int,
        stage: Stage,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        """Adds a block: an MBConv of Figure 7, or its SepConv if the ratio is 1."""
        squeeze = None
        if stage.se_ratio > 0:
            squeeze = squeeze_excite.SqueezeExcite(
                max(1, int(inputs.shape[-1] * stage.se_ratio)),
                activation=ACTIVATION,
                gate="sigmoid",
                initializer=style.initializer,
                name=f"{name}_squeeze_excite",
            )
        return inverted_bottleneck.inverted_bottleneck(
            inputs,
            channels=self._width(stage.channels),
            hidden_channels=inputs.shape[-1] * stage.expansion_ratio,
            kernel_size=stage.kernel_size,
            strides=strides,
            style=style,
            name=name,
            squeeze_excite=squeeze,
        )

    def _width(self, channels: int) -> int:
        return rounding.round_channels(channels * self.width_multiplier)

    def _style(self) -> conv_norm.Style:
        # `conv_kernel_initializer` of the reference code: normal, variance 2 / fan_out.
        initializer = keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_out", distribution="untruncated_normal"
        )
        return conv_norm.Style(
            activation=ACTIVATION,
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding=self.padding,
        )


@gin.register(denylist=["stages", "stem_channels"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MnasNetA1(MnasNet):
    """MnasNet-A1: with squeeze-excite in three of its stages; Figure 7."""

    stages: tuple[Stage, ...] = A1_STAGES


@gin.register(denylist=["stages", "stem_channels"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MnasNetB1(MnasNet):
    """MnasNet-B1: found in a search space without squeeze-excite; Table 2."""

    stages: tuple[Stage, ...] = B1_STAGES


@gin.register(denylist=["stages", "stem_channels"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MnasNetSmall(MnasNet):
    """MnasNet-small: found in a search for small networks; section 6.2, Table 4."""

    stages: tuple[Stage, ...] = SMALL_STAGES
    stem_channels: int = 8
