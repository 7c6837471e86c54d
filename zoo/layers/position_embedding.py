"""Learned position embeddings, interpolated for images of other sizes."""

from __future__ import annotations

import dataclasses
import typing

import keras

from zoo.layers import truncated_normal

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interpolation:
    """How a reference implementation interpolates its position embeddings.

    Args:
      antialias: whether a smaller grid averages over more positions. If so, the cubic
        kernel has PyTorch's coefficient for that, -0.5, and otherwise -0.75.
      offset: number added to the new height and width when the scale is computed, as
        DINO's code does; at the original size nothing is interpolated.
    """

    antialias: bool = False
    offset: float = 0.0


class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to each position of a feature map [B, H, W, C].

    A map of another size than the learned grid gets bicubically interpolated vectors.
    The interpolation is the product with a matrix for each axis, so that it works for
    heights and widths that are known at the call alone, on every backend of Keras.

    Source: arXiv:2010.11929, section 3.1 and its "Fine-tuning and higher resolution";
    `torch.nn.functional.interpolate` for the kernels and borders.

    Variables: `NAME/embedding` [rows · columns, C].

    Args:
      grid: number of rows and columns that have a vector.
      interpolation: how to interpolate.
      name: layer name, and the first part of its variable's path.
    """

    def __init__(
        self, grid: tuple[int, int], *, interpolation: Interpolation, name: str
    ) -> None:
        super().__init__(name=name)
        self.grid = grid
        self.interpolation = interpolation

    def build(self, input_shape: Shape) -> None:
        rows, columns = self.grid
        self.embedding = self.add_weight(
            (rows * columns, input_shape[-1]),
            truncated_normal.TruncatedNormal(stddev=0.02),
            name="embedding",
            autocast=False,
        )
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        _, height, width, channels = keras.ops.shape(inputs)
        if isinstance(height, int) and (height, width) == self.grid:
            shape = (*self.grid, channels)
            return inputs + self._cast(keras.ops.reshape(self.embedding, shape))
        rows, columns = self._matrices(height, width)
        x = keras.ops.reshape(self.embedding, (self.grid[0], -1))
        x = keras.ops.reshape(rows @ x, (height, self.grid[1], channels))
        return inputs + self._cast(keras.ops.matmul(columns, x))

    def _cast(self, x: typing.Any) -> typing.Any:
        return keras.ops.cast(x, self.compute_dtype)

    def _matrices(self, height: typing.Any, width: typing.Any) -> list[typing.Any]:
        """Returns the weights of rows [height, rows] and columns [width, columns]."""
        same = keras.ops.logical_and(
            keras.ops.equal(height, self.grid[0]), keras.ops.equal(width, self.grid[1])
        )
        offset = keras.ops.where(same, 0.0, self.interpolation.offset)
        weigh = _averaging if self.interpolation.antialias else _interpolating
        return [
            weigh(size, count, count / (keras.ops.cast(size, "float32") + offset))
            for size, count in zip((height, width), self.grid, strict=True)
        ]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        return 0


def _interpolating(size: typing.Any, count: int, ratio: typing.Any) -> typing.Any:
    """Weights [size, count] of the four nearest positions; borders are repeated.

    Args:
      size: number of new positions.
      count: number of old positions.
      ratio: distance of two new positions, in old ones.
    """
    centres = (_range(size) + 0.5) * ratio - 0.5
    first = keras.ops.floor(centres)
    columns = keras.ops.arange(count, dtype="float32")
    weights: typing.Any = 0.0
    for tap in range(-1, 3):
        weight = _cubic(centres - (first + tap), -0.75)
        nearest = keras.ops.clip(first + tap, 0, count - 1)
        is_tap = keras.ops.equal(nearest[:, None], columns)
        weights += weight[:, None] * keras.ops.cast(is_tap, "float32")
    return weights


def _averaging(size: typing.Any, count: int, ratio: typing.Any) -> typing.Any:
    """Weights [size, count] of all positions under a kernel as wide as `ratio`."""
    centres = (_range(size) + 0.5) * ratio
    columns = keras.ops.arange(count, dtype="float32") + 0.5
    distances = (columns - centres[:, None]) / keras.ops.maximum(ratio, 1.0)
    weights = _cubic(distances, -0.5)
    return weights / keras.ops.sum(weights, axis=1, keepdims=True)


def _range(size: typing.Any) -> typing.Any:
    return keras.ops.cast(keras.ops.arange(size), "float32")


def _cubic(distance: typing.Any, a: float) -> typing.Any:
    """The cubic convolution kernel of Keys, 1981, with the coefficient `a`."""
    x = keras.ops.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return keras.ops.where(x <= 1, near, keras.ops.where(x < 2, far, 0.0))
