"""Channel split and channel shuffle, which move channels without computing."""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]


class ChannelHalf(keras.layers.Layer):
    """One half of the channels; the layers of both halves are a channel split.

    Source: arXiv:1807.11164, section 3.2. Output: [B, H, W, C / 2]. Each half is
    a layer of its own, because the layers of this project's models have one output.

    Args:
      half: 0 for the first half of the channels, 1 for the second.
      name: layer name.
    """

    def __init__(self, half: int, *, name: str) -> None:
        super().__init__(name=name)
        if half not in (0, 1):
            raise ValueError(f"half of {name} must be 0 or 1, not {half!r}.")
        self.half = half

    def call(self, inputs: typing.Any) -> typing.Any:
        channels = inputs.shape[-1] // 2
        return inputs[..., self.half * channels :][..., :channels]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], _divided(input_shape[-1], 2, self.name)


class ChannelShuffle(keras.layers.Layer):
    """Interleaves groups of channels: the output's first is the first of each group.

    Source: arXiv:1707.01083, section 3.1. The output has the input's shape.

    Args:
      groups: number of groups; 2 in ShuffleNet V2.
      name: layer name.
    """

    def __init__(self, groups: int, *, name: str) -> None:
        super().__init__(name=name)
        self.groups = groups

    def call(self, inputs: typing.Any) -> typing.Any:
        # The transposition is faster than a gather, a stack of the groups along a new
        # last axis, or a 1×1 convolution with a permutation.
        size = _divided(inputs.shape[-1], self.groups, self.name)
        x = keras.ops.reshape(inputs, (-1, self.groups, size))
        x = keras.ops.transpose(x, (0, 2, 1))
        return keras.ops.reshape(x, keras.ops.shape(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _divided(input_shape[-1], self.groups, self.name)
        return input_shape


def _divided(channels: int | None, groups: int, name: str) -> int:
    """Returns the channels of each of `groups` groups of equal size."""
    if not channels or channels % groups:
        raise ValueError(f"{name} can't divide {channels} channels into {groups}.")
    return channels // groups
