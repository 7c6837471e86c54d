"""Inverted bottleneck block of MobileNetV2, MobileNetV3 and EfficientNet."""

from __future__ import annotations

import keras

from zoo.layers import conv_norm, dropping


def inverted_bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    hidden_channels: int,
    kernel_size: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    squeeze_excite: keras.layers.Layer | None = None,
    drop_path_rate: float = 0.0,
) -> keras.KerasTensor:
    """1×1 expand -> depthwise -> squeeze-excite -> 1×1 linear project -> add.

    Source: arXiv:1801.04381, Table 1 and Figure 3; with squeeze-excite
    arXiv:1905.02244, Figure 4.

    Args:
      inputs: [B, H, W, C].
      channels: output channels of the linear projection.
      hidden_channels: channels of the wide middle; if they equal C, the expansion is
        left out.
      kernel_size: kernel size of the depthwise convolution.
      strides: strides of the depthwise convolution, 1 or 2.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.
      squeeze_excite: squeeze-excite layer after the depthwise convolution, or None.
      drop_path_rate: probability of dropping the residual branch in training.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels]; the input is added if it has
      the same shape.
    """
    x = inputs
    if hidden_channels != inputs.shape[-1]:
        x = conv_norm.ConvNorm(
            hidden_channels, kernel_size=1, style=style, name=f"{name}_expand"
        )(x)
    x = conv_norm.ConvNorm(
        None,
        kernel_size=kernel_size,
        strides=strides,
        style=style,
        name=f"{name}_depthwise",
    )(x)
    if squeeze_excite is not None:
        x = squeeze_excite(x)
    x = conv_norm.ConvNorm(
        channels, kernel_size=1, linear=True, style=style, name=f"{name}_project"
    )(x)
    if strides != 1 or inputs.shape[-1] != channels:
        return x
    if drop_path_rate > 0:
        x = dropping.DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
    return keras.layers.Add(name=f"{name}_add")([inputs, x])
