"""Stochastic depth."""

from __future__ import annotations

import typing

import keras


class DropPath(keras.layers.Layer):
    """In training, drops whole images' residual branches; else the identity.

    Source: arXiv:1603.09382, section 3; EfficientNet's code calls it drop connect.

    Args:
      rate: probability in [0, 1] that an image's branch is dropped. What is kept is
        scaled by 1 / (1 - rate). At 1 the branch is exactly zero.
      name: of the layer.
    """

    def __init__(self, rate: float, *, name: str) -> None:
        super().__init__(name=name)
        if not 0 <= rate <= 1:
            raise ValueError(f"drop path rate must be in [0, 1], not {rate}.")
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        if not training:
            return inputs
        keep = 1 - self.rate
        shape = (keras.ops.shape(inputs)[0], 1, 1, 1)
        draw = keras.random.uniform(shape, seed=self.seed_generator)
        scale = keras.ops.where(draw < keep, 1 / max(keep, 1e-7), 0.0)
        return inputs * keras.ops.cast(scale, inputs.dtype)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return input_shape
