"""Windows of a feature map, and self-attention inside each of them."""

from __future__ import annotations

import dataclasses
import math
import typing

import keras
import numpy as np

from zoo.layers import transformer, truncated_normal

Shape = tuple[int | None, ...]
# Added to the logits of two positions that may not attend to each other, as published.
APART = -100.0


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a feature map [B, H, W, C] is cut into windows of `size` × `size` positions.

    The map is padded with zeros at the bottom and on the right to whole windows. With a
    shift, its windows begin `shift` positions further down and right, and those at the
    end are filled with the first rows and columns, which they may not attend to. Along
    an axis with one window, nothing is shifted.

    Source: arXiv:2103.14030, section 3.2 and Figure 4; padding as in
    `torchvision/models/swin_transformer.py`, where padded positions are attended to.

    Args:
      size: rows and columns of a window.
      shift: offset of the first window, less than the size.
      masks_padding: whether no position of the map attends to padded ones.
    """

    size: int
    shift: int = 0
    masks_padding: bool = False

    def grid(self, shape: typing.Sequence[typing.Any]) -> tuple[typing.Any, typing.Any]:
        """Returns the number of windows along each axis of a map of `shape`."""
        rows, columns = (
            None if n is None else (n + self.size - 1) // self.size for n in shape[1:3]
        )
        return rows, columns

    def shifts(self, shape: typing.Sequence[typing.Any]) -> list[typing.Any]:
        """Returns the shift along each axis."""
        return [
            self.shift * int(count > 1)
            if isinstance(count, int)
            else self.shift * keras.ops.cast(count > 1, "int32")
            for count in self.grid(shape)
        ]

    def has_parts(self, shape: typing.Sequence[typing.Any]) -> bool:
        """Whether windows of a map of `shape` have, or may have, several `labels`."""
        if self.shift or not self.masks_padding:
            return self.shift > 0
        return any(not isinstance(n, int) or n % self.size > 0 for n in shape[1:3])

    def labels(self, shape: typing.Sequence[typing.Any]) -> typing.Any:
        """Numbers the parts of a padded map of which windows may have several.

        With a shift, these are its end and its beginning; if padding is masked, also
        the padded positions.

        Returns:
          For each position of each window, [N, T] float32; two positions may attend to
          each other if their numbers are the same.
        """
        parts = []
        axes = zip(shape[1:3], self.grid(shape), self.shifts(shape), strict=True)
        for n, count, shift in axes:
            end = count * self.size
            index = (keras.ops.arange(end) + shift) % end
            part = keras.ops.cast(index < shift, "float32")
            if self.masks_padding:
                part = part + 2 * keras.ops.cast(index >= n, "float32")
            parts.append(part)
        rows, columns = parts
        labels = 4 * rows[:, None] + columns
        return self.split(labels[None, :, :, None], grid=self.grid(shape))[0, ..., 0]

    def split(
        self, x: typing.Any, *, grid: tuple[typing.Any, typing.Any]
    ) -> typing.Any:
        """Cuts a padded map [B, H, W, C] into windows [B, N, T, C]."""
        rows, columns = grid
        shape = (-1, rows, self.size, columns, self.size, x.shape[-1])
        x = keras.ops.transpose(keras.ops.reshape(x, shape), (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(x, (-1, rows * columns, self.size**2, x.shape[-1]))

    def join(self, x: typing.Any, *, grid: tuple[typing.Any, typing.Any]) -> typing.Any:
        """Puts windows [B, N, T, C] together to a padded map [B, H, W, C]."""
        rows, columns = grid
        shape = (-1, rows, columns, self.size, self.size, x.shape[-1])
        x = keras.ops.transpose(keras.ops.reshape(x, shape), (0, 1, 3, 2, 4, 5))
        return keras.ops.reshape(
            x, (-1, rows * self.size, columns * self.size, x.shape[-1])
        )


class Grid(Windows):
    """Windows whose positions lie as far apart as possible, all over the map.

    A map of `size` · n rows has windows of every n-th row, and columns likewise.

    Source: arXiv:2204.01697, section 3.2 and Figure 3.
    """

    def split(
        self, x: typing.Any, *, grid: tuple[typing.Any, typing.Any]
    ) -> typing.Any:
        rows, columns = grid
        shape = (-1, self.size, rows, self.size, columns, x.shape[-1])
        x = keras.ops.transpose(keras.ops.reshape(x, shape), (0, 2, 4, 1, 3, 5))
        return keras.ops.reshape(x, (-1, rows * columns, self.size**2, x.shape[-1]))

    def join(self, x: typing.Any, *, grid: tuple[typing.Any, typing.Any]) -> typing.Any:
        rows, columns = grid
        shape = (-1, rows, columns, self.size, self.size, x.shape[-1])
        x = keras.ops.transpose(keras.ops.reshape(x, shape), (0, 3, 1, 4, 2, 5))
        return keras.ops.reshape(
            x, (-1, self.size * rows, self.size * columns, x.shape[-1])
        )


def pad(x: typing.Any, margins: typing.Sequence[typing.Any]) -> typing.Any:
    """Adds rows of zeros below a map [B, H, W, C], and columns on its right."""
    if all(isinstance(margin, int) and not margin for margin in margins):
        return x
    return keras.ops.pad(x, [[0, 0], *([0, margin] for margin in margins), [0, 0]])


class _Partition(keras.layers.Layer):
    """Base class of the layers that cut maps into windows and join them.

    Args:
      windows: size and shift.
      name: layer name.
    """

    def __init__(self, windows: Windows, *, name: str) -> None:
        super().__init__(name=name)
        self.windows = windows


class Split(_Partition):
    """Feature map [B, H, W, C] -> windows [B, N, T, C] of T = size² positions each."""

    def call(self, inputs: typing.Any) -> typing.Any:
        shape = keras.ops.shape(inputs)
        grid = self.windows.grid(shape)
        margins = [
            count * self.windows.size - n
            for count, n in zip(grid, shape[1:3], strict=True)
        ]
        x = pad(inputs, margins)
        if self.windows.shift:
            shifts = self.windows.shifts(shape)
            x = keras.ops.roll(x, [-shift for shift in shifts], axis=(1, 2))
        return self.windows.split(x, grid=grid)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, columns = self.windows.grid(input_shape)
        count = rows and columns and rows * columns
        return input_shape[0], count, self.windows.size**2, input_shape[-1]


class Join(_Partition):
    """Windows [B, N, T, C] -> the feature map [B, H, W, C] that was split.

    Called on a list of the windows and of a map that has the height and width.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        x, feature_map = inputs
        shape = keras.ops.shape(feature_map)
        x = self.windows.join(x, grid=self.windows.grid(shape))
        if self.windows.shift:
            x = keras.ops.roll(x, self.windows.shifts(shape), axis=(1, 2))
        return x[:, : shape[1], : shape[2]]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        windows, feature_map = input_shape
        return (*feature_map[:3], windows[-1])


