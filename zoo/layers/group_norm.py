"""Group normalisation, and group normalisation and activation as one layer."""

from __future__ import annotations

import typing

import keras

from zoo.layers import conv_norm


class GroupNorm(keras.layers.Layer):
    """Group normalisation of images, as `keras.layers.GroupNormalization` does it.

    Source: arXiv:1803.08494, section 3. Averages over height and width come first and
    averages over a group's channels second, which takes a fraction of the time that
    averages over a tensor [B, H, W, groups, C / groups] take.

    Variables: `NAME/{gamma, beta}`. The output has the input's shape, [B, H, W, C].

    Args:
      groups: number of groups of channels.
      epsilon: number added to the variance.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(self, groups: int, *, epsilon: float, name: str) -> None:
        super().__init__(name=name)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: conv_norm.Shape) -> None:
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"The input of {self.name} has {channels} channels, which must be a "
                f"multiple of its {self.groups} groups."
            )
        shape, whole = (channels,), {"autocast": False}
        self.gamma = self.add_weight(shape, "ones", name="gamma", **whole)
        self.beta = self.add_weight(shape, "zeros", name="beta", **whole)
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        x = keras.ops.cast(inputs, "float32")
        centred = x - self._group_means(x)
        variance = self._group_means(keras.ops.square(centred))
        scale = self.gamma * keras.ops.rsqrt(variance + self.epsilon)
        return keras.ops.cast(centred * scale + self.beta, self.compute_dtype)

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        return input_shape

    def _group_means(self, x: typing.Any) -> typing.Any:
        """Returns the mean of each channel's group, [B, 1, 1, C]."""
        channels = x.shape[-1]
        width = channels // self.groups
        means = keras.ops.reshape(
            keras.ops.mean(x, axis=(1, 2)), (-1, self.groups, width)
        )
        means = keras.ops.mean(means, axis=-1, keepdims=True)
        # In TensorFlow, `repeat` would be 23 ops instead of one.
        means = means * keras.ops.ones((1, 1, width))
        return keras.ops.reshape(means, (-1, 1, 1, channels))


class GroupNormActivation(keras.layers.Layer):
    """Group norm -> activation.

    Variables: `NAME/norm/{gamma, beta}`. The output has the input's shape.

    Args:
      groups: number of groups of channels.
      epsilon: number added to the variance.
      activation: name of a Keras activation.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self, groups: int, *, epsilon: float, activation: str, name: str
    ) -> None:
        super().__init__(name=name)
        self.norm = GroupNorm(groups, epsilon=epsilon, name="norm")
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: conv_norm.Shape) -> None:
        self.norm.build(input_shape)
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        return self.activation(self.norm(inputs))

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        return input_shape
