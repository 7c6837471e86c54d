"""Between feature maps and patches of 2 × 2 pixels, of which each pixel is a token.

Source: arXiv:2110.02178, section 3.1, equation 1 and Figure 4. A pixel attends to those
at the same place in the other patches, so an image has four sequences of tokens.
"""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]

PATCH_SIZE = 2  # section 3.2 of the paper: at all resolutions
PIXELS = PATCH_SIZE**2


class WholePatches(keras.layers.Layer):
    """Resizes a feature map bilinearly so that it divides into whole patches.

    Output: [B, H', W', C], with H and W rounded up to multiples of the patch size.

    Args:
      align_corners: whether the corners of both maps are at the same place, as in V2;
        if not, their borders are.
      name: layer name.
    """

    def __init__(self, *, align_corners: bool, name: str) -> None:
        super().__init__(name=name)
        self.align_corners = align_corners

    def call(self, inputs: typing.Any) -> typing.Any:
        _, height, width, _ = keras.ops.shape(inputs)
        size = _rounded_up(height), _rounded_up(width)
        return _resize(inputs, size, align_corners=self.align_corners)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (
            batch,
            height and _rounded_up(height),
            width and _rounded_up(width),
            channels,
        )


class ResizeLike(keras.layers.Layer):
    """Resizes a feature map bilinearly to the height and width of another one.

    Called on a list of the two; the borders of both maps are at the same place.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        x, other = inputs
        _, height, width, _ = keras.ops.shape(other)
        return _resize(x, (height, width), align_corners=False)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        x, other = input_shape
        return (*other[:3], x[-1])


class Unfold(keras.layers.Layer):
    """Feature map [B, H, W, C] -> pixels of patches [B, P, N, C].

    P = 4 places in a patch and N patches, both row by row.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        batch, height, width, channels = keras.ops.shape(inputs)
        rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
        shape = (batch, rows, PATCH_SIZE, columns, PATCH_SIZE, channels)
        x = keras.ops.reshape(inputs, shape)
        x = keras.ops.transpose(x, (0, 2, 4, 1, 3, 5))
        return keras.ops.reshape(x, (batch, PIXELS, rows * columns, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        patches = height and width and height * width // PIXELS
        return batch, PIXELS, patches, channels


class Fold(keras.layers.Layer):
    """Pixels of patches [B, P, N, C] or [B · P, N, C] -> feature map [B, H, W, C].

    Called on a list of the pixels and of a feature map that has the height and width.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        pixels, whole = inputs
        batch, height, width, _ = keras.ops.shape(whole)
        rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
        shape = (batch, PATCH_SIZE, PATCH_SIZE, rows, columns, pixels.shape[-1])
        x = keras.ops.reshape(pixels, shape)
        x = keras.ops.transpose(x, (0, 3, 1, 4, 2, 5))
        return keras.ops.reshape(x, (batch, height, width, pixels.shape[-1]))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        pixels, whole = input_shape
        return (*whole[:3], pixels[-1])


def _rounded_up(length: typing.Any) -> typing.Any:
    return (length + PATCH_SIZE - 1) // PATCH_SIZE * PATCH_SIZE


def _resize(
    x: typing.Any, size: tuple[typing.Any, typing.Any], *, align_corners: bool
) -> typing.Any:
    """Resizes bilinearly, also to sizes that are known at the call alone."""
    old_size = keras.ops.shape(x)[1:3]
    for axis, (length, old) in enumerate(zip(size, old_size, strict=True), start=1):
        if not (isinstance(length, int) and length == old):
            positions = _positions(length, old, align_corners)
            x = _interpolate(x, positions, last=old - 1, axis=axis)
    return x


def _positions(length: typing.Any, old: typing.Any, align_corners: bool) -> typing.Any:
    """Returns the places of `length` new positions among `old` ones, [length]."""
    index = keras.ops.cast(keras.ops.arange(length), "float32")
    length, old = (keras.ops.cast(n, "float32") for n in (length, old))
    if align_corners:
        return index * (old - 1.0) / keras.ops.maximum(length - 1.0, 1.0)
    return keras.ops.clip((index + 0.5) * (old / length) - 0.5, 0.0, old - 1.0)


def _interpolate(
    x: typing.Any, positions: typing.Any, *, last: typing.Any, axis: int
) -> typing.Any:
    """Returns values between the two neighbours of each position on an axis."""
    first = keras.ops.floor(positions)
    shape = [-1 if index == axis else 1 for index in range(4)]
    share = keras.ops.cast(keras.ops.reshape(positions - first, shape), x.dtype)
    index = keras.ops.cast(first, "int32")
    before = keras.ops.take(x, index, axis=axis)
    after = keras.ops.take(x, keras.ops.minimum(index + 1, last), axis=axis)
    return before + (after - before) * share
