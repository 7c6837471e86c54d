"""MobileViTV2: MobileViT with an attention whose cost is linear in the patches.

Source: Mehta and Rastegari, arXiv:2206.02680, sections 3 and 4. Reference code:
`cvnets/layers/linear_attention.py` and `cvnets/modules/mobilevit_block.py` of
apple/ml-cvnets.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, group_norm, rounding
from zoo.mobilevit import bottlenecks, patches

# `cvnets/models/classification/config/mobilevit_v2.py`, at width 1. Right: output
# resolution at 256 px.
# fmt: off
STAGES = (
    bottlenecks.Stage(channels=64, bottlenecks=1, strides=1),  # 128 × 128
    bottlenecks.Stage(channels=128, bottlenecks=2, strides=2),  # 64 × 64
    bottlenecks.Stage(  # 32 × 32
        channels=256, bottlenecks=1, strides=2, transformers=2, width=128
    ),
    bottlenecks.Stage(  # 16 × 16
        channels=384, bottlenecks=1, strides=2, transformers=4, width=192
    ),
    bottlenecks.Stage(  # 8 × 8
        channels=512, bottlenecks=1, strides=2, transformers=3, width=256
    ),
)
# fmt: on
STEM_CHANNELS = 32  # at width 1; in [16, 64] at others
EXPANSION_RATIO = 2
NORM_EPSILON = 1e-5  # of group norm, PyTorch's default


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileViTV2(spec.BackboneSpec):
    """3×3 stem -> five stages -> average pool.

    A feature map of odd height or width is resized to an even one in stages 3, 4 and 5,
    and stays so: at 240 px, `stage_4` is 16 × 16.

    Args:
      width_multiplier: scales all channels, 0.5 to 2 as published.
      image_size: pixels, 256 in section 4.1.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the stages at width 1.
    """

    width_multiplier: float = 1.0
    image_size: int = 256
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[bottlenecks.Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds the stages; `feature_vector` is [B, 512] at width 1.

        `feature_map` is the output of the last stage.
        """
        style = bottlenecks.convolution_style(
            momentum=self.batch_norm_momentum, epsilon=self.batch_norm_epsilon
        )
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        stem_channels = min(max(16.0, STEM_CHANNELS * self.width_multiplier), 64.0)
        x = conv_norm.ConvNorm(
            rounding.round_channels(stem_channels),
            kernel_size=3,
            strides=2,
            style=style,
            name="stem",
        )(images)
        endpoints["stem"] = x
        for number, stage in enumerate(self._stages(), start=1):
            name = f"stage_{number}"
            x = bottlenecks.stack(
                x, stage, expansion_ratio=EXPANSION_RATIO, style=style, name=name
            )
            if stage.transformers:
                block_name = f"{name}_block_{stage.bottlenecks + 1}"
                x = _mobilevit_block(x, stage, style=style, name=block_name)
            endpoints[name] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mobilevit_v2")

    def _stages(self) -> list[bottlenecks.Stage]:
        """Returns the stages at this width; the first one's divisor is 16, not 8."""
        return [
            stage._replace(
                channels=rounding.round_channels(
                    stage.channels * self.width_multiplier,
                    divisor=16 if index == 0 else 8,
                ),
                width=rounding.round_channels(stage.width * self.width_multiplier),
            )
            for index, stage in enumerate(self.stages)
        ]


def _mobilevit_block(
    inputs: keras.KerasTensor,
    stage: bottlenecks.Stage,
    *,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """3×3 depthwise -> 1×1 -> unfold -> transformers -> fold -> linear 1×1.

    Source: arXiv:2206.02680, section 4.1: unlike V1's, the block does not concatenate
    its input.

    Args:
      inputs: [B, H, W, C].
      stage: the stage, whose transformers are applied.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_3_block_2`.

    Returns:
      [B, H', W', C], with H and W rounded up to multiples of the patch size.
    """
    x = patches.WholePatches(align_corners=True, name=f"{name}_whole")(inputs)
    x = conv_norm.ConvNorm(None, kernel_size=3, style=style, name=f"{name}_local")(x)
    local = bottlenecks.pointwise(
        stage.width, style, use_bias=False, name=f"{name}_embed"
    )(x)
    x = patches.Unfold(name=f"{name}_unfold")(local)
    for number in range(1, stage.transformers + 1):
        x = _transformer(x, style=style, name=f"{name}_transformer_{number}")
    x = _norm(f"{name}_norm")(x)
    x = patches.Fold(name=f"{name}_fold")([x, local])
    return conv_norm.ConvNorm(
        inputs.shape[-1],
        kernel_size=1,
        linear=True,
        style=style,
        name=f"{name}_project",
    )(x)


def _transformer(
    inputs: keras.KerasTensor, *, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Norm -> separable attention -> add -> norm -> MLP -> add, on [B, P, N, C]."""
    channels = inputs.shape[-1]

    def linear(
        units: int, *, activation: str | None = None, part: str
    ) -> keras.layers.Conv2D:
        return bottlenecks.pointwise(
            units, style, use_bias=True, activation=activation, name=f"{name}_{part}"
        )

    x = _norm(f"{name}_attention_norm")(inputs)
    x = linear(1 + 2 * channels, part="qkv")(x)
    x = SeparableAttention(name=f"{name}_attention")(x)
    x = linear(channels, part="attention_project")(x)
    x = keras.layers.Add(name=f"{name}_attention_add")([inputs, x])

    y = _norm(f"{name}_mlp_norm")(x)
    y = linear(2 * channels, activation="silu", part="mlp_expand")(y)
    y = linear(channels, part="mlp_project")(y)
    return keras.layers.Add(name=f"{name}_mlp_add")([x, y])


def _norm(name: str) -> group_norm.GroupNorm:
    """Normalises all channels and positions of an image together."""
    return group_norm.GroupNorm(1, epsilon=NORM_EPSILON, name=name)


class SeparableAttention(keras.layers.Layer):
    """[B, P, N, 1 + 2 · C] -> scores of N patches -> context -> times values.

    The first channel has a score of each token. The softmax of the scores weighs the
    keys, and their sum, the context vector [B, P, 1, C], scales the values [B, P, N, C]
    after ReLU.

    Source: arXiv:2206.02680, section 3.2 and equation 2.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        channels = inputs.shape[-1] // 2
        scores = keras.ops.softmax(inputs[..., :1], axis=2)
        keys, values = inputs[..., 1 : 1 + channels], inputs[..., 1 + channels :]
        context = keras.ops.sum(scores * keys, axis=2, keepdims=True)
        return keras.ops.relu(values) * context

    def compute_output_shape(self, input_shape: patches.Shape) -> patches.Shape:
        *others, channels = input_shape
        return *others, channels and channels // 2

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return 0  # products of single values, like those of a gate, do not count
