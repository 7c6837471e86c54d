"""Parts that the ResNets share: table rows, residual blocks, shortcuts and pools."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence

import keras

from zoo.layers import conv_norm, dropping

EXPANSION = 4  # output channels of a ResNet's bottleneck relative to its middle's
ACTIVATION = "relu"
POOL_PADDINGS = ("same", "symmetric")
STRIDES_IN = ("1x1", "3x3")


class Stage(typing.NamedTuple):
    """One row of a table such as Table 1 of arXiv:1512.03385."""

    channels: int
    strides: int
    blocks: Mapping[int, int]  # depth of the network -> number of blocks


def check_depth(depth: int, stages: Sequence[Stage]) -> None:
    """Raises ValueError if the table has no column for `depth`."""
    depths = stages[0].blocks
    if depth not in depths:
        raise ValueError(
            f"depth must be one of {', '.join(map(str, depths))}, not {depth!r}."
        )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError if `value` is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def style(
    *, momentum: float, epsilon: float, initializer: typing.Any
) -> conv_norm.Style:
    """Returns the style of a ResNet: ReLU, and padding independent of the input size.

    Symmetric padding is called `conv2d_same` in TF-Slim and fixed padding in the TPU
    code. PyTorch and keras.applications have it too.
    """
    return conv_norm.Style(
        activation=ACTIVATION,
        norm_momentum=momentum,
        norm_epsilon=epsilon,
        initializer=initializer,
        depthwise_initializer=initializer,
        padding="symmetric",
    )


def variance_scaling(scale: float, *, mode: str) -> keras.initializers.Initializer:
    """Returns a uniform initialiser with variance scale / fan; `mode` selects the fan.

    The reference codes draw from (truncated) normal distributions of the same variance.
    Keras takes a second longer to draw 60 million values from those.
    """
    return keras.initializers.VarianceScaling(scale, mode, distribution="uniform")


def max_pool(inputs: keras.KerasTensor, *, padding: str) -> keras.KerasTensor:
    """Adds a 3×3 max pool with stride 2, the last layer of a stem.

    Args:
      inputs: [B, H, W, C].
      padding: `symmetric` pads one zero on each side. `same` is TensorFlow's: padding
        is never the maximum, and at even sizes it is at the bottom and right only.
    """
    check_choice("pool_padding", padding, POOL_PADDINGS)
    x = inputs
    if padding == "symmetric":
        x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
        padding = "valid"
    return keras.layers.MaxPooling2D(3, 2, padding=padding, name="stem_pool")(x)


def deep_stem(
    inputs: keras.KerasTensor, *, style: conv_norm.Style
) -> keras.KerasTensor:
    """Three 3×3 convs, the first with stride 2, in place of one 7×7 conv.

    Source: arXiv:1812.01187, section 4.1 and Figure 2 (b), ResNet-C.
    """
    x = inputs
    for number, channels in enumerate((32, 32, 64), start=1):
        x = conv_norm.ConvNorm(
            channels,
            kernel_size=3,
            strides=2 if number == 1 else 1,
            style=style,
            name=f"stem_{number}",
        )(x)
    return x


def basic(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    shortcut: keras.KerasTensor,
    zero_last_gamma: bool = False,
) -> keras.KerasTensor:
    """3×3 conv -> 3×3 linear conv -> add -> ReLU.

    Source: arXiv:1512.03385, Figure 5, left. The first convolution has the stride.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), channels], the shape of `shortcut`.
    """
    x = conv_norm.ConvNorm(
        channels, kernel_size=3, strides=strides, style=style, name=f"{name}_conv_1"
    )(inputs)
    x = conv_norm.ConvNorm(
        channels,
        kernel_size=3,
        linear=True,
        gamma_initializer="zeros" if zero_last_gamma else "ones",
        style=style,
        name=f"{name}_conv_2",
    )(x)
    return add(x, shortcut, name=name)


def bottleneck(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    shortcut: keras.KerasTensor,
    stride_in: str = "3x3",
    groups: int = 1,
    zero_last_gamma: bool = False,
    squeeze_excite: keras.layers.Layer | None = None,
    drop_path_rate: float = 0.0,
) -> keras.KerasTensor:
    """1×1 reduce -> 3×3 -> 1×1 linear expand -> squeeze-excite -> add -> ReLU.

    Source: arXiv:1512.03385, Figure 5, right; with squeeze-excite arXiv:2103.07579,
    section 4.1; with `groups` arXiv:1611.05431, Figure 3 (c).

    Args:
      inputs: [B, H, W, C].
      channels: channels of the middle.
      strides: strides of the block, 1 or 2.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.
      shortcut: tensor to add; it has the shape of the output.
      stride_in: the convolution with the stride, `1x1` (the first one) or `3x3`.
      groups: groups of channels that the 3×3 convolution convolves separately.
      zero_last_gamma: initialise the last batch norm's gamma with zeros, so that the
        block initially returns its shortcut.
      squeeze_excite: squeeze-excite layer at the end of the branch, or None.
      drop_path_rate: probability of dropping the residual branch in training.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), N], the shape of `shortcut`.
    """
    x = conv_norm.ConvNorm(
        channels,
        kernel_size=1,
        strides=strides if stride_in == "1x1" else 1,
        style=style,
        name=f"{name}_reduce",
    )(inputs)
    x = conv_norm.ConvNorm(
        channels,
        kernel_size=3,
        strides=strides if stride_in == "3x3" else 1,
        groups=groups,
        style=style,
        name=f"{name}_middle",
    )(x)
    x = conv_norm.ConvNorm(
        shortcut.shape[-1],
        kernel_size=1,
        linear=True,
        gamma_initializer="zeros" if zero_last_gamma else "ones",
        style=style,
        name=f"{name}_expand",
    )(x)
    if squeeze_excite is not None:
        x = squeeze_excite(x)
    if drop_path_rate > 0:
        x = dropping.DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
    return add(x, shortcut, name=name)


def add(
    branch: keras.KerasTensor, shortcut: keras.KerasTensor, *, name: str
) -> keras.KerasTensor:
    """Add -> ReLU.

    The shortcut is the first input, because Keras walks from a tensor to its first
    input recursively: in a network with 420 layers, walking through the branches would
    exceed Python's recursion limit.
    """
    x = keras.layers.Add(name=f"{name}_add")([shortcut, branch])
    return keras.layers.Activation(ACTIVATION, name=f"{name}_out")(x)


def projection(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
    pool: bool = False,
) -> keras.KerasTensor:
    """Returns the shortcut of a block: the inputs, or a 1×1 linear conv of them.

    The convolution is there only if the block changes the shape.

    Source: arXiv:1512.03385, section 3.3, option B; with `pool` arXiv:1812.01187,
    section 4.1 and Figure 2 (c), ResNet-D: a 2×2 average pool has the stride, so that
    no position is skipped.
    """
    if strides == 1 and inputs.shape[-1] == channels:
        return inputs
    x = inputs
    if pool and strides > 1:
        x = keras.layers.AveragePooling2D(
            strides, padding="same", name=f"{name}_shortcut_pool"
        )(x)
        strides = 1
    return conv_norm.ConvNorm(
        channels,
        kernel_size=1,
        strides=strides,
        linear=True,
        style=style,
        name=f"{name}_shortcut",
    )(x)
