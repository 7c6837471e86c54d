"""CLIP's image tower: ViT with a norm before the blocks, and a projection after them.

Source: Radford et al., arXiv:2103.00020, section 2.4 and Table 20. Reference code:
`clip/model.py` of openai/CLIP.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import position_embedding, tokens, transformer
from zoo.vit import encoder

NORM_EPSILON = 1e-5  # PyTorch's default


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIP(encoder.ContrastiveSpec):
    """Patches -> positions -> class token -> norm -> blocks -> norm -> class token.

    Args:
      embedding_size: length of the image embedding that is compared with texts, which
        is a projection of the class token and then the feature vector. None for the
        class token itself, which is what other tasks are fine-tuned from.
      mlp_activation: `quick_gelu`, as in OpenAI's weights, or `gelu`.

    Deviations:
      Position embeddings are interpolated for images of other sizes, bicubic and
      antialiased as in timm and OpenCLIP; the authors' code has one size per model.
    """

    embedding_size: int | None = None
    mlp_activation: str = "quick_gelu"

    text_scores = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_size is not None:
            spec.check_range("CLIP.embedding_size", self.embedding_size, 1, 8192)
        elif self.is_zero_shot:
            raise ValueError(
                "CLIP.is_zero_shot needs CLIP.embedding_size, the length of the text "
                "embeddings."
            )
        if self.mlp_activation not in transformer.ACTIVATIONS:
            choices = ", ".join(transformer.ACTIVATIONS)
            raise ValueError(
                f"CLIP.mlp_activation must be one of {choices}, not "
                f"{self.mlp_activation!r:.80}."
            )

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, embedding_size or channels]."""
        block = transformer.Block(
            num_heads=self.num_heads,
            hidden=4 * self.channels,
            activation=self.mlp_activation,
            norm_epsilon=NORM_EPSILON,
        )
        interpolation = position_embedding.Interpolation(antialias=True)

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(
            images, self, interpolation=interpolation, use_bias=False
        )
        endpoints = {"patches": patches}
        x = tokens.Prefix(has_position=True, name="class_token")(x)
        x = transformer.norm(NORM_EPSILON, name="norm_before")(x)
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=encoder.growing(self.depth),
        )
        x = endpoints[f"block_{self.depth}"]
        outputs = encoder.class_token_outputs(x, patches, norm_epsilon=NORM_EPSILON)
        if self.embedding_size is not None:
            endpoints["class_token"] = outputs["feature_vector"]
            project = keras.layers.Dense(
                self.embedding_size, use_bias=False, name="project"
            )
            outputs["feature_vector"] = project(outputs["feature_vector"])
        return keras.Model(images, endpoints | outputs, name="clip")
