"""Stem, stages and block parts that both versions of Swin share."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

import keras

from zoo import spec
from zoo.layers import transformer, truncated_normal, windows

PATCH = 4  # pixels, height and width of the stem's kernel
NORM_EPSILON = 1e-5
MLP_RATIO = 4

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinSpec(spec.BackboneSpec):
    """Base class of the specs of both versions.

    Args:
      depths: number of blocks of each stage.
      channels: channels of the first stage; each further one has twice as many.
      num_heads: attention heads of each stage.
      window_sizes: rows and columns of the windows of each stage.
      drop_path_rate: share of images whose branches are dropped in the last block, in
        training; it grows from 0 in the first.
    """

    depths: tuple[int, ...]
    channels: int
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    image_size: int
    drop_path_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        spec.check_range(f"{name}.channels", self.channels, 1, 8192)
        for field in ("depths", "num_heads", "window_sizes"):
            values = getattr(self, field)
            for value in values:
                spec.check_range(f"Each of {name}.{field}", value, 1, 8192)
            if not values or len(values) != len(self.depths):
                raise ValueError(
                    f"{name}.{field} must have as many values as there are stages, "
                    f"{len(self.depths)}, not {len(values)}."
                )
        for stage, heads in enumerate(self.num_heads):
            if self.channels * 2**stage % heads:
                raise ValueError(
                    f"{name}.num_heads must divide the channels of each stage; "
                    f"{heads} do not divide {self.channels * 2**stage}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What the parts of a block need to know.

    Attributes:
      number: number of the stage, from 1.
      channels: channels.
      num_heads: attention heads.
      windows: size and shift of the windows.
    """

    number: int
    channels: int
    num_heads: int
    windows: windows.Windows


Merge = Callable[[keras.KerasTensor, str], keras.KerasTensor]


def build(
    sizes: SwinSpec,
    *,
    merge: Merge,
    block: Callable[[keras.KerasTensor, Stage, float, str], keras.KerasTensor],
    name: str,
) -> keras.Model:
    """4×4 stem -> norm -> stages, between which patches are merged -> norm -> mean.

    Source: arXiv:2103.14030, Figure 3 and section 3.1.

    Args:
      sizes: the spec, whose sizes apply.
      merge: merges 2 × 2 positions; its second argument is the name of its layers.
      block: applies a block, by stage, drop path rate and name.
      name: name of the model.

    Returns:
      The backbone. `feature_vector` [B, C] is the mean of `feature_map`, the normalised
      last stage, over all positions.
    """
    images = keras.Input((None, None, 3), name="images")
    endpoints = {}

    x = keras.layers.Conv2D(
        sizes.channels,
        PATCH,
        strides=PATCH,
        kernel_initializer=truncated_normal.TruncatedNormal(stddev=0.02),
        name="stem",
    )(images)
    x = norm("stem_norm")(x)
    endpoints["stem"] = x
    last, index = sum(sizes.depths) - 1, 0
    for number, depth in enumerate(sizes.depths, 1):
        for position in range(1, depth + 1):
            block_name = f"stage_{number}_block_{position}"
            if position == 1 and number > 1:
                x = merge(x, f"{block_name}_merge")
            size = sizes.window_sizes[number - 1]
            stage = Stage(
                number=number,
                channels=x.shape[-1],
                num_heads=sizes.num_heads[number - 1],
                windows=windows.Windows(size, 0 if position % 2 else size // 2),
            )
            rate = sizes.drop_path_rate * index / last if last else 0.0
            x = block(x, stage, rate, block_name)
            index += 1
        endpoints[f"stage_{number}"] = x
    x = norm("norm")(x)
    endpoints["feature_map"] = x
    endpoints["feature_vector"] = keras.layers.GlobalAveragePooling2D(
        name="feature_vector"
    )(x)
    return keras.Model(images, endpoints, name=name)


def mlp(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Dense to four times the channels -> GELU -> dense."""
    hidden = MLP_RATIO * x.shape[-1]
    return transformer.mlp(x, hidden=hidden, activation="gelu", name=f"{name}_mlp")


def norm(name: str) -> keras.layers.LayerNormalization:
    """Normalises the channels of each position."""
    return transformer.norm(NORM_EPSILON, name=name)


def reduce(channels: int, *, name: str) -> keras.layers.Dense:
    """Linear layer without bias that follows the merging of patches."""
    return keras.layers.Dense(
        channels,
        use_bias=False,
        kernel_initializer=truncated_normal.TruncatedNormal(stddev=0.02),
        name=name,
    )


class MergePatches(keras.layers.Layer):
    """[B, H, W, C] -> each 2 × 2 positions side by side, [B, H / 2, W / 2, 4 · C].

    Both positions of the left column come first. Odd heights and widths are padded with
    zeros.

    Source: arXiv:2103.14030, section 3.1; the order as in
    `models/swin_transformer.py` of microsoft/Swin-Transformer.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        _, height, width, channels = keras.ops.shape(inputs)
        x = windows.pad(inputs, (height % 2, width % 2))
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = keras.ops.reshape(x, (-1, rows, 2, columns, 2, channels))
        x = keras.ops.transpose(x, (0, 1, 3, 4, 2, 5))
        return keras.ops.reshape(x, (-1, rows, columns, 4 * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *sides, channels = input_shape
        rows, columns = (n and (n + 1) // 2 for n in sides)
        return batch, rows, columns, channels and 4 * channels
