"""Layers of the cells: separable convolutions, factorised reduction and padding."""

from __future__ import annotations

import typing

import keras

from zoo.layers import conv_norm


class Separable(keras.layers.Layer):
    """ReLU -> depthwise -> 1×1 -> norm, twice; the first depthwise has the strides.

    Source: arXiv:1707.07012, appendix A.4. Variables:
    `NAME/depthwise_{1, 2}/kernel` and `NAME/pointwise_{1, 2}/{conv, norm}/…`. Output:
    [B, ceil(H / strides), ceil(W / strides), channels].

    Args:
      channels: output channels of both 1×1 convolutions.
      kernel_size: kernel size of the depthwise convolutions.
      strides: strides of the first depthwise convolution, 1 or 2.
      style: settings shared by the network's convolutions.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int,
        strides: int,
        style: conv_norm.Style,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.activation = keras.activations.get(style.activation)
        # The first depthwise convolution has the strides; those of the second are 1.
        self.depthwise_1, self.depthwise_2 = (
            keras.layers.DepthwiseConv2D(
                kernel_size,
                each,
                "same",
                use_bias=False,
                depthwise_initializer=conv_norm.clone_initializer(
                    style.depthwise_initializer
                ),
                name=f"depthwise_{number}",
            )
            for number, each in enumerate((strides, 1), start=1)
        )
        # The first 1×1 convolution ends with the ReLU that the second depthwise
        # convolution needs; the second one is linear.
        self.pointwise_1, self.pointwise_2 = (
            conv_norm.ConvNorm(
                channels,
                kernel_size=1,
                linear=linear,
                style=style,
                name=f"pointwise_{number}",
            )
            for number, linear in enumerate((False, True), start=1)
        )

    def build(self, input_shape: conv_norm.Shape) -> None:
        shape = input_shape
        for layer in self._sequence():
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        x = self.depthwise_1(self.activation(inputs))
        x = self.pointwise_1(x, training=training)
        return self.pointwise_2(self.depthwise_2(x), training=training)

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        shape = input_shape
        for layer in self._sequence():
            shape = layer.compute_output_shape(shape)
        return shape

    def _sequence(self) -> tuple[keras.layers.Layer, ...]:
        return self.depthwise_1, self.pointwise_1, self.depthwise_2, self.pointwise_2


class FactorizedReduction(keras.layers.Layer):
    """Two 1×1 convs with strides 2, one of them shifted -> concatenate -> norm.

    The second convolution reads the pixels that are one row below and one column to the
    right of those that the first one reads; beyond the border, zeros. Source: TF-Slim's
    `factorized_reduction`. Variables: `NAME/path_{1, 2}/kernel` and `NAME/norm/…`.
    Output: [B, ceil(H / 2), ceil(W / 2), channels].

    Args:
      channels: output channels, half of them from each convolution.
      style: settings shared by the network's convolutions.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(self, channels: int, *, style: conv_norm.Style, name: str) -> None:
        super().__init__(name=name)
        self.channels = channels
        self.path_1, self.path_2 = (
            keras.layers.Conv2D(
                channels // 2,
                1,
                2,
                use_bias=False,
                kernel_initializer=conv_norm.clone_initializer(style.initializer),
                name=f"path_{number}",
            )
            for number in (1, 2)
        )
        self.norm = keras.layers.BatchNormalization(
            momentum=style.norm_momentum, epsilon=style.norm_epsilon, name="norm"
        )

    def build(self, input_shape: conv_norm.Shape) -> None:
        self.path_1.build(input_shape)
        self.path_2.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        shifted = keras.ops.pad(inputs, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
        paths = [self.path_1(inputs), self.path_2(shifted)]
        return self.norm(keras.ops.concatenate(paths, axis=-1), training=training)

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        return (*self.path_1.compute_output_shape(input_shape)[:-1], self.channels)


class SamePadding(keras.layers.Layer):
    """Pads zeros where a 3×3 pool with strides 2 and `same` padding would pad.

    That is one row at the bottom, and one at the top if the height is odd; likewise
    columns.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        _, height, width, _ = keras.ops.shape(inputs)
        x = keras.ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return x[:, 1 - height % 2 :, 1 - width % 2 :]

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        batch, height, width, channels = input_shape
        return (
            batch,
            height and height + 1 + height % 2,
            width and width + 1 + width % 2,
            channels,
        )
