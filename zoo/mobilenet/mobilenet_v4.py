"""MobileNetV4: universal inverted bottlenecks; see `mobilenet_v4_hybrid` for hybrids.

Source: Qin et al., arXiv:2404.10518, section 4 and Tables 11, 12 and 14. Reference
code: TF Vision's `modeling/backbones/mobilenet.py`, and timm's `models/mobilenetv3.py`.
Only timm has published weights.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm
from zoo.mobilenet import mobilenet_v4_blocks


class FusedIB(typing.NamedTuple):
    """Fused bottleneck, 3×3 -> 1×1, which is followed by no activation if `linear`.

    `expanded` is the paper's Expanded Dim: channels after the 3×3 convolution.
    """

    expanded: int
    linear: bool = True


class UIB(typing.NamedTuple):
    """Universal inverted bottlenecks: `repeats` equal rows of the paper's table.

    `dw_1` and `dw_2` are DW K1 and DW K2: kernel sizes of the depthwise convolutions
    before and after the expansion, 0 for none. `expanded` is Expanded Dim.
    """

    dw_1: int
    dw_2: int
    expanded: int
    repeats: int = 1


class MQA(typing.NamedTuple):
    """Mobile multi-query attention with `heads` of `head_channels` each.

    `kv_strides` reduce the resolution of keys and values. The numbers are from TF
    Vision's code; the paper's tables have none.
    """

    heads: int
    head_channels: int
    kv_strides: int


class Stage(typing.NamedTuple):
    """Rows with the same output resolution and Output Dim; the first has stride 2."""

    channels: int
    rows: tuple[FusedIB | UIB | MQA, ...]

    def blocks(self) -> list[FusedIB | UIB | MQA]:
        """Returns the description of each block, with repetitions."""
        return [row for row in self.rows for _ in range(getattr(row, "repeats", 1))]


# Tables 11, 12, 14 without stem and last layers. The comments at the right are output
# resolutions at image_size.
# fmt: off
CONV_SMALL_STAGES = (
    Stage(channels=32, rows=(FusedIB(expanded=32, linear=False),)),  # 56 × 56
    Stage(channels=64, rows=(FusedIB(expanded=96, linear=False),)),  # 28 × 28
    Stage(channels=96, rows=(  # 14 × 14
        UIB(dw_1=5, dw_2=5, expanded=192),
        UIB(dw_1=0, dw_2=3, expanded=192, repeats=4),
        UIB(dw_1=3, dw_2=0, expanded=384),
    )),
    Stage(channels=128, rows=(  # 7 × 7
        UIB(dw_1=3, dw_2=3, expanded=576),
        UIB(dw_1=5, dw_2=5, expanded=512),
        UIB(dw_1=0, dw_2=5, expanded=512),
        UIB(dw_1=0, dw_2=5, expanded=384),
        UIB(dw_1=0, dw_2=3, expanded=512, repeats=2),
    )),
)
CONV_MEDIUM_STAGES = (
    Stage(channels=48, rows=(FusedIB(expanded=128),)),  # 64 × 64
    Stage(channels=80, rows=(  # 32 × 32
        UIB(dw_1=3, dw_2=5, expanded=192),
        UIB(dw_1=3, dw_2=3, expanded=160),
    )),
    Stage(channels=160, rows=(  # 16 × 16
        UIB(dw_1=3, dw_2=5, expanded=480),
        UIB(dw_1=3, dw_2=3, expanded=640, repeats=2),
        UIB(dw_1=3, dw_2=5, expanded=640),
        UIB(dw_1=3, dw_2=3, expanded=640),
        UIB(dw_1=3, dw_2=0, expanded=640),
        UIB(dw_1=0, dw_2=0, expanded=320),
        UIB(dw_1=3, dw_2=0, expanded=640),
    )),
    Stage(channels=256, rows=(  # 8 × 8
        UIB(dw_1=5, dw_2=5, expanded=960),
        UIB(dw_1=5, dw_2=5, expanded=1024),
        UIB(dw_1=3, dw_2=5, expanded=1024, repeats=2),
        UIB(dw_1=0, dw_2=0, expanded=1024),
        UIB(dw_1=3, dw_2=0, expanded=1024),
        UIB(dw_1=3, dw_2=5, expanded=512),
        UIB(dw_1=5, dw_2=5, expanded=1024),
        UIB(dw_1=0, dw_2=0, expanded=1024, repeats=2),
        UIB(dw_1=5, dw_2=0, expanded=512),
    )),
)
CONV_LARGE_STAGES = (
    Stage(channels=48, rows=(FusedIB(expanded=96),)),  # 96 × 96
    Stage(channels=96, rows=(  # 48 × 48
        UIB(dw_1=3, dw_2=5, expanded=192),
        UIB(dw_1=3, dw_2=3, expanded=384),
    )),
    Stage(channels=192, rows=(  # 24 × 24
        UIB(dw_1=3, dw_2=5, expanded=384),
        UIB(dw_1=3, dw_2=3, expanded=768, repeats=3),
        UIB(dw_1=3, dw_2=5, expanded=768),
        UIB(dw_1=5, dw_2=3, expanded=768, repeats=5),
        UIB(dw_1=3, dw_2=0, expanded=768),
    )),
    Stage(channels=512, rows=(  # 12 × 12
        UIB(dw_1=5, dw_2=5, expanded=768),
        UIB(dw_1=5, dw_2=5, expanded=2048, repeats=3),
        UIB(dw_1=5, dw_2=0, expanded=2048),
        UIB(dw_1=5, dw_2=3, expanded=2048),
        UIB(dw_1=5, dw_2=0, expanded=2048, repeats=2),
        UIB(dw_1=5, dw_2=3, expanded=2048),
        UIB(dw_1=5, dw_2=5, expanded=2048),
        UIB(dw_1=5, dw_2=0, expanded=2048, repeats=3),
    )),
)
# fmt: on
MAP_CHANNELS = 960  # of the convolution before the pooling
FEATURE_CHANNELS = 1280  # of the convolution after it


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4(spec.BackboneSpec):
    """3×3 stem -> four stages -> 1×1 conv -> average pool -> 1×1 conv.

    Args:
      image_size: pixels.
      drop_path_rate: block i of n is dropped with the probability i / n of this, from
        i = 0 to n - 1.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      padding: see `conv_norm.Style`.
      stem_channels: channels in the first row of the paper's table.
      stages: the other rows.
      activation: name of a Keras activation.
      layer_scale: initial value of layer scales; None for no layer scales.

    Deviations:
      Padding and epsilon are timm's, to suit its weights. TF Vision, which published no
      weights, has `same` and 1e-3 (Conv-S: 1e-6). The rest of the recipe is that of
      TF Vision and Table 10; their weight decay is AdamW's, and not part of the loss.
      The drop path rate of Conv-L is 0.35 as in the table; TF Vision's code has a
      constant 0.2. In Conv-S both convolutions of FusedIB have activations, as in TF
      Vision and timm.
    """

    drop_path_rate: float
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    padding: str = "symmetric"
    stem_channels: int
    stages: tuple[Stage, ...]
    activation: str = "relu"
    layer_scale: float | None = None

    def build(self) -> keras.Model:
        """Builds the network of Tables 11 to 15; `feature_vector` is [B, 1280].

        As in TF Vision and timm, the feature vector is the output of the convolution
        after the pooling.
        """
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            self.stem_channels, kernel_size=3, strides=2, style=style, name="stem"
        )(images)
        endpoints["stem"] = x
        position, total = 0, sum(len(stage.blocks()) for stage in self.stages)
        for number, stage in enumerate(self.stages, start=1):
            for block, row in enumerate(stage.blocks(), start=1):
                x = self._block(
                    x,
                    row,
                    channels=stage.channels,
                    strides=2 if block == 1 else 1,
                    drop_path_rate=self.drop_path_rate * position / total,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
                position += 1
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            MAP_CHANNELS, kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
        x = conv_norm.ConvNorm(
            FEATURE_CHANNELS, kernel_size=1, style=style, name="feature_vector"
        )(x)
        endpoints["feature_vector"] = keras.layers.Flatten(name="flatten")(x)
        return keras.Model(images, endpoints, name="mobilenet_v4")

    def _block(
        self,
        inputs: keras.KerasTensor,
        row: FusedIB | UIB | MQA,
        *,
        channels: int,
        strides: int,
        drop_path_rate: float,
        **shared: typing.Any,
    ) -> keras.KerasTensor:
        if isinstance(row, FusedIB):
            return mobilenet_v4_blocks.fused_bottleneck(
                inputs,
                channels=channels,
                hidden_channels=row.expanded,
                strides=strides,
                linear=row.linear,
                **shared,
            )
        shared |= {"scale_start": self.layer_scale, "drop_path_rate": drop_path_rate}
        if isinstance(row, MQA):
            return mobilenet_v4_blocks.attention(inputs, **row._asdict(), **shared)
        return mobilenet_v4_blocks.universal_bottleneck(
            inputs,
            channels=channels,
            hidden_channels=row.expanded,
            dw_1=row.dw_1,
            dw_2=row.dw_2,
            strides=strides,
            **shared,
        )

    def _style(self) -> conv_norm.Style:
        # TF Vision's kernel_initializer is "VarianceScaling" with Keras' defaults.
        initializer = keras.initializers.VarianceScaling()
        return conv_norm.Style(
            activation=self.activation,
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding=self.padding,
        )


FIXED = ["stem_channels", "stages", "activation", "layer_scale"]  # gin can't set them


@gin.register(denylist=FIXED)
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4ConvSmall(MobileNetV4):
    """MobileNetV4-Conv-S, Table 11."""

    stem_channels: int = 32
    stages: tuple[Stage, ...] = CONV_SMALL_STAGES


@gin.register(denylist=FIXED)
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4ConvMedium(MobileNetV4):
    """MobileNetV4-Conv-M, Table 12."""

    stem_channels: int = 32
    stages: tuple[Stage, ...] = CONV_MEDIUM_STAGES


@gin.register(denylist=FIXED)
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4ConvLarge(MobileNetV4):
    """MobileNetV4-Conv-L, Table 14."""

    stem_channels: int = 24
    stages: tuple[Stage, ...] = CONV_LARGE_STAGES
