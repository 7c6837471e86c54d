"""Swin: a hierarchical vision transformer with attention in shifted windows.

Source: Liu et al., arXiv:2103.14030, section 3. Reference code:
`models/swin_transformer.py` of microsoft/Swin-Transformer.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo.layers import transformer, windows
from zoo.swin import blocks


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Swin(blocks.SwinSpec):
    """4×4 stem -> four stages of window attention and MLPs -> norm -> average pool."""

    image_size: int = 224

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, 8 · channels]."""
        return blocks.build(self, merge=_merge, block=_block, name="swin")


def _merge(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """2 × 2 positions -> norm -> linear to twice the channels."""
    channels = x.shape[-1]
    x = blocks.MergePatches(name=f"{name}_patches")(x)
    x = blocks.norm(f"{name}_norm")(x)
    return blocks.reduce(2 * channels, name=name)(x)


def _block(
    inputs: keras.KerasTensor, stage: blocks.Stage, rate: float, name: str
) -> keras.KerasTensor:
    """Norm -> window attention -> add -> norm -> MLP -> add.

    Source: arXiv:2103.14030, equation 3.
    """
    x = blocks.norm(f"{name}_attention_norm")(inputs)
    x = _attend(x, stage, name)
    inputs = blocks.add(inputs, x, rate, f"{name}_attention")

    x = blocks.norm(f"{name}_mlp_norm")(inputs)
    x = blocks.mlp(x, name)
    return blocks.add(inputs, x, rate, f"{name}_mlp")


def _attend(
    inputs: keras.KerasTensor, stage: blocks.Stage, name: str
) -> keras.KerasTensor:
    x = windows.Split(stage.windows, name=f"{name}_windows")(inputs)
    qkv = transformer.dense(3 * stage.channels, name=f"{name}_qkv")(x)
    positions = windows.RelativePositions(
        stage.windows.size, stage.num_heads, name=f"{name}_positions"
    )(inputs)
    x = windows.WindowAttention(
        stage.windows, stage.num_heads, name=f"{name}_attention"
    )([qkv, positions, inputs])
    x = transformer.dense(stage.channels, name=f"{name}_attention_project")(x)
    return windows.Join(stage.windows, name=f"{name}_map")([x, inputs])
