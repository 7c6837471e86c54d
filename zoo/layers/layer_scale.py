"""Layer scale: a learned scale for each channel of a residual branch."""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]


class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a variable, `NAME/gamma`, with a small initial value.

    Source: arXiv:2103.17239, section 2.

    Args:
      start: initial value of each scale.
      name: layer name, and the first part of its variable's path.
    """

    def __init__(self, start: float, *, name: str) -> None:
        super().__init__(name=name)
        self.start = start

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(
            shape=input_shape[-1:],
            initializer=keras.initializers.Constant(self.start),
            name="gamma",
        )
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape
