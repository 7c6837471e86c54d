"""DeiT III: ViT with layer scales, and a class token without a position.

Source: Touvron et al., arXiv:2204.07118, section 3. Reference code:
`models_v2.py` of facebookresearch/deit.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import position_embedding, tokens, transformer
from zoo.vit import encoder


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DeiT3(encoder.LearnedPositionsSpec):
    """Patches -> positions -> class token -> blocks -> norm -> class token.

    Args:
      drop_path_rate: share of images whose branches are dropped in training, in each
        block alike.
      scale_start: initial value of the layer scales.

    Deviations:
      Position embeddings are interpolated for images of other sizes, as timm does; the
      authors' code has one size for each model.
    """

    scale_start: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("DeiT3.scale_start", self.scale_start, 0.0, 1.0)

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(
            num_heads=self.num_heads,
            hidden=4 * self.channels,
            scale_start=self.scale_start,
        )
        interpolation = position_embedding.Interpolation(antialias=True)

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(images, self, interpolation=interpolation)
        endpoints = {"patches": patches}
        x = tokens.Prefix(name="class_token")(x)
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=[1.0] * self.depth,
        )
        x = endpoints[f"block_{self.depth}"]
        endpoints |= encoder.class_token_outputs(
            x, patches, norm_epsilon=block.norm_epsilon
        )
        return keras.Model(images, endpoints, name="deit3")
