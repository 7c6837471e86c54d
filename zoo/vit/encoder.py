"""What the vision transformers of this family share: patches, tokens and blocks."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import keras

from zoo import spec
from zoo.layers import attention, position_embedding, tokens, transformer
from zoo.layers import truncated_normal as initializers

Endpoints = dict[str, keras.KerasTensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSpec(spec.BackboneSpec):
    """Base class of the specs of this family.

    Args:
      patch_size: height and width of a patch, pixels.
      depth: number of blocks.
      channels: channels of each token.
      num_heads: attention heads of each block; they divide the channels.
      image_size: pixels.
      drop_path_rate: share of images whose branches are dropped in the last block, in
        training; it grows from 0 in the first.
    """

    patch_size: int
    depth: int
    channels: int
    num_heads: int
    image_size: int = 224
    drop_path_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        for field in ("patch_size", "depth", "channels", "num_heads"):
            spec.check_range(f"{name}.{field}", getattr(self, field), 1, 8192)
        if self.channels % self.num_heads:
            raise ValueError(
                f"{name}.channels must be a multiple of num_heads, not {self.channels} "
                f"for {self.num_heads} heads."
            )
        if self.image_size < self.patch_size:
            raise ValueError(
                f"{name}.image_size must be at least one patch, {self.patch_size} "
                f"pixels, not {self.image_size}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedPositionsSpec(TransformerSpec):
    """Base class of the specs whose positions are learned.

    Args:
      image_size: pixels; it also sets the number of learned positions.
      grid_size: rows and columns of learned positions; None for those of `image_size`.
        Set it to train on images of another size than the weights have positions for.
    """

    grid_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid_size is not None:
            name = f"{type(self).__name__}.grid_size"
            spec.check_range(name, self.grid_size, 1, 4096)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveSpec(LearnedPositionsSpec):
    """Base class of the specs of image towers that were trained beside a text tower.

    Args:
      is_zero_shot: whether the head divides the feature vector by its length, so that
        embeddings of texts are its kernel; see `zoo.zero_shot`.
    """

    is_zero_shot: bool = False

    text_scores: typing.ClassVar[str]
    """What turns logits of texts into scores: a softmax, or sigmoids after a bias."""

    @property
    def is_head_normalised(self) -> bool:
        return self.is_zero_shot


def project_patches(
    images: keras.KerasTensor, sizes: TransformerSpec, *, use_bias: bool = True
) -> keras.KerasTensor:
    """Projects each patch of images [B, H, W, 3], which gives a map [B, h, w, C].

    Rows and columns of pixels beyond the last whole patch are left out.
    """
    return keras.layers.Conv2D(
        sizes.channels,
        sizes.patch_size,
        strides=sizes.patch_size,
        use_bias=use_bias,
        kernel_initializer=initializers.TruncatedNormal(stddev=0.02),
        name="patches",
    )(images)


def embed_patches(
    images: keras.KerasTensor,
    sizes: LearnedPositionsSpec,
    *,
    interpolation: position_embedding.Interpolation,
    use_bias: bool = True,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Projects each patch and adds its position embedding.

    Source: arXiv:2010.11929, equation 1.

    Args:
      images: [B, H, W, 3].
      sizes: the spec, whose sizes apply.
      interpolation: how positions are interpolated for images of other sizes.
      use_bias: whether the projection has a bias.

    Returns:
      The projected patches [B, h, w, C], and with positions as tokens [B, h · w, C].
    """
    patches = project_patches(images, sizes, use_bias=use_bias)
    side = sizes.grid_size or sizes.image_size // sizes.patch_size
    x = position_embedding.PositionEmbedding(
        (side, side), interpolation=interpolation, name="position_embedding"
    )(patches)
    return patches, tokens.FromMap(name="tokens")(x)


def growing(depth: int) -> list[float]:
    """Returns a share for each block, which grows linearly from 0 to 1."""
    return [index / max(depth - 1, 1) for index in range(depth)]


def encode(
    x: keras.KerasTensor,
    block: transformer.Block,
    *,
    drop_path_rate: float,
    drop_path_shares: Sequence[float],
    rotation: keras.KerasTensor | None = None,
) -> Endpoints:
    """Applies blocks to tokens.

    Args:
      x: tokens [B, T, C].
      block: settings of all blocks.
      drop_path_rate: share of images whose branches are dropped in training.
      drop_path_shares: the share of that rate that applies to each block.
      rotation: rotary position embeddings of the tokens; None for none.

    Returns:
      The tokens after each block, `block_1` … [B, T, C], and `attention`, the weights
      of the last block [B, heads, T, T].
    """
    endpoints = {}
    for number, share in enumerate(drop_path_shares, 1):
        x, qkv = block(
            x,
            rotation=rotation,
            drop_path_rate=drop_path_rate,
            drop_path_share=share,
            name=f"block_{number}",
        )
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


def class_and_mean(outputs: Endpoints) -> Endpoints:
    """Returns the endpoint that the linear heads of DINOv2 and DINOv3 read.

    Args:
      outputs: `feature_map` [B, h, w, C] and `feature_vector` [B, C], the class token.

    Returns:
      `class_and_mean` [B, 2 · C], the class token and the mean of the feature map.
    """
    mean = keras.layers.GlobalAveragePooling2D(name="mean")(outputs["feature_map"])
    join = keras.layers.Concatenate(name="class_and_mean")
    return {"class_and_mean": join([outputs["feature_vector"], mean])}
