"""Swin: a hierarchical vision transformer with attention in shifted windows.

Source: Liu et al., arXiv:2103.14030, section 3. Reference code:
`models/swin_transformer.py` of microsoft/Swin-Transformer.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo.layers import dropping, windows
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
    x = windows.attend(x, stage.windows, stage.num_heads, name=name)
    inputs = dropping.add(inputs, x, rate=rate, name=f"{name}_attention")

    x = blocks.norm(f"{name}_mlp_norm")(inputs)
    x = blocks.mlp(x, name)
    return dropping.add(inputs, x, rate=rate, name=f"{name}_mlp")
