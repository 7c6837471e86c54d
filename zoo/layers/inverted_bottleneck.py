"""The block of MobileNetV2, EfficientNet and their kin."""

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
      channels: output channels, of the narrow linear end.
      hidden_channels: of the wide middle; where they are C, there is no expansion.
      kernel_size: of the depthwise convolution.
      strides: of the depthwise convolution, 1 or 2.
      style: of the network.
      name: of the block, such as `stage_2_block_1`.
      squeeze_excite: a layer for the middle, or None.
      drop_path_rate: of the residual branch in training, in [0, 1].

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels]; the input is added where
      it has this very shape.
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
