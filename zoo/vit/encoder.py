"""What the vision transformers of this family share: patches, tokens and blocks."""

from __future__ import annotations

import typing
from collections.abc import Sequence

import keras

from zoo import spec
from zoo.layers import attention, position_embedding, tokens, transformer
from zoo.layers import truncated_normal as initializers

Endpoints = dict[str, keras.KerasTensor]


def check_sizes(instance: typing.Any) -> None:
    """Raises ValueError unless a spec's sizes fit each other."""
    name = type(instance).__name__
    for field in ("patch_size", "depth", "channels", "num_heads"):
        spec.check_range(f"{name}.{field}", getattr(instance, field), 1, 8192)
    if instance.grid_size is not None:
        spec.check_range(f"{name}.grid_size", instance.grid_size, 1, 4096)
    if instance.channels % instance.num_heads:
        raise ValueError(
            f"{name}.channels must be a multiple of num_heads, not {instance.channels} "
            f"for {instance.num_heads} heads."
        )
    if instance.image_size < instance.patch_size:
        raise ValueError(
            f"{name}.image_size must be at least one patch, {instance.patch_size} "
            f"pixels, not {instance.image_size}."
        )


def embed_patches(
    images: keras.KerasTensor,
    instance: typing.Any,
    *,
    interpolation: position_embedding.Interpolation,
    use_bias: bool = True,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Projects each patch and adds its position embedding.

    Rows and columns of pixels beyond the last whole patch are left out.

    Source: arXiv:2010.11929, equation 1.

    Args:
      images: [B, H, W, 3].
      instance: spec with `patch_size`, `channels`, `image_size` and `grid_size`.
      interpolation: how positions are interpolated for images of other sizes.
      use_bias: whether the projection has a bias.

    Returns:
      The projected patches [B, h, w, C], and with positions as tokens [B, h · w, C].
    """
    patches = keras.layers.Conv2D(
        instance.channels,
        instance.patch_size,
        strides=instance.patch_size,
        use_bias=use_bias,
        kernel_initializer=initializers.TruncatedNormal(stddev=0.02),
        name="patches",
    )(images)
    side = instance.grid_size or instance.image_size // instance.patch_size
    x = position_embedding.PositionEmbedding(
        (side, side), interpolation=interpolation, name="position_embedding"
    )(patches)
    return patches, tokens.FromMap(name="tokens")(x)


def growing(rate: float, depth: int) -> list[float]:
    """Returns a rate for each block, which grows linearly from 0 to `rate`."""
    return [rate * index / max(depth - 1, 1) for index in range(depth)]


def encode(
    x: keras.KerasTensor,
    block: transformer.Block,
    *,
    drop_path_rates: Sequence[float],
) -> Endpoints:
    """Applies blocks to tokens.

    Args:
      x: tokens [B, T, C].
      block: settings of all blocks.
      drop_path_rates: share of images whose branches are dropped in training, for each
        block.

    Returns:
      The tokens after each block, `block_1` … [B, T, C], and `attention`, the weights
      of the last block [B, heads, T, T].
    """
    endpoints = {}
    for number, rate in enumerate(drop_path_rates, 1):
        x, qkv = block(x, drop_path_rate=rate, name=f"block_{number}")
        endpoints[f"block_{number}"] = x
    weights = attention.AttentionMap(block.num_heads, name="attention_map")
    endpoints["attention"] = weights(qkv)
    return endpoints


def class_token_outputs(
    x: keras.KerasTensor,
    patches: keras.KerasTensor,
    *,
    norm_epsilon: float,
    registers: int = 0,
) -> Endpoints:
    """Norm -> tokens of the patches as a map, and the class token.

    Args:
      x: tokens after the last block: class token, registers, patches.
      patches: the projected patches [B, h, w, C].
      norm_epsilon: number added to the variance.
      registers: number of register tokens.

    Returns:
      `feature_map` [B, h, w, C] and `feature_vector` [B, C].
    """
    x = transformer.norm(norm_epsilon, name="norm")(x)
    to_map = tokens.ToMap(prefix=1 + registers, name="feature_map")
    return {
        "feature_map": to_map([x, patches]),
        "feature_vector": tokens.First(name="feature_vector")(x),
    }
