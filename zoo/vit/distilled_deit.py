"""Distilled DeiT: ViT with a second token, which learns from a teacher.

Source: Touvron et al., arXiv:2012.12877, section 4 and Figure 2. Reference code:
`models.py` of facebookresearch/deit.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from zoo.layers import dropping, position_embedding, tokens, transformer
from zoo.vit import encoder

Shape = tuple[int | None, ...]


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilledDeiT(encoder.LearnedPositionsSpec):
    """Patches -> positions -> both tokens -> blocks -> norm -> mean of both tokens.

    The tokens are the class token and the distillation token. The classifier's head
    reads them side by side, the endpoint `class_and_distillation` [B, 2 · channels].

    Deviations:
      In training, the logits are the mean of both heads too. The reference code then
      compares one head with the labels, and the other one with the teacher.
      Position embeddings are interpolated for images of other sizes, as timm does; the
      authors' code has one size for each model.
    """

    head_input: typing.ClassVar[str] = "class_and_distillation"

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        block = transformer.Block(num_heads=self.num_heads, hidden=4 * self.channels)
        interpolation = position_embedding.Interpolation(antialias=True)

        images = keras.Input((None, None, 3), name="images")
        patches, x = encoder.embed_patches(images, self, interpolation=interpolation)
        endpoints = {"patches": patches}
        x = tokens.Prefix(has_position=True, name="distillation_token")(x)
        x = tokens.Prefix(has_position=True, name="class_token")(x)
        endpoints |= encoder.encode(
            x,
            block,
            drop_path_rate=self.drop_path_rate,
            drop_path_shares=encoder.growing(self.depth),
        )
        x = transformer.norm(block.norm_epsilon, name="norm")(
            endpoints[f"block_{self.depth}"]
        )
        first, second = (
            tokens.Token(index, name=name)(x)
            for index, name in enumerate(("class", "distillation"))
        )
        join = keras.layers.Concatenate(name="class_and_distillation")
        endpoints["class_and_distillation"] = join([first, second])
        endpoints["feature_map"] = tokens.ToMap(prefix=2, name="feature_map")(
            [x, patches]
        )
        average = keras.layers.Average(name="feature_vector")
        endpoints["feature_vector"] = average([first, second])
        return keras.Model(images, endpoints, name="distilled_deit")

    def build_head(
        self,
        endpoints: Mapping[str, keras.KerasTensor],
        *,
        num_classes: int,
        dropout_rate: float,
    ) -> keras.Model:
        """Builds the head: dropout -> mean of two dense layers, one for each token."""
        channels = endpoints[self.head_input].shape[-1]
        both = keras.Input((channels,), name=self.head_input)
        x = dropping.Dropout(dropout_rate, name="dropout")(both)
        logits = _MeanOfTwoDense(num_classes, name="logits")(x)
        return keras.Model(both, logits, name="head")


class _MeanOfTwoDense(keras.layers.Dense):
    """Class token and distillation token [B, 2 · C] -> mean of two dense layers [B, K].

    Source: arXiv:2012.12877, section 4, "Classification with our approach: joint
    classifiers".

    Variables: `NAME/{kernel, bias}` for the class token, and
    `NAME/distillation/{kernel, bias}` for the other one.

    Args:
      units: number K of logits.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(self, units: int, *, name: str) -> None:
        super().__init__(units, name=name)
        self.distillation = keras.layers.Dense(units, name="distillation")

    def build(self, input_shape: Shape) -> None:
        batch, channels = input_shape
        half = (batch, channels and channels // 2)
        super().build(half)
        self.distillation.build(half)
        self.input_spec = keras.layers.InputSpec(shape=(None, channels))

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        class_token, distillation_token = keras.ops.split(inputs, 2, axis=-1)
        logits = super().call(class_token)
        return (logits + self.distillation(distillation_token)) / 2
