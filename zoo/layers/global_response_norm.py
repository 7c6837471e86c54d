"""Global response normalisation: channels compete by their norms over the image."""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]


class GlobalResponseNorm(keras.layers.Layer):
    """L2 norm of each channel -> divide by the channels' mean -> scale -> add.

    Source: arXiv:2301.00808, section 3.2, Algorithm 1, with the residual connection.

    Variables: `NAME/{gamma, beta}`, zeros at first, so that the layer starts as the
    identity. The output has the input's shape, [B, H, W, C].

    Args:
      epsilon: number added to the mean norm of the channels.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(self, *, epsilon: float = 1e-6, name: str) -> None:
        super().__init__(name=name)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        shape, whole = input_shape[-1:], {"autocast": False}
        self.gamma = self.add_weight(shape, "zeros", name="gamma", **whole)
        self.beta = self.add_weight(shape, "zeros", name="beta", **whole)
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        x = keras.ops.cast(inputs, "float32")
        squares = keras.ops.sum(keras.ops.square(x), axis=(1, 2), keepdims=True)
        norms = keras.ops.sqrt(squares)
        mean = keras.ops.mean(norms, axis=-1, keepdims=True)
        scale = 1 + self.gamma * (norms / (mean + self.epsilon))
        return keras.ops.cast(x * scale + self.beta, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape
