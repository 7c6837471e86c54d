"""Batch normalisation and activation as one layer, for networks that activate first."""

from __future__ import annotations

import typing

import keras

from zoo.layers import conv_norm


class NormActivation(keras.layers.Layer):
    """Batch norm -> activation.

    Variables: `NAME/norm/{gamma, beta, moving_mean, moving_variance}`, without gamma if
    the style has no scale. The output has the input's shape.

    Args:
      style: settings shared by the network's convolutions.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(self, *, style: conv_norm.Style, name: str) -> None:
        super().__init__(name=name)
        self.norm = keras.layers.BatchNormalization(
            momentum=style.norm_momentum,
            epsilon=style.norm_epsilon,
            scale=style.norm_scale,
            name="norm",
        )
        self.activation = keras.activations.get(style.activation)

    def build(self, input_shape: conv_norm.Shape) -> None:
        self.norm.build(input_shape)
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        return self.activation(self.norm(inputs, training=training))

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        return input_shape
