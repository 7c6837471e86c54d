"""ShuffleNet V2: a block convolves half of its channels, then shuffles all of them.

Source: Ma et al., arXiv:1807.11164, section 3, Figure 3 (c) and (d), and Table 5.
Reference code: the authors' `ShuffleNetV2/network.py` and `blocks.py`
(megvii-model/ShuffleNet-Series), and torchvision's `models/shufflenetv2.py`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from zoo import spec
from zoo.layers import channels as channel_layers
from zoo.layers import conv_norm


class Stage(typing.NamedTuple):
    """A row "Stage" of Table 5: one block with stride 2, the others with stride 1."""

    channels: Mapping[float, int]  # width multiplier -> output channels
    blocks: int


# Table 5, Stage2 to Stage4, by width. Right: output resolution at 224 px.
STAGES = (
    Stage(channels={0.5: 48, 1.0: 116, 1.5: 176, 2.0: 244}, blocks=4),  # 28 × 28
    Stage(channels={0.5: 96, 1.0: 232, 1.5: 352, 2.0: 488}, blocks=8),  # 14 × 14
    Stage(channels={0.5: 192, 1.0: 464, 1.5: 704, 2.0: 976}, blocks=4),  # 7 × 7
)
STEM_CHANNELS = 24
FEATURE_CHANNELS = {0.5: 1024, 1.0: 1024, 1.5: 1024, 2.0: 2048}


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleNetV2(spec.BackboneSpec):
    """3×3 stem -> max pool -> three stages -> 1×1 conv -> average pool.

    The paper counts the stem as the first stage: its Stage2 is `stage_1`.

    Args:
      width_multiplier: 0.5, 1.0, 1.5 or 2.0; selects the column of Table 5.
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows Stage2 to Stage4 of Table 5.

    Deviations:
      The logits have a bias, as in torchvision; in the authors' code they have none.
      Kernels are initialised as in arXiv:1502.01852. The authors' code draws from
      distributions with other variances, which the batch norm after each convolution
      cancels.
      The authors' code shuffles at the beginning of a block, torchvision and this code
      at its end, as in Figure 3. In the authors' code the halves are the channels with
      even and with odd numbers, so that its weights would need another order.
      Images are normalised as in torchvision; the authors' code takes blue, green and
      red from 0 to 255.
    """

    width_multiplier: float
    image_size: int
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width_multiplier not in FEATURE_CHANNELS:
            raise ValueError(
                f"ShuffleNetV2.width_multiplier must be one of "
                f"{', '.join(map(str, FEATURE_CHANNELS))}, "
                f"not {self.width_multiplier!r}."
            )

    def build(self) -> keras.Model:
        """Builds Table 5; `feature_vector` is [B, 1024] float32, or 2048 at width 2."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=3, strides=2, style=style, name="stem"
        )(images)
        x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
        x = keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            channels = stage.channels[self.width_multiplier]
            x = downsampling_unit(
                x, channels=channels, style=style, name=f"stage_{number}_block_1"
            )
            for block in range(2, stage.blocks + 1):
                x = basic_unit(x, style=style, name=f"stage_{number}_block_{block}")
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            FEATURE_CHANNELS[self.width_multiplier],
            kernel_size=1,
            style=style,
            name="feature_map",
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="shufflenet_v2")

    def _style(self) -> conv_norm.Style:
        return conv_norm.Style(
            activation="relu",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer="he_uniform",
            depthwise_initializer="he_uniform",
            padding="symmetric",
        )


def basic_unit(
    inputs: keras.KerasTensor, *, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Channel split -> branch of the second half -> concatenate -> channel shuffle.

    Source: arXiv:1807.11164, Figure 3 (c). The output has the shape of the inputs.
    """
    shortcut = channel_layers.ChannelHalf(0, name=f"{name}_shortcut")(inputs)
    x = channel_layers.ChannelHalf(1, name=f"{name}_half")(inputs)
    x = branch(x, channels=x.shape[-1], strides=1, style=style, name=name)
    return shuffled([shortcut, x], name=name)


def downsampling_unit(
    inputs: keras.KerasTensor, *, channels: int, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Two branches of all channels, with stride 2 -> concatenate -> channel shuffle.

    Source: arXiv:1807.11164, Figure 3 (d).

    Returns:
      [B, ceil(H / 2), ceil(W / 2), channels].
    """
    half = channels // 2
    shortcut = depthwise(
        inputs, strides=2, style=style, name=f"{name}_shortcut_depthwise"
    )
    shortcut = conv_norm.ConvNorm(
        half, kernel_size=1, style=style, name=f"{name}_shortcut_pointwise"
    )(shortcut)
    x = branch(inputs, channels=half, strides=2, style=style, name=name)
    return shuffled([shortcut, x], name=name)


def branch(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """1×1 conv -> 3×3 linear depthwise conv -> 1×1 conv."""
    x = conv_norm.ConvNorm(
        channels, kernel_size=1, style=style, name=f"{name}_pointwise_1"
    )(inputs)
    x = depthwise(x, strides=strides, style=style, name=f"{name}_depthwise")
    return conv_norm.ConvNorm(
        channels, kernel_size=1, style=style, name=f"{name}_pointwise_2"
    )(x)


def depthwise(
    inputs: keras.KerasTensor, *, strides: int, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """3×3 depthwise conv without an activation."""
    # ConvNorm is depthwise if its number of filters is None.
    return conv_norm.ConvNorm(
        None, kernel_size=3, strides=strides, linear=True, style=style, name=name
    )(inputs)


def shuffled(halves: list[keras.KerasTensor], *, name: str) -> keras.KerasTensor:
    """Concatenate -> channel shuffle in two groups."""
    x = keras.layers.Concatenate(name=f"{name}_concat")(halves)
    return channel_layers.ChannelShuffle(2, name=f"{name}_shuffle")(x)
