"""DINOv3: ViT with rotary positions and registers, trained without labels.

Source: Siméoni et al., arXiv:2508.10104, section 3.2 for the network, section 5.2 for
the distilled sizes. Reference code: `dinov3/models/vision_transformer.py`,
`dinov3/hub/backbones.py` and `dinov3/hub/classifiers.py` of facebookresearch/dinov3.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import rotary_embedding, tokens, transformer
from zoo.vit import encoder

NORM_EPSILON = 1e-5  # `layernormbf16` of the reference code


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv3(encoder.TransformerSpec):
    """Patches -> class token, registers -> rotating blocks -> norm -> class token.

    The classifier's head reads the class token and the mean of the patches' tokens,
    the endpoint `class_and_mean` [B, 2 · channels].

    Args:
      drop_path_rate: share of images whose branches are dropped in training, in each
        block alike.
      registers: number of register tokens.
      is_gated: whether the MLPs are SwiGLU, as those of S+, instead of GELU.
      scale_start: initial value of the layer scales.

    Deviations:
      In training, the reference code multiplies the coordinates of the patches by a
      random factor in [0.5, 2]; that is left out, as in timm.
      The periods of rotation have full precision, as in timm and transformers; the
      authors' files have them rounded to bfloat16.
    """

    head_input: typing.ClassVar[str] = "class_and_mean"

    patch_size: int = 16
    registers: int = 4
    image_size: int = 256
    is_gated: bool = False
    scale_start: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("DINOv3.registers", self.registers, 0, 64)
        spec.check_range("DINOv3.scale_start", self.scale_start, 0.0, 1.0)
        if self.channels // self.num_heads % 4:
            raise ValueError(
                "DINOv3.channels must be a multiple of 4 · num_heads, not "
                f"{self.channels} for {self.num_heads} heads."
            )

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(
            num_heads=self.num_heads,
            hidden=4 * self.channels,
            activation="silu" if self.is_gated else "gelu",
            is_gated=self.is_gated,
            has_key_bias=False,
            norm_epsilon=NORM_EPSILON,
            scale_start=self.scale_start,
        )

        images = keras.Input((None, None, 3), name="images")
        patches = encoder.project_patches(images, self)
        endpoints = {"patches": patches}
        rotation = rotary_embedding.AxialRotation(
            self.channels // self.num_heads, prefix=1 + self.registers, name="rotation"
        )(patches)
        x = tokens.FromMap(name="tokens")(patches)
        if self.registers:
            x = tokens.Prefix(self.registers, name="registers")(x)
        x = tokens.Prefix(name="class_token")(x)
        endpoints |= encoder.encode(
            x,
            block,
            rotation=rotation,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=[1.0] * self.depth,
        )
        x = endpoints[f"block_{self.depth}"]
        outputs = encoder.class_token_outputs(
            x, patches, norm_epsilon=NORM_EPSILON, registers=self.registers
        )
        endpoints |= encoder.class_and_mean(outputs)
        return keras.Model(images, endpoints | outputs, name="dinov3")
