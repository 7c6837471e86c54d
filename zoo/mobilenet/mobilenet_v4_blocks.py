"""Blocks of MobileNetV4: fused and universal inverted bottlenecks, and attention."""

from __future__ import annotations

import keras

from zoo.layers import conv_norm, dropping, layer_scale
from zoo.mobilenet import mobile_attention


def fused_bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    hidden_channels: int,
    strides: int,
    linear: bool,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """3×3 conv -> 1×1 conv; FusedIB in Tables 11 to 15.

    Args:
      inputs: [B, H, W, C].
      channels: output channels.
      hidden_channels: channels between the convolutions.
      strides: strides of the first convolution.
      linear: whether to leave out the activation of the second convolution.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_1_block_1`.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels].
    """
    x = conv_norm.ConvNorm(
        hidden_channels,
        kernel_size=3,
        strides=strides,
        style=style,
        name=f"{name}_expand",
    )(inputs)
    return conv_norm.ConvNorm(
        channels, kernel_size=1, linear=linear, style=style, name=f"{name}_project"
    )(x)


def universal_bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    hidden_channels: int,
    dw_1: int,
    dw_2: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    scale_start: float | None,
    drop_path_rate: float,
) -> keras.KerasTensor:
    """Depthwise -> 1×1 expand -> depthwise -> 1×1 linear project -> add.

    Source: arXiv:2404.10518, section 4 and Figure 4. The paper calls a block ExtraDW if
    it has both depthwise convolutions, ConvNext if it has only the first, IB if it has
    only the second, and FFN if it has none.

    Args:
      inputs: [B, H, W, C].
      channels: output channels of the linear projection.
      hidden_channels: channels of the wide middle.
      dw_1: kernel size of the first depthwise convolution, which has no activation;
        0 leaves it out.
      dw_2: kernel size of the second depthwise convolution, which has an activation;
        0 leaves it out.
      strides: strides of the second depthwise convolution, or of the first if there is
        no second.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.
      scale_start: initial value of the layer scale; None for no layer scale.
      drop_path_rate: probability of dropping the residual branch in training.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels]; the input is added if it has
      the same shape.
    """
    x = inputs
    if dw_1:
        x = conv_norm.ConvNorm(
            None,
            kernel_size=dw_1,
            strides=1 if dw_2 else strides,
            linear=True,
            style=style,
            name=f"{name}_start_depthwise",
        )(x)
    x = conv_norm.ConvNorm(
        hidden_channels, kernel_size=1, style=style, name=f"{name}_expand"
    )(x)
    if dw_2:
        x = conv_norm.ConvNorm(
            None,
            kernel_size=dw_2,
            strides=strides,
            style=style,
            name=f"{name}_depthwise",
        )(x)
    x = conv_norm.ConvNorm(
        channels, kernel_size=1, linear=True, style=style, name=f"{name}_project"
    )(x)
    return _join(
        inputs,
        x,
        adds=strides == 1 and inputs.shape[-1] == channels,
        scale_start=scale_start,
        drop_path_rate=drop_path_rate,
        name=name,
    )


def attention(
    inputs: keras.KerasTensor,
    *,
    heads: int,
    head_channels: int,
    kv_strides: int,
    style: conv_norm.Style,
    name: str,
    scale_start: float | None,
    drop_path_rate: float,
) -> keras.KerasTensor:
    """Batch norm -> multi-query attention -> layer scale -> add.

    Args:
      inputs: [B, H, W, C].
      heads: see `mobile_attention.MobileAttention`.
      head_channels: see `mobile_attention.MobileAttention`.
      kv_strides: see `mobile_attention.MobileAttention`.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_3_block_5`.
      scale_start: initial value of the layer scale; None for no layer scale.
      drop_path_rate: probability of dropping the residual branch in training.

    Returns:
      [B, H, W, C].
    """
    x = mobile_attention.MobileAttention(
        inputs.shape[-1],
        heads=heads,
        head_channels=head_channels,
        kv_strides=kv_strides,
        style=style,
        name=f"{name}_attention",
    )(inputs)
    return _join(
        inputs,
        x,
        adds=True,
        scale_start=scale_start,
        drop_path_rate=drop_path_rate,
        name=name,
    )


def _join(
    inputs: keras.KerasTensor,
    branch: keras.KerasTensor,
    *,
    adds: bool,
    scale_start: float | None,
    drop_path_rate: float,
    name: str,
) -> keras.KerasTensor:
    """Layer scale -> drop path -> add; without `adds` only the layer scale."""
    if scale_start is not None:
        branch = layer_scale.LayerScale(scale_start, name=f"{name}_layer_scale")(branch)
    if not adds:
        return branch
    if drop_path_rate > 0:
        branch = dropping.DropPath(drop_path_rate, name=f"{name}_drop_path")(branch)
    return keras.layers.Add(name=f"{name}_add")([inputs, branch])
