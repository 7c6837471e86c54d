"""What both versions of MobileViT share: stages, and the blocks of MobileNetV2."""

from __future__ import annotations

import typing

import keras

from zoo.layers import conv_norm, inverted_bottleneck, rounding


class Stage(typing.NamedTuple):
    """Inverted bottlenecks, then a MobileViT block if there are transformers.

    `strides` are those of the first bottleneck, `width` the channels of each token.
    """

    channels: int
    bottlenecks: int
    strides: int
    transformers: int = 0
    width: int = 0


def stack(
    x: keras.KerasTensor,
    stage: Stage,
    *,
    expansion_ratio: int,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """Applies the inverted bottlenecks of a stage.

    Args:
      x: [B, H, W, C].
      stage: the stage.
      expansion_ratio: hidden channels of a bottleneck ÷ its input channels.
      style: settings shared by the network's convolutions.
      name: name of the stage, such as `stage_2`.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), stage.channels].
    """
    for block in range(1, stage.bottlenecks + 1):
        x = inverted_bottleneck.inverted_bottleneck(
            x,
            channels=stage.channels,
            hidden_channels=rounding.round_channels(x.shape[-1] * expansion_ratio),
            kernel_size=3,
            strides=stage.strides if block == 1 else 1,
            style=style,
            name=f"{name}_block_{block}",
        )
    return x


def convolution_style(*, momentum: float, epsilon: float) -> conv_norm.Style:
    """Returns the settings of all convolutions: SiLU, and PyTorch's padding.

    The authors draw kernels from a normal distribution of variance 2 / fan_out. PyTorch
    takes all channels as the fan_out of a depthwise kernel, Keras as its fan_in.

    Args:
      momentum: share of batch norm's moving statistics that a training step keeps.
      epsilon: number added to the variance in batch norm.
    """
    return conv_norm.Style(
        activation="silu",
        norm_momentum=momentum,
        norm_epsilon=epsilon,
        initializer=_variance_scaling("fan_out"),
        depthwise_initializer=_variance_scaling("fan_in"),
        padding="symmetric",
    )


def pointwise(
    channels: int,
    style: conv_norm.Style,
    *,
    use_bias: bool,
    activation: str | None = None,
    name: str,
) -> keras.layers.Conv2D:
    """1×1 convolution without batch norm."""
    return keras.layers.Conv2D(
        channels,
        1,
        use_bias=use_bias,
        activation=activation,
        kernel_initializer=conv_norm.clone_initializer(style.initializer),
        name=name,
    )


def _variance_scaling(mode: str) -> keras.Initializer:
    return keras.initializers.VarianceScaling(
        scale=2.0, mode=mode, distribution="untruncated_normal"
    )
