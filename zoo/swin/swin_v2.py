"""Swin V2: norms after the branches, cosine attention, and computed position biases.

Source: Liu et al., arXiv:2111.09883, sections 3.2 and 3.3. Reference code:
`models/swin_transformer_v2.py` of microsoft/Swin-Transformer.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import attention, dropping, transformer, truncated_normal, windows
from zoo.swin import blocks

POSITION_HIDDEN = 512  # hidden channels of the network that computes position biases


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinV2(blocks.SwinSpec):
    """4×4 stem -> four stages of window attention and MLPs -> norm -> average pool.

    Args:
      pretrained_window_sizes: the windows of each stage that the network was first
        trained with; None if there was no other training.
    """

    image_size: int = 256
    pretrained_window_sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.pretrained_window_sizes
        if sizes is None:
            return
        for size in sizes:
            spec.check_range("Each of SwinV2.pretrained_window_sizes", size, 1, 8192)
        if len(sizes) != len(self.depths):
            raise ValueError(
                "SwinV2.pretrained_window_sizes must have as many values as there are "
                f"stages, {len(self.depths)}, not {len(sizes)}."
            )

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, 8 · channels]."""
        return blocks.build(self, merge=_merge, block=self._block, name="swin_v2")

    def _block(
        self, inputs: keras.KerasTensor, stage: blocks.Stage, rate: float, name: str
    ) -> keras.KerasTensor:
        """Window attention -> norm -> add -> MLP -> norm -> add.

        Source: arXiv:2111.09883, Figure 1 and section 3.2.
        """
        x = self._attend(inputs, stage, name)
        x = blocks.norm(f"{name}_attention_norm")(x)
        inputs = dropping.add(inputs, x, rate=rate, name=f"{name}_attention")

        x = blocks.mlp(inputs, name)
        x = blocks.norm(f"{name}_mlp_norm")(x)
        return dropping.add(inputs, x, rate=rate, name=f"{name}_mlp")

    def _attend(
        self, inputs: keras.KerasTensor, stage: blocks.Stage, name: str
    ) -> keras.KerasTensor:
        x = windows.Split(stage.windows, name=f"{name}_windows")(inputs)
        qkv = blocks.reduce(3 * stage.channels, name=f"{name}_qkv")(x)
        qkv = attention.QueryValueBias(name=f"{name}_qkv_bias")(qkv)
        positions = self._positions(inputs, stage, name)
        x = windows.CosineWindowAttention(
            stage.windows, stage.num_heads, name=f"{name}_attention"
        )([qkv, positions, inputs])
        x = transformer.dense(stage.channels, name=f"{name}_attention_project")(x)
        return windows.Join(stage.windows, name=f"{name}_map")([x, inputs])

    def _positions(
        self, inputs: keras.KerasTensor, stage: blocks.Stage, name: str
    ) -> keras.KerasTensor:
        """Offsets on a log scale -> dense -> ReLU -> linear: a bias for each head."""
        size = stage.windows.size
        pretrained = (self.pretrained_window_sizes or self.window_sizes)[
            stage.number - 1
        ]
        x = windows.RelativeCoordinates(
            size, pretrained_size=pretrained, name=f"{name}_coordinates"
        )(inputs)
        initializer = truncated_normal.TruncatedNormal(stddev=0.02)
        x = keras.layers.Dense(
            POSITION_HIDDEN,
            activation="relu",
            kernel_initializer=initializer,
            name=f"{name}_positions_expand",
        )(x)
        return blocks.reduce(stage.num_heads, name=f"{name}_positions_project")(x)


def _merge(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """2 × 2 positions -> linear to twice the channels -> norm."""
    channels = x.shape[-1]
    x = blocks.MergePatches(name=f"{name}_patches")(x)
    x = blocks.reduce(2 * channels, name=name)(x)
    return blocks.norm(f"{name}_norm")(x)
