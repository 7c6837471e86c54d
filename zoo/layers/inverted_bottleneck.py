"""The block of MobileNetV2, EfficientNet and their kin."""

from __future__ import annotations

import dataclasses
import typing

import keras

from zoo.layers import conv_norm, drop_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvStyle:
    """What all convolutions of a network have in common; see `ConvNorm`."""

    activation: str
    norm_momentum: float
    norm_epsilon: float
    conv_initializer: typing.Any
    depthwise_initializer: typing.Any

    def conv(
        self,
        filters: int,
        *,
        kernel_size: int,
        name: str,
        strides: int = 1,
        linear: bool = False,
    ) -> conv_norm.ConvNorm:
        """Convolution -> batch norm -> activation, or no activation if `linear`."""
        return self._layer(
            filters,
            kernel_size=kernel_size,
            strides=strides,
            activation=None if linear else self.activation,
            kernel_initializer=self.conv_initializer,
            name=name,
        )

    def depthwise(
        self, *, kernel_size: int, strides: int, name: str
    ) -> conv_norm.ConvNorm:
        """Depthwise convolution -> batch norm -> activation."""
        return self._layer(
            None,
            kernel_size=kernel_size,
            strides=strides,
            activation=self.activation,
            kernel_initializer=self.depthwise_initializer,
            name=name,
        )

    def _layer(self, filters: int | None, **kwargs: typing.Any) -> conv_norm.ConvNorm:
        return conv_norm.ConvNorm(
            filters,
            norm_momentum=self.norm_momentum,
            norm_epsilon=self.norm_epsilon,
            **kwargs,
        )


def inverted_bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    expansion_ratio: int,
    kernel_size: int,
    strides: int,
    style: ConvStyle,
    name: str,
    drop_path_rate: float = 0.0,
) -> keras.KerasTensor:
    """1×1 expand -> depthwise -> 1×1 linear project -> drop path -> add.

    Source: arXiv:1801.04381, Table 1 and Figure 3.

    Args:
      inputs: [B, H, W, C].
      channels: output channels, of the narrow linear end.
      expansion_ratio: hidden channels ÷ C; at 1 there is no expansion.
      kernel_size: of the depthwise convolution.
      strides: of the depthwise convolution, 1 or 2.
      style: activation, batch norm and initializers.
      name: of the block, such as `stage_2_block_1`.
      drop_path_rate: of the residual branch, in [0, 1].

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels]; the input is added where
      it has this very shape.
    """
    x = inputs
    if expansion_ratio != 1:
        hidden = inputs.shape[-1] * expansion_ratio
        x = style.conv(hidden, kernel_size=1, name=f"{name}_expand")(x)
    depthwise = f"{name}_depthwise"
    x = style.depthwise(kernel_size=kernel_size, strides=strides, name=depthwise)(x)
    x = style.conv(channels, kernel_size=1, linear=True, name=f"{name}_project")(x)
    if strides != 1 or inputs.shape[-1] != channels:
        return x
    if drop_path_rate > 0:
        x = drop_path.DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
    return keras.layers.Add(name=f"{name}_add")([inputs, x])
