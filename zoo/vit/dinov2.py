"""DINOv2: ViT with layer scales, trained without labels; with registers or without.

Source: Oquab et al., arXiv:2304.07193, section 5; Darcet et al.,
arXiv:2309.16588, section 2.2, for registers. Reference code:
`dinov2/models/vision_transformer.py` and `dinov2/hub/classifiers.py` of
facebookresearch/dinov2.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import position_embedding, tokens, transformer
from zoo.vit import encoder


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv2(encoder.LearnedPositionsSpec):
    """Patches -> positions -> class token, registers -> blocks -> norm -> class token.

    The classifier's head reads the class token and the mean of the patches' tokens,
    the endpoint `class_and_mean` [B, 2 · channels].

    Args:
      grid_size: rows and columns of learned positions, 37 in the published weights.
      drop_path_rate: share of images whose branches are dropped in training, in each
        block alike.
      registers: number of register tokens.
      scale_start: initial value of the layer scales.
    """

    head_input: typing.ClassVar[str] = "class_and_mean"

    patch_size: int = 14
    registers: int = 0
    image_size: int = 518
    grid_size: int | None = 37
    scale_start: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("DINOv2.registers", self.registers, 0, 64)
        spec.check_range("DINOv2.scale_start", self.scale_start, 0.0, 1.0)

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(
            num_heads=self.num_heads,
            hidden=4 * self.channels,
            scale_start=self.scale_start,
        )
        # `dinov2/hub/backbones.py`: the weights with registers came with another rule.
        interpolation = (
            position_embedding.Interpolation(antialias=True)
            if self.registers
            else position_embedding.Interpolation(offset=0.1)
        )

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(images, self, interpolation=interpolation)
        endpoints = {"patches": patches}
        if self.registers:
            x = tokens.Prefix(self.registers, name="registers")(x)
        x = tokens.Prefix(has_position=True, name="class_token")(x)
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=[1.0] * self.depth,
        )
        x = endpoints[f"block_{self.depth}"]
        outputs = encoder.class_token_outputs(
            x, patches, norm_epsilon=block.norm_epsilon, registers=self.registers
        )
        endpoints |= encoder.class_and_mean(outputs)
        return keras.Model(images, endpoints | outputs, name="dinov2")
