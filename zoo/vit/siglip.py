"""SigLIP's image tower: ViT without a class token, and a pool by attention.

Source: Zhai et al., arXiv:2303.15343, section 4; arXiv:2502.14786, section 2, for
SigLIP 2; arXiv:2106.04560, section 3.2, for the pool; arXiv:2305.13035 for So400m.
Reference code: `models/vit.py` of google-research/big_vision.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import attention, position_embedding, tokens, transformer
from zoo.vit import encoder


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SigLIP(encoder.ContrastiveSpec):
    """Patches -> positions -> blocks -> norm -> attention pool.

    The feature vector is the image embedding, without the L2 normalisation that comes
    before the product with embeddings of texts.

    Args:
      hidden: channels of the hidden layer of each MLP.

    Deviations:
      Position embeddings are interpolated as timm does, bicubic and antialiased; the
      authors' code does it once, bilinearly, when it loads weights.
    """

    hidden: int

    text_scores = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("SigLIP.hidden", self.hidden, 1, 65536)

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(
            num_heads=self.num_heads, hidden=self.hidden, activation="gelu_tanh"
        )
        interpolation = position_embedding.Interpolation(antialias=True)

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(images, self, interpolation=interpolation)
        endpoints = {"patches": patches}
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=encoder.growing(self.depth),
        )
        x = endpoints[f"block_{self.depth}"]
        x = transformer.norm(block.norm_epsilon, name="norm")(x)
        to_map = tokens.ToMap(prefix=0, name="feature_map")
        endpoints["feature_map"] = to_map([x, patches])
        endpoints["feature_vector"] = _attention_pool(x, block)
        return keras.Model(images, endpoints, name="siglip")


def _attention_pool(
    x: keras.KerasTensor, block: transformer.Block
) -> keras.KerasTensor:
    """One learned query attends to all tokens -> norm -> MLP -> add.

    Source: arXiv:2106.04560, section 3.2, "Multihead Attention Pooling".

    Args:
      x: tokens [B, T, C].
      block: settings of heads, MLP and norm.

    Returns:
      [B, C].
    """
    channels = x.shape[-1]
    query = tokens.Queries(name="pool_query")(x)
    query = transformer.dense(channels, name="pool_query_project")(query)
    keys_values = transformer.dense(2 * channels, name="pool_key_value")(x)
    attend = attention.CrossAttention(block.num_heads, name="pool_attention")
    x = attend([query, keys_values])
    x = transformer.dense(channels, name="pool_attention_project")(x)
    y = transformer.norm(block.norm_epsilon, name="pool_mlp_norm")(x)
    y = transformer.mlp(
        y, hidden=block.hidden, activation=block.activation, name="pool_mlp"
    )
    x = keras.layers.Add(name="pool_mlp_add")([x, y])
    return tokens.First(name="feature_vector")(x)
