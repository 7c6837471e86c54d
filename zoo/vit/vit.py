"""ViT: a transformer on patches of an image; and DeiT, the same network.

Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1 and Table 1; Steiner et al.,
arXiv:2106.10270, Table 2, for ViT-Ti and ViT-S; Touvron et al., arXiv:2012.12877, Table
1, for DeiT. Reference code: `models/vit.py` of google-research/big_vision.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo.layers import position_embedding, tokens, transformer
from zoo.vit import encoder


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ViT(encoder.LearnedPositionsSpec):
    """Patches -> positions -> class token -> blocks -> norm -> class token.

    Deviations:
      Position embeddings are interpolated as timm does, bicubic and antialiased; the
      authors' code does it once, bilinearly, when it loads weights.
      Dropout inside the blocks, 0.1 in some of the papers' trainings, is left out.
    """

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(num_heads=self.num_heads, hidden=4 * self.channels)
        interpolation = position_embedding.Interpolation(antialias=True)

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(images, self, interpolation=interpolation)
        endpoints = {"patches": patches}
        x = tokens.Prefix(has_position=True, name="class_token")(x)
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=encoder.growing(self.depth),
        )
        x = endpoints[f"block_{self.depth}"]
        endpoints |= encoder.class_token_outputs(
            x, patches, norm_epsilon=block.norm_epsilon
        )
        return keras.Model(images, endpoints, name="vit")
