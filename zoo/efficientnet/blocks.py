"""Blocks of EfficientNet and EfficientNetV2, and the style of their convolutions."""

from __future__ import annotations

import functools

import keras

from zoo.layers import conv_norm, dropping, inverted_bottleneck, squeeze_excite


def style(
    *, activation: str, norm_momentum: float, norm_epsilon: float, padding: str
) -> conv_norm.Style:
    """Returns the style of all convolutions; see `conv_norm.Style` for the arguments.

    Source: `conv_kernel_initializer` in the authors' code, tensorflow/tpu: normal,
    variance 2 / fan_out; the fan_out of a depthwise kernel is its height times its
    width.
    """
    initializer = keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )
    return conv_norm.Style(
        activation=activation,
        norm_momentum=norm_momentum,
        norm_epsilon=norm_epsilon,
        initializer=initializer,
        depthwise_initializer=initializer,
        padding=padding,
    )


def mbconv(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    expansion_ratio: int,
    kernel_size: int,
    strides: int,
    se_ratio: float,
    style: conv_norm.Style,
    name: str,
    drop_path_rate: float,
) -> keras.KerasTensor:
    """1×1 expand -> depthwise -> squeeze-excite -> 1×1 linear project -> add.

    Source: arXiv:1905.11946, section 4. See `inverted_bottleneck` for the other
    arguments and the result.

    Args:
      inputs: [B, H, W, C].
      channels: see `inverted_bottleneck`.
      expansion_ratio: hidden channels ÷ C.
      kernel_size: see `inverted_bottleneck`.
      strides: see `inverted_bottleneck`.
      se_ratio: squeeze channels ÷ C, before they are rounded down; 0 for no
        squeeze-excite.
      style: see `inverted_bottleneck`.
      name: see `inverted_bottleneck`.
      drop_path_rate: see `inverted_bottleneck`.
    """
    layer = None
    if se_ratio > 0:
        layer = squeeze_excite.SqueezeExcite(
            max(1, int(inputs.shape[-1] * se_ratio)),
            activation=style.activation,
            gate="sigmoid",
            initializer=style.initializer,
            name=f"{name}_squeeze_excite",
        )
    return inverted_bottleneck.inverted_bottleneck(
        inputs,
        channels=channels,
        hidden_channels=inputs.shape[-1] * expansion_ratio,
        kernel_size=kernel_size,
        strides=strides,
        style=style,
        name=name,
        squeeze_excite=layer,
        drop_path_rate=drop_path_rate,
    )


def fused_mbconv(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    expansion_ratio: int,
    kernel_size: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    drop_path_rate: float,
) -> keras.KerasTensor:
    """Regular convolution that expands -> 1×1 linear project -> add.

    Source: arXiv:2104.00298, Figure 2. Arguments and result are those of `mbconv`,
    without `se_ratio`; the first convolution has the kernel size and the strides.

    Deviations:
      If the expansion ratio is 1, the block is one convolution with activation, as
      in the reference code; the paper does not show this case.
    """
    x = inputs
    full = functools.partial(
        conv_norm.ConvNorm, kernel_size=kernel_size, strides=strides, style=style
    )
    if expansion_ratio == 1:
        x = full(channels, name=f"{name}_project")(x)
    else:
        hidden = inputs.shape[-1] * expansion_ratio
        x = full(hidden, name=f"{name}_expand")(x)
        x = conv_norm.ConvNorm(
            channels, kernel_size=1, linear=True, style=style, name=f"{name}_project"
        )(x)
    if strides != 1 or inputs.shape[-1] != channels:
        return x
    if drop_path_rate > 0:
        x = dropping.DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
    return keras.layers.Add(name=f"{name}_add")([inputs, x])
