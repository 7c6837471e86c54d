"""Cells of NASNet and PNASNet: tables of paired operations, and the layers they name.

Source: Zoph et al., arXiv:1707.07012, section 3; Liu et al., arXiv:1712.00559, section
3. Reference code: TF-Slim's `nets/nasnet/nasnet_utils.py`.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

import keras

from zoo.layers import conv_norm, dropping
from zoo.nasnet import operations

CURRENT = "current"
PREVIOUS = "previous"
POOLS = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}

Operand = tuple[str, str | int]
"""An operation and its input.

The operation is `separable_KxK`, `max_KxK`, `average_KxK` or `identity`. The input is
`CURRENT`, the output of the cell before; `PREVIOUS`, that of the cell before that one;
or the number of an earlier pair of the cell.
"""


class Pair(typing.NamedTuple):
    """Two operations whose results are added; the papers call it a block."""

    left: Operand
    right: Operand


class Cell(typing.NamedTuple):
    """A cell: its pairs, and the inputs and pairs that its output concatenates."""

    pairs: tuple[Pair, ...]
    outputs: tuple[str | int, ...]


class Row(typing.NamedTuple):
    """One cell of a network.

    Args:
      stage: number of the stage; the cells of a stage have the same resolution.
      block: number of the cell in its stage.
      cell: the cell's table.
      channels: output channels of each operation.
      strides: strides of the operations on both inputs of the cell, 1 or 2.
      previous: which earlier output is the cell's second input: 2 for the last but one.
        The first input is the last output.
      endpoint: TF-Slim's name of the cell's output; empty if it has none.
    """

    stage: int
    block: int
    cell: Cell
    channels: int
    strides: int
    previous: int = 2
    endpoint: str = ""


class Features(typing.NamedTuple):
    """The output of the stem or of a cell."""

    tensor: keras.KerasTensor
    relu: keras.KerasTensor  # `tensor` after a ReLU
    strides: int  # of all layers so far: side of the images ÷ side of `tensor`


class Settings(typing.NamedTuple):
    """What all cells of a network share.

    Args:
      style: settings of the convolutions.
      zero_padded_pools: kinds of pools (`max`, `average`) that, with strides 2, count
        the padding as zeros. Other pools leave out the padding.
    """

    style: conv_norm.Style
    zero_padded_pools: tuple[str, ...]


def style(*, momentum: float, epsilon: float) -> conv_norm.Style:
    """Returns the style of both networks: ReLU, `same` padding, TF-Slim's initialiser.

    TF-Slim draws from a truncated normal distribution of the same variance, 2 ÷ fan
    out.
    """
    initializer = keras.initializers.VarianceScaling(
        2.0, "fan_out", distribution="uniform"
    )
    return conv_norm.Style(
        activation="relu",
        norm_momentum=momentum,
        norm_epsilon=epsilon,
        initializer=initializer,
        depthwise_initializer=initializer,
    )


def check_pools(name: str, pools: tuple[str, ...]) -> None:
    """Raises ValueError if an element of `pools` is not the kind of a pool."""
    for pool in pools:
        if pool not in POOLS:
            raise ValueError(f"{name} may contain {' and '.join(POOLS)}, not {pool!r}.")


def network(
    rows: Sequence[Row],
    *,
    stem_channels: int,
    settings: Settings,
    drop_path_rate: float,
    name: str,
) -> keras.Model:
    """3×3 linear convolution without padding -> cells -> ReLU -> average pool.

    Args:
      rows: the cells, in data-flow order.
      stem_channels: output channels of the first convolution.
      settings: what all cells share.
      drop_path_rate: rate of the last cell. From the first cell to the last, the rate
        grows linearly. Source: TF-Slim's `_apply_drop_path`.
      name: name of the model.

    Returns:
      A backbone; see `BackboneSpec.build`.
    """
    images = keras.Input((None, None, 3), name="images")
    x = conv_norm.ConvNorm(
        stem_channels,
        kernel_size=3,
        strides=2,
        padding="valid",
        linear=True,
        style=settings.style,
        name="stem",
    )(images)
    endpoints = {"stem": x}
    outputs = [Features(x, _relu(x, name="stem_relu"), strides=2)]
    for number, row in enumerate(rows, start=1):
        block = f"stage_{row.stage}_block_{row.block}"
        previous = outputs[-row.previous] if number > 1 else None
        x = _add_cell(
            row,
            outputs[-1],
            previous,
            settings=settings,
            drop_path_rate=drop_path_rate * number / len(rows),
            name=block,
        )
        relu = "feature_map" if number == len(rows) else f"{block}_relu"
        strides = row.strides * outputs[-1].strides
        outputs.append(Features(x, _relu(x, name=relu), strides))
        if row.endpoint:
            endpoints[row.endpoint] = x
        if number == len(rows) or rows[number].stage > row.stage:
            endpoints[f"stage_{row.stage}"] = x
    endpoints["feature_map"] = outputs[-1].relu
    pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
    endpoints["feature_vector"] = pool(outputs[-1].relu)
    return keras.Model(images, endpoints, name=name)


def _relu(inputs: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Adds the ReLU that the next two cells share."""
    return keras.layers.Activation("relu", name=name)(inputs)