class RelativePositions(keras.layers.Layer):
    """A learned number for each head and each offset of two positions in a window.

    Called on any tensor; the output is its variable.

    Source: arXiv:2103.14030, equation 4.

    Variables: `NAME/embedding` [(2 · size - 1)², heads].

    Args:
      size: rows and columns of a window.
      num_heads: number of heads.
      name: layer name, and the first part of its variable's path.
    """

    def __init__(self, size: int, num_heads: int, *, name: str) -> None:
        super().__init__(name=name)
        self.shape = ((2 * size - 1) ** 2, num_heads)

    def build(self, input_shape: Shape) -> None:
        initializer = truncated_normal.TruncatedNormal(stddev=0.02)
        self.embedding = self.add_weight(self.shape, initializer, name="embedding")
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        return keras.ops.convert_to_tensor(self.embedding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.shape

    def multiply_adds(self, input_shape: Shape) -> int:
        return 0


class RelativeCoordinates(keras.layers.Layer):
    """Offsets of two positions in a window, [(2 · size - 1)², 2], on a log scale.

    Called on any tensor. An offset d becomes sign(d) · log2(1 + 8 · |d| / (size - 1)) /
    3.

    Source: arXiv:2111.09883, equation 4; `models/swin_transformer_v2.py` of
    microsoft/Swin-Transformer for the factor 8.

    Args:
      size: rows and columns of a window.
      pretrained_size: those of the windows in the first training, which set the scale.
      name: layer name.
    """

    def __init__(self, size: int, *, pretrained_size: int, name: str) -> None:
        super().__init__(name=name)
        offsets = np.arange(1 - size, size) / max(pretrained_size - 1, 1)
        scaled = np.sign(offsets) * np.log2(1 + 8 * np.abs(offsets)) / 3
        pairs = np.stack(np.meshgrid(scaled, scaled, indexing="ij"), axis=-1)
        self.coordinates = pairs.reshape(-1, 2).astype("float32")

    def call(self, inputs: typing.Any) -> typing.Any:
        return keras.ops.convert_to_tensor(self.coordinates, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.coordinates.shape


class WindowAttention(keras.layers.Layer):
    """Self-attention in each window, with a bias for each offset of two positions.

    Called on a list: queries, keys and values side by side [B, N, T, 3 · C]; the biases
    [(2 · size - 1)², heads]; and a map [B, H, W, _] that has the height and width.
    Output: [B, N, T, C].

    Source: arXiv:2103.14030, equation 4 and section 3.2.

    Args:
      windows: size and shift.
      num_heads: number of heads, which divides C.
      scale: factor of the dot products; None for the inverse of the root of a head's
        channels.
      name: layer name.
    """

    def __init__(
        self,
        windows: Windows,
        num_heads: int,
        *,
        scale: float | None = None,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.windows = windows
        self.num_heads = num_heads
        self.scale = scale
        self.offsets = _offsets(windows.size)

    def call(self, inputs: typing.Any) -> typing.Any:
        qkv, biases, feature_map = inputs
        _, count, tokens, channels = keras.ops.shape(qkv)
        size = channels // (3 * self.num_heads)
        x = keras.ops.reshape(qkv, (-1, tokens, 3, self.num_heads, size))
        queries, keys, values = keras.ops.unstack(
            keras.ops.transpose(x, (2, 0, 3, 1, 4))
        )
        logits = self.compare(queries, keys)
        logits = keras.ops.reshape(
            logits, (-1, count, self.num_heads, tokens, tokens)
        ) + self.added(biases, keras.ops.shape(feature_map))
        logits = keras.ops.reshape(logits, (-1, self.num_heads, tokens, tokens))
        weights = keras.ops.softmax(keras.ops.cast(logits, "float32"))
        x = keras.ops.matmul(keras.ops.cast(weights, values.dtype), values)
        x = keras.ops.transpose(x, (0, 2, 1, 3))
        return keras.ops.reshape(x, (-1, count, tokens, channels // 3))

    def compare(self, queries: typing.Any, keys: typing.Any) -> typing.Any:
        """Returns the scaled dot products [_, heads, T, T] of [_, heads, T, size]."""
        queries = queries * (self.scale or queries.shape[-1] ** -0.5)
        return keras.ops.matmul(queries, keras.ops.transpose(keys, (0, 1, 3, 2)))

    def added(self, biases: typing.Any, shape: tuple[typing.Any, ...]) -> typing.Any:
        """Returns what is added to the logits, [N or 1, heads, T, T]."""
        tokens = self.windows.size**2
        x = keras.ops.reshape(
            keras.ops.take(biases, self.offsets, axis=0), (tokens, tokens, -1)
        )
        x = keras.ops.transpose(x, (2, 0, 1))[None]
        if not self.windows.has_parts(shape):
            return x
        labels = self.windows.labels(shape)
        apart = keras.ops.not_equal(labels[:, :, None], labels[:, None, :])
        return x + APART * keras.ops.cast(apart, x.dtype)[:, None]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        *others, channels = input_shape[0]
        return (*others, channels and channels // 3)

    def multiply_adds(self, input_shape: list[tuple[int, ...]]) -> int:
        """Counts both products of T × T weights, with the keys and with the values."""
        _, count, tokens, channels = input_shape[0]
        return 2 * count * tokens**2 * (channels // 3)


class CosineWindowAttention(WindowAttention):
    """Attention by the cosine of queries and keys, with a learned scale for each head.

    The biases are 16 · sigmoid of those that are given.

    Source: arXiv:2111.09883, equation 2; `models/swin_transformer_v2.py` of
    microsoft/Swin-Transformer for the sigmoid.

    Variables: `NAME/logit_scale` [heads], a logarithm, which counts up to log(100).
    """

    def build(self, input_shape: list[Shape]) -> None:
        initializer = keras.initializers.Constant(math.log(10))
        self.logit_scale = self.add_weight(
            (self.num_heads,), initializer, name="logit_scale"
        )
        self.built = True

    def compare(self, queries: typing.Any, keys: typing.Any) -> typing.Any:
        scale = keras.ops.exp(keras.ops.minimum(self.logit_scale, math.log(100)))
        queries = _unit(queries) * keras.ops.reshape(scale, (-1, 1, 1))
        return keras.ops.matmul(queries, keras.ops.transpose(_unit(keys), (0, 1, 3, 2)))

    def added(self, biases: typing.Any, shape: tuple[typing.Any, ...]) -> typing.Any:
        return super().added(16 * keras.ops.sigmoid(biases), shape)


def attend(
    inputs: keras.KerasTensor,
    windows: Windows,
    num_heads: int,
    *,
    scale: float | None = None,
    name: str,
) -> keras.KerasTensor:
    """Split -> queries, keys and values -> attention with biases -> linear -> join.

    Args:
      inputs: feature map [B, H, W, C].
      windows: size and shift.
      num_heads: number of heads, which divides C.
      scale: factor of the dot products, see `WindowAttention`.
      name: first part of the layers' names.

    Returns:
      [B, H, W, C].
    """
    channels = inputs.shape[-1]
    x = Split(windows, name=f"{name}_windows")(inputs)
    qkv = transformer.dense(3 * channels, name=f"{name}_qkv")(x)
    biases = RelativePositions(windows.size, num_heads, name=f"{name}_positions")(
        inputs
    )
    x = WindowAttention(windows, num_heads, scale=scale, name=f"{name}_attention")(
        [qkv, biases, inputs]
    )
    x = transformer.dense(channels, name=f"{name}_attention_project")(x)
    return Join(windows, name=f"{name}_map")([x, inputs])


def _unit(x: typing.Any) -> typing.Any:
    """Returns vectors of length 1 on the last axis; zeros stay zeros.

    Computed in float32: squares may be too large or too small for float16.
    """
    exact = keras.ops.cast(x, "float32")
    squares = keras.ops.sum(keras.ops.square(exact), axis=-1, keepdims=True)
    unit = exact * keras.ops.rsqrt(keras.ops.maximum(squares, 1e-24))
    return keras.ops.cast(unit, x.dtype)


def _offsets(size: int) -> np.ndarray:
    """Returns, for each pair of positions in a window, the row of their bias, [T²]."""
    rows, columns = (axis.reshape(-1) for axis in np.indices((size, size)))
    down = rows[:, None] - rows + size - 1
    right = columns[:, None] - columns + size - 1
    return (down * (2 * size - 1) + right).reshape(-1)
