"""Convolution, batch normalisation and activation as one layer."""

from __future__ import annotations

import typing

import keras


class ConvNorm(keras.layers.Layer):
    """Convolution (no bias) -> batch norm -> activation.

    Variables: `NAME/conv/kernel` and `NAME/norm/{gamma, beta, moving_mean,
    moving_variance}`.

    Args:
      filters: output channels; None for a depthwise convolution, which keeps them.
      kernel_size: height and width of the kernel, pixels.
      strides: 1 or 2, both ways; padding is TensorFlow's SAME.
      activation: a Keras activation, or None for a linear output.
      norm_momentum: share of the old moving statistics that a training step keeps.
      norm_epsilon: added to the variance.
      kernel_initializer: a Keras initializer or its name.
      name: of the layer, and the head of its variables' paths.
    """

    def __init__(
        self,
        filters: int | None,
        *,
        kernel_size: int,
        strides: int = 1,
        activation: str | None = None,
        norm_momentum: float,
        norm_epsilon: float,
        kernel_initializer: typing.Any,
        name: str,
    ) -> None:
        super().__init__(name=name)
        shared = {"strides": strides, "padding": "same", "use_bias": False}
        if filters is None:
            self.conv = keras.layers.DepthwiseConv2D(
                kernel_size,
                depthwise_initializer=kernel_initializer,
                name="conv",
                **shared,
            )
        else:
            self.conv = keras.layers.Conv2D(
                filters,
                kernel_size,
                kernel_initializer=kernel_initializer,
                name="conv",
                **shared,
            )
        self.norm = keras.layers.BatchNormalization(
            momentum=norm_momentum, epsilon=norm_epsilon, name="norm"
        )
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        outputs = self.norm(self.conv(inputs), training=training)
        return self.activation(outputs)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return self.conv.compute_output_shape(input_shape)
