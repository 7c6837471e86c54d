"""Parts that the Inception networks share: modules of parallel branches, and pools."""

from __future__ import annotations

import typing
from collections.abc import Sequence

import keras

from zoo.layers import conv_norm

ACTIVATION = "relu"


class Conv(typing.NamedTuple):
    """Convolution, batch norm and activation; a kernel is square if it is a number."""

    channels: int
    kernel_size: int | tuple[int, int]
    strides: int = 1
    padding: str = "same"


class Pool(typing.NamedTuple):
    """3×3 pool. At the border, an average leaves out the padding."""

    kind: str  # `average` or `max`
    strides: int = 1
    padding: str = "same"


class Split(typing.NamedTuple):
    """Convolutions of one input, whose outputs are concatenated."""

    convs: tuple[Conv, ...]


Branch = tuple[Conv | Pool | Split, ...]
Module = tuple[Branch, ...]


def reduce(channels: int) -> Conv:
    """Returns the 3×3 convolution with which a branch halves the resolution."""
    return Conv(channels, 3, strides=2, padding="valid")


REDUCE_POOL = Pool("max", strides=2, padding="valid")


def style(
    *,
    momentum: float,
    epsilon: float,
    scale: bool,
    initializer: typing.Any = None,
    padding: str = "same",
) -> conv_norm.Style:
    """Returns the style of an Inception network.

    Args:
      momentum: share of the moving statistics that a training step keeps.
      epsilon: added to the variance.
      scale: whether batch norm has a scale, gamma.
      initializer: initialiser of kernels. By default, their variance is 2 / fan in, as
        TF-Slim's, but the distribution is uniform, not a truncated normal one.
      padding: padding of strided convolutions that do not specify it.
    """
    kernels = initializer or keras.initializers.VarianceScaling(
        2.0, "fan_in", distribution="uniform"
    )
    return conv_norm.Style(
        activation=ACTIVATION,
        norm_momentum=momentum,
        norm_epsilon=epsilon,
        initializer=kernels,
        depthwise_initializer=kernels,
        padding=padding,
        norm_scale=scale,
    )


def module(
    inputs: keras.KerasTensor,
    branches: Module,
    *,
    style: conv_norm.Style,
    name: str,
    pool_counts_padding: bool = False,
) -> keras.KerasTensor:
    """Parallel branches -> concatenate: an Inception module.

    Source: arXiv:1512.00567, Figures 5 to 7.

    Args:
      inputs: [B, H, W, C].
      branches: the layers of each branch.
      style: settings shared by the network's convolutions.
      name: name of the block. Its convolutions are `NAME_branch_N_conv_K`, both numbers
        from 1; the outputs are concatenated in this order.
      pool_counts_padding: whether average pools count the zeros beyond the border.

    Returns:
      [B, h, w, sum of the branches' channels]; h, w are those of the branches.
    """
    outputs = []
    for number, branch in enumerate(branches, start=1):
        x, convs = inputs, 0
        branch_name = f"{name}_branch_{number}"
        for layer in branch:
            if isinstance(layer, Pool):
                x = pool(x, layer, name=branch_name, counts_padding=pool_counts_padding)
                continue
            split = layer.convs if isinstance(layer, Split) else (layer,)
            parts = []
            for conv in split:
                convs += 1
                parts.append(_conv(x, conv, style, f"{branch_name}_conv_{convs}"))
            x = concatenate(parts, name=f"{branch_name}_concat")
        outputs.append(x)
    return concatenate(outputs, name=f"{name}_concat")


def sequence(
    inputs: keras.KerasTensor,
    layers: Sequence[Conv | Pool],
    *,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """One layer after the other; the convolutions are `NAME_K`, K from 1."""
    x, convs = inputs, 0
    for layer in layers:
        if isinstance(layer, Pool):
            x = pool(x, layer, name=f"{name}_{convs}")
        else:
            convs += 1
            x = _conv(x, layer, style, f"{name}_{convs}")
    return x


def pool(
    inputs: keras.KerasTensor, row: Pool, *, name: str, counts_padding: bool = False
) -> keras.KerasTensor:
    """Adds a 3×3 pool, the layer `NAME_pool`.

    Args:
      inputs: [B, H, W, C].
      row: kind, strides and padding of the pool.
      name: first part of the layer's name, such as that of the branch.
      counts_padding: whether an average pool counts the zeros beyond the border, as
        PyTorch's does by default.
    """
    x, padding = inputs, row.padding
    if row.kind == "average" and counts_padding:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid"
    kinds = {
        "average": keras.layers.AveragePooling2D,
        "max": keras.layers.MaxPooling2D,
    }
    return kinds[row.kind](3, row.strides, padding=padding, name=f"{name}_pool")(x)


def concatenate(
    tensors: Sequence[keras.KerasTensor], *, name: str
) -> keras.KerasTensor:
    """Concatenates channels; a single tensor is returned as it is."""
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(name=name)(list(tensors))


def _conv(
    inputs: keras.KerasTensor, row: Conv, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    return conv_norm.ConvNorm(
        row.channels,
        kernel_size=row.kernel_size,
        strides=row.strides,
        padding=row.padding,
        style=style,
        name=name,
    )(inputs)
