"""Squeeze-and-excite: scales channels by gates computed from the whole image."""

from __future__ import annotations

import math
import typing

import keras

from zoo.layers import conv_norm

Shape = tuple[int | None, ...]


class SqueezeExcite(keras.layers.Layer):
    """Average pool -> 1×1 conv -> activation -> 1×1 conv -> gate -> multiply.

    Source: arXiv:1709.01507, section 3. Variables: `NAME/{reduce, expand}/{kernel,
    bias}`. The output has the input's shape.

    Args:
      channels: number of channels between the two convolutions.
      activation: activation after the first convolution.
      gate: activation after the second, such as `sigmoid` or `hard_sigmoid`.
      initializer: initialiser of the kernels; each of them gets a clone.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self,
        channels: int,
        *,
        activation: conv_norm.Activation,
        gate: str,
        initializer: typing.Any,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.initializer = initializer
        self.gate = gate
        self.reduce = keras.layers.Conv2D(
            channels,
            1,
            activation=activation,
            kernel_initializer=conv_norm.clone_initializer(initializer),
            name="reduce",
        )

    def build(self, input_shape: Shape) -> None:
        self.expand = keras.layers.Conv2D(
            input_shape[-1],
            1,
            activation=self.gate,
            kernel_initializer=conv_norm.clone_initializer(self.initializer),
            name="expand",
        )
        self.reduce.build((*input_shape[:1], 1, 1, input_shape[-1]))
        self.expand.build((*input_shape[:1], 1, 1, self.reduce.filters))
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        pooled = keras.ops.mean(inputs, axis=(1, 2), keepdims=True)
        return inputs * self.expand(self.reduce(pooled))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        """Returns the multiply-adds of both kernels, each applied once an image."""
        return sum(math.prod(conv.kernel.shape) for conv in (self.reduce, self.expand))