def _add_cell(
    row: Row,
    current: Features,
    previous: Features | None,
    *,
    settings: Settings,
    drop_path_rate: float,
    name: str,
) -> keras.KerasTensor:
    """Matches the shapes of both inputs -> pairs of operations -> concatenate.

    Args:
      row: the cell's table, channels and strides.
      current: output of the cell before.
      previous: an earlier output, at the resolution of `current` or at twice that; None
        in the first cell, which reads `current` a second time.
      settings: what all cells share.
      drop_path_rate: probability of dropping the result of an operation in training.
      name: name of the cell, such as `stage_2_block_1`.

    Returns:
      [B, ceil(h / strides), ceil(w / strides), channels · number of outputs], where
      `current` is [B, h, w, c].
    """
    conv = _linear(row.channels, settings.style, name=f"{name}_current")
    states: dict[str | int, keras.KerasTensor] = {
        CURRENT: conv(current.relu),
        PREVIOUS: _match(
            previous,
            current,
            row.channels,
            style=settings.style,
            name=f"{name}_previous",
        ),
    }
    for number, pair in enumerate(row.cell.pairs, start=1):
        results = []
        for side, (operation, source) in zip(pair._fields, pair, strict=True):
            part = f"{name}_pair_{number}_{side}"
            result = _operate(
                states[source],
                operation,
                channels=row.channels,
                strides=row.strides if source in (CURRENT, PREVIOUS) else 1,
                settings=settings,
                name=part,
            )
            if drop_path_rate > 0 and operation != "identity":
                drop_path = dropping.DropPath(drop_path_rate, name=f"{part}_drop_path")
                result = drop_path(result)
            results.append(result)
        states[number] = keras.layers.Add(name=f"{name}_pair_{number}_add")(results)
    concatenate = keras.layers.Concatenate(name=f"{name}_concatenate")
    return concatenate([states[output] for output in row.cell.outputs])


def _linear(
    channels: int, style: conv_norm.Style, *, name: str, strides: int = 1
) -> conv_norm.ConvNorm:
    return conv_norm.ConvNorm(
        channels, kernel_size=1, strides=strides, linear=True, style=style, name=name
    )


def _match(
    previous: Features | None,
    current: Features,
    channels: int,
    *,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """Returns `previous` at the resolution of `current`, with `channels` channels.

    Source: arXiv:1707.07012, appendix A.4. The first cell takes `current`
    unchanged, as TF-Slim does, and its operations change the channels.
    """
    if previous is None:
        return current.tensor
    if previous.strides != current.strides:
        return operations.FactorizedReduction(channels, style=style, name=name)(
            previous.relu
        )
    if previous.tensor.shape[-1] == channels:
        return previous.tensor
    return _linear(channels, style, name=name)(previous.relu)


def _operate(
    inputs: keras.KerasTensor,
    operation: str,
    *,
    channels: int,
    strides: int,
    settings: Settings,
    name: str,
) -> keras.KerasTensor:
    """Adds one operation; a 1×1 convolution follows where the shape would be wrong."""
    kind, _, size = operation.partition("_")
    x = inputs
    if kind == "separable":
        return operations.Separable(
            channels,
            kernel_size=int(size[0]),
            strides=strides,
            style=settings.style,
            name=name,
        )(x)
    project = inputs.shape[-1] != channels
    if kind == "identity":
        if strides == 1 and not project:
            return x
        x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
        project = True
    else:
        padding = "same"
        if strides > 1 and kind in settings.zero_padded_pools:
            x = operations.SamePadding(name=f"{name}_pad")(x)
            padding = "valid"
        x = POOLS[kind](int(size[0]), strides, padding, name=f"{name}_pool")(x)
        strides = 1
    if project:
        x = _linear(channels, settings.style, name=name, strides=strides)(x)
    return x
