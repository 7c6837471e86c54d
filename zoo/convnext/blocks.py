"""Stem, downsampling, stages and blocks that both versions of ConvNeXt share."""

from __future__ import annotations

import dataclasses
import typing

import keras

from zoo import spec
from zoo.layers import dropping, global_response_norm, layer_scale

PATCH = 4  # pixels, height and width of the stem's kernel
KERNEL_SIZE = 7
EXPANSION_RATIO = 4
NORM_EPSILON = 1e-6
ACTIVATION = "gelu"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual:
    """How the residual branch of a block ends.

    Args:
      scale_start: initial value of the layer scale, which V1 has; None for none.
      has_response_norm: whether global response normalisation follows the activation,
        as in V2.
    """

    scale_start: float | None
    has_response_norm: bool


def check_stages(instance: typing.Any) -> None:
    """Raises ValueError unless `depths` and `channels` describe the same stages."""
    name = type(instance).__name__
    depths, channels = instance.depths, instance.channels
    for field, values in (("depths", depths), ("channels", channels)):
        for value in values:
            spec.check_range(f"Each of {name}.{field}", value, 1, 8192)
    if not depths or len(depths) != len(channels):
        raise ValueError(
            f"{name}.depths and {name}.channels must have as many values as there are "
            f"stages, not {len(depths)} and {len(channels)}."
        )


def build(
    *,
    depths: tuple[int, ...],
    channels: tuple[int, ...],
    residual: Residual,
    drop_path_rate: float,
    name: str,
) -> keras.Model:
    """4×4 stem -> norm -> stages -> average pool -> norm.

    Source: arXiv:2201.03545, Table 9 and section 2.2 on the macro design;
    `models/convnext.py` of facebookresearch/ConvNeXt.

    Args:
      depths: number of blocks of each stage.
      channels: channels of each stage.
      residual: how the residual branches end.
      drop_path_rate: share of images whose branch is dropped in the last block; it
        grows linearly from 0 in the first.
      name: name of the model.

    Returns:
      The backbone. `feature_vector` [B, channels[-1]] is the normalised mean of
      `feature_map` over all positions.
    """
    images = keras.Input((None, None, 3), name="images")
    endpoints = {}

    x = _convolution(channels[0], PATCH, strides=PATCH, name="stem")(images)
    x = _norm("stem_norm")(x)
    endpoints["stem"] = x
    last, index = sum(depths) - 1, 0
    for number, (depth, width) in enumerate(zip(depths, channels, strict=True), 1):
        for block in range(1, depth + 1):
            block_name = f"stage_{number}_block_{block}"
            if block == 1 and number > 1:
                x = _norm(f"{block_name}_downsample_norm")(x)
                x = _convolution(width, 2, strides=2, name=f"{block_name}_downsample")(
                    x
                )
            x = _block(
                x,
                residual=residual,
                drop_path_rate=drop_path_rate * index / last if last else 0.0,
                name=block_name,
            )
            index += 1
        endpoints[f"stage_{number}"] = x
    endpoints["feature_map"] = x
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    endpoints["feature_vector"] = _norm("feature_vector")(x)
    return keras.Model(images, endpoints, name=name)


def _block(
    inputs: keras.KerasTensor, *, residual: Residual, drop_path_rate: float, name: str
) -> keras.KerasTensor:
    """7×7 depthwise -> norm -> 1×1 expand -> GELU -> 1×1 project -> scale -> add.

    Source: arXiv:2201.03545, Figure 4; arXiv:2301.00808, Figure 5, for V2, which
    normalises the response after GELU instead of scaling.

    Args:
      inputs: [B, H, W, C].
      residual: how the branch ends.
      drop_path_rate: share of images whose branch is dropped in training.
      name: name of the block, such as `stage_2_block_1`.

    Returns:
      [B, H, W, C].
    """
    channels = inputs.shape[-1]
    x = keras.layers.DepthwiseConv2D(
        KERNEL_SIZE,
        padding="same",
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise",
    )(inputs)
    x = _norm(f"{name}_norm")(x)
    x = _convolution(
        EXPANSION_RATIO * channels, 1, activation=ACTIVATION, name=f"{name}_expand"
    )(x)
    if residual.has_response_norm:
        x = global_response_norm.GlobalResponseNorm(name=f"{name}_response_norm")(x)
    x = _convolution(channels, 1, name=f"{name}_project")(x)
    if residual.scale_start is not None:
        x = layer_scale.LayerScale(residual.scale_start, name=f"{name}_scale")(x)
    return dropping.add(inputs, x, rate=drop_path_rate, name=name)


def _convolution(
    filters: int,
    size: int,
    *,
    strides: int = 1,
    activation: str | None = None,
    name: str,
) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        activation=activation,
        kernel_initializer=_initializer(),
        name=name,
    )


def _norm(name: str) -> keras.layers.LayerNormalization:
    """Normalises the channels of each position."""
    return keras.layers.LayerNormalization(epsilon=NORM_EPSILON, name=name)


def _initializer() -> keras.Initializer:
    """N(0, 0.02²): the authors' code truncates it at a hundred standard deviations."""
    return keras.initializers.RandomNormal(stddev=0.02)
