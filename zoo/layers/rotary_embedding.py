"""Rotary position embeddings of patches: queries and keys turn by their positions."""

from __future__ import annotations

import math
import typing

import keras

Shape = tuple[int | None, ...]


class AxialRotation(keras.layers.Layer):
    """Feature map [B, H, W, C] -> cosines and sines [2, prefix + H · W, size].

    The first quarter of a head's channels turns by the patch's row, the second by its
    column, and the other half by the same angles. Rows and columns are in [-1, 1] for
    every height and width; the fastest channel turns twice from one end to the other.
    Of the feature map, only the shape counts. Outputs have full precision under any
    policy.

    Source: arXiv:2104.09864, section 3.2.2; arXiv:2508.10104, section 3.2.

    Args:
      size: channels of a head, a multiple of 4.
      prefix: number of tokens before those of the patches; they do not turn.
      base: the periods of a quarter grow from 1 in equal ratios, and stay below this.
      name: layer name.
    """

    def __init__(
        self, size: int, *, prefix: int, base: float = 100.0, name: str
    ) -> None:
        super().__init__(name=name)
        self.size, self.prefix, self.base = size, prefix, base

    def call(self, inputs: typing.Any) -> typing.Any:
        _, height, width, _ = keras.ops.shape(inputs)
        shape = (height, width, self.size // 4)
        rows = keras.ops.broadcast_to(self._angles(height)[:, None], shape)
        columns = keras.ops.broadcast_to(self._angles(width)[None], shape)
        angles = keras.ops.concatenate([rows, columns], axis=-1)
        angles = keras.ops.reshape(angles, (height * width, self.size // 2))
        angles = keras.ops.pad(angles, ((self.prefix, 0), (0, 0)))
        cosines, sines = keras.ops.cos(angles), keras.ops.sin(angles)
        cosines = keras.ops.concatenate([cosines, cosines], axis=-1)
        sines = keras.ops.concatenate([-sines, sines], axis=-1)
        return keras.ops.stack([cosines, sines])

    def _angles(self, count: typing.Any) -> typing.Any:
        """Returns the angles of `count` rows or columns, [count, size / 4]."""
        quarter = self.size // 4
        frequencies = [self.base ** (-index / quarter) for index in range(quarter)]
        indices = keras.ops.cast(keras.ops.arange(count), self.variable_dtype)
        count = keras.ops.cast(count, self.variable_dtype)
        centres = (2 * indices + 1) / count - 1
        turns = keras.ops.convert_to_tensor(frequencies, self.variable_dtype)
        return 2 * math.pi * centres[:, None] * turns

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _, height, width, _ = input_shape
        return 2, height and width and self.prefix + height * width, self.size


class Rotate(keras.layers.Layer):
    """Turns queries and keys in [B, T, 3 · C], queries, keys and values side by side.

    Called on a list of these and of the rotation [2, T, C / heads]. Each channel of the
    first half of a head turns together with that of the second half. The products are
    computed with the precision of the rotation.

    Source: arXiv:2104.09864, section 3.2.2; pairs of channels as in GPT-NeoX.

    Args:
      num_heads: number of heads, which divides the channels C.
      name: layer name.
    """

    def __init__(self, num_heads: int, *, name: str) -> None:
        super().__init__(name=name, autocast=False)
        self.num_heads = num_heads

    def call(self, inputs: typing.Any) -> typing.Any:
        qkv, rotation = inputs
        batch, tokens, channels = keras.ops.shape(qkv)
        turning, size = 2 * self.num_heads, channels // (3 * self.num_heads)
        heads = keras.ops.reshape(qkv, (batch, tokens, 3 * self.num_heads, size))
        cosines, sines = rotation[0][:, None], rotation[1][:, None]
        x = keras.ops.cast(heads[:, :, :turning], rotation.dtype)
        first, second = x[..., : size // 2], x[..., size // 2 :]
        partners = keras.ops.concatenate([second, first], axis=-1)
        x = keras.ops.cast(x * cosines + partners * sines, qkv.dtype)
        x = keras.ops.concatenate([x, heads[:, :, turning:]], axis=2)
        return keras.ops.reshape(x, (batch, tokens, channels))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return input_shape[0]
