"""RegNet: residual bottlenecks with group convolutions, whose widths grow linearly.

Source: Radosavovic et al., arXiv:2003.13678, sections 3.2 to 4, Figures 15 and 16, and
appendix D. Reference code: pycls, `models/regnet.py`, `models/anynet.py` and
`models/blocks.py`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, rounding, squeeze_excite

ACTIVATION = "relu"
STEM_CHANNELS = 32
WIDTH_DIVISOR = 8  # quantised widths are multiples of it
WIDTH_ROUNDINGS = ("pycls", "torchvision")
STRIDES = 2  # of the stem, and of the first block of each stage


class Stage(typing.NamedTuple):
    """Consecutive blocks with the same width, as section 3.3 computes them."""

    blocks: int
    channels: int
    group_width: int  # channels of a group of the 3×3 convolutions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNet(spec.BackboneSpec):
    """3×3 stem -> stages of bottlenecks with group convolutions -> average pool.

    The published networks have four stages: at 224 px, the stem's output is 112 × 112,
    those of the stages are 56 × 56, 28 × 28, 14 × 14 and 7 × 7. The gin files have the
    parameters of Figures 15 and 16.

    Args:
      depth: number of blocks, the paper's d.
      initial_width: channels of the first block, w_0; a multiple of 8.
      width_slope: channels by which the width grows from block to block, w_a.
      width_step: ratio of the quantised widths of consecutive stages, w_m, over 1.
      group_width: channels of a group of the 3×3 convolutions, g. A stage with fewer
        channels has one group.
      se_ratio: squeeze channels ÷ the block's input channels; 0 for no squeeze-excite.
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      padding: see `conv_norm.Style`; the weights of tf_keras need `same`.
      width_rounding: how widths become multiples of the group width. `pycls` rounds to
        the nearest multiple, and a tie to the even one. `torchvision` rounds a tie up,
        and adds one more multiple if rounding would lose over 10%, see
        `rounding.round_channels`. torchvision's weights need it: the channels of
        RegNetX-400MF, RegNetY-800MF and RegNetY-8.0GF differ.

    Deviations:
      The bottleneck ratio b is not a parameter: it is 1, as in all networks of Figures
      15 and 16.
      In pycls, the stem's input has blue as channel 0; here it has red, as in timm's
      copy of the weights of pycls.
    """

    depth: int
    initial_width: int
    width_slope: float
    width_step: float
    group_width: int
    se_ratio: float = 0.0
    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    padding: str = "symmetric"
    width_rounding: str = "pycls"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        spec.check_range(f"{name}.depth", self.depth, 1, 200)
        spec.check_range(f"{name}.initial_width", self.initial_width, 8, 8192)
        spec.check_range(f"{name}.width_slope", self.width_slope, 0.0, 8192.0)
        spec.check_range(f"{name}.width_step", self.width_step, 1.01, 100.0)
        spec.check_range(f"{name}.group_width", self.group_width, 1, 8192)
        if self.se_ratio:  # with less, a block of 8 channels would be squeezed to none
            spec.check_range(f"{name}.se_ratio", self.se_ratio, 0.125, 1.0)
        if self.initial_width % WIDTH_DIVISOR:
            raise ValueError(
                f"{name}.initial_width must be a multiple of {WIDTH_DIVISOR}, "
                f"not {self.initial_width}."
            )
        if self.width_rounding not in WIDTH_ROUNDINGS:
            raise ValueError(
                f"{name}.width_rounding must be one of {', '.join(WIDTH_ROUNDINGS)}, "
                f"not {self.width_rounding!r}."
            )

    def stages(self) -> list[Stage]:
        """Returns the stages by equations (2) to (4) of section 3.3."""
        widths = []
        for block in range(self.depth):
            linear = self.initial_width + self.width_slope * block  # equation (2)
            step = round(math.log(linear / self.initial_width, self.width_step))  # (3)
            width = self.initial_width * self.width_step**step  # (4)
            widths.append(WIDTH_DIVISOR * round(width / WIDTH_DIVISOR))
        stages = []
        for width, blocks in collections.Counter(widths).items():
            group_width = min(self.group_width, width)
            channels = self._multiple(width, group_width)
            stages.append(Stage(blocks, channels, group_width))
        return stages

    def _multiple(self, width: int, divisor: int) -> int:
        """Rounds to a multiple: appendix D, `adjust_block_compatibility` of pycls."""
        if self.width_rounding == "torchvision":
            return rounding.round_channels(width, divisor=divisor)
        return max(divisor, divisor * round(width / divisor))

    def build(self) -> keras.Model:
        """Builds stem and stages; `feature_vector` has the last stage's channels."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=3, strides=STRIDES, style=style, name="stem"
        )(images)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages(), start=1):
            for block in range(1, stage.blocks + 1):
                x = bottleneck(
                    x,
                    channels=stage.channels,
                    strides=STRIDES if block == 1 else 1,
                    group_width=stage.group_width,
                    se_ratio=self.se_ratio,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="regnet")

    def _style(self) -> conv_norm.Style:
        # `init_weights` of pycls: variance 2 / (k² · output channels), whatever the
        # number of groups.
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


def bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    group_width: int,
    se_ratio: float,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """1×1 conv -> 3×3 group conv -> squeeze-excite -> 1×1 linear conv -> add -> ReLU.

    Source: Figure 4 of the paper, the X block; with squeeze-excite the Y block of
    appendix D, which has it after the 3×3 convolution.

    Args:
      inputs: [B, H, W, C].
      channels: channels of all three convolutions.
      strides: strides of the 3×3 convolution and of the shortcut, 1 or 2.
      group_width: channels of a group of the 3×3 convolution.
      se_ratio: squeeze channels ÷ C; 0 for no squeeze-excite.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels].
    """
    shortcut = inputs
    if strides > 1 or inputs.shape[-1] != channels:
        shortcut = conv_norm.ConvNorm(
            channels,
            kernel_size=1,
            strides=strides,
            linear=True,
            style=style,
            name=f"{name}_shortcut",
        )(inputs)
    x = conv_norm.ConvNorm(channels, kernel_size=1, style=style, name=f"{name}_conv_1")(
        inputs
    )
    x = conv_norm.ConvNorm(
        channels,
        kernel_size=3,
        strides=strides,
        groups=channels // group_width,
        style=style,
        name=f"{name}_conv_2",
    )(x)
    if se_ratio > 0:
        x = squeeze_excite.SqueezeExcite(
            round(inputs.shape[-1] * se_ratio),
            activation=ACTIVATION,
            gate="sigmoid",
            initializer=style.initializer,
            name=f"{name}_se",
        )(x)
    x = conv_norm.ConvNorm(
        channels, kernel_size=1, linear=True, style=style, name=f"{name}_conv_3"
    )(x)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.Activation(ACTIVATION, name=f"{name}_out")(x)


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNetX(RegNet):
    """RegNetX: without squeeze-excite; Figure 15 of the paper."""


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNetY(RegNet):
    """RegNetY: with squeeze-excite; Figure 16 and appendix D of the paper."""

    se_ratio: float = 0.25
