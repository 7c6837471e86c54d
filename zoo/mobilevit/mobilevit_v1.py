"""MobileViT: transformers in place of convolutions' local processing.

Source: Mehta and Rastegari, arXiv:2110.02178, section 3 and Table 4. Reference code:
`cvnets/modules/mobilevit_block.py` of apple/ml-cvnets.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import attention, conv_norm, transformer
from zoo.mobilevit import bottlenecks, patches

# Table 4: bottlenecks, strides and transformers, the paper's L, of each stage. Right:
# output resolution at 256 px.
ROWS = (
    (1, 1, 0),  # 128 × 128
    (3, 2, 0),  # 64 × 64
    (1, 2, 2),  # 32 × 32
    (1, 2, 4),  # 16 × 16
    (1, 2, 3),  # 8 × 8
)
STEM_CHANNELS = 16
FEATURE_RATIO = 4  # channels of the last convolution ÷ those of the last stage
NORM_EPSILON = 1e-5  # of layer norm, PyTorch's default


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileViTV1(spec.BackboneSpec):
    """3×3 stem -> five stages -> 1×1 conv -> average pool.

    Args:
      channels: channels of the five stages.
      transformer_channels: channels of each token in stages 3, 4 and 5.
      expansion_ratio: hidden channels of an inverted bottleneck ÷ its input channels.
      num_heads: attention heads of each transformer; they divide its channels.
      image_size: pixels, 256 in section 4.1.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.

    Deviations:
      Dropout inside the transformers, 0.1 in the authors' training (0.05 for XXS), is
      left out.
    """

    channels: tuple[int, ...]
    transformer_channels: tuple[int, ...]
    expansion_ratio: int
    num_heads: int = 4
    image_size: int = 256
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        for field, count in (("channels", 5), ("transformer_channels", 3)):
            values = getattr(self, field)
            if len(values) != count:
                raise ValueError(
                    f"{name}.{field} must have {count} values, not {len(values)}."
                )
            for value in values:
                spec.check_range(f"Each of {name}.{field}", value, 1, 8192)
        spec.check_range(f"{name}.expansion_ratio", self.expansion_ratio, 1, 64)
        spec.check_range(f"{name}.num_heads", self.num_heads, 1, 8192)
        if any(width % self.num_heads for width in self.transformer_channels):
            raise ValueError(
                f"{name}.transformer_channels must be multiples of num_heads, not "
                f"{self.transformer_channels} for {self.num_heads} heads."
            )

    def build(self) -> keras.Model:
        """Builds Table 4, top to bottom; `feature_vector` is [B, 4 · channels[-1]].

        The endpoint `attention` [B, 4 · num_heads, T, T] has the weights of the last
        transformer, for T patches: first all heads of the pixels at the top left of
        their patches, then top right, bottom left and bottom right.
        """
        style = bottlenecks.convolution_style(
            momentum=self.batch_norm_momentum, epsilon=self.batch_norm_epsilon
        )
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=3, strides=2, style=style, name="stem"
        )(images)
        endpoints["stem"] = x
        for number, stage in enumerate(self._stages(), start=1):
            name = f"stage_{number}"
            x = bottlenecks.stack(
                x, stage, expansion_ratio=self.expansion_ratio, style=style, name=name
            )
            if stage.transformers:
                block_name = f"{name}_block_{stage.bottlenecks + 1}"
                x, qkv = self._mobilevit_block(x, stage, style=style, name=block_name)
            endpoints[name] = x
        weights = attention.AttentionMap(self.num_heads, name="attention_map")(qkv)
        endpoints["attention"] = _HeadsOfImages(name="attention")(weights)
        x = conv_norm.ConvNorm(
            FEATURE_RATIO * self.channels[-1],
            kernel_size=1,
            style=style,
            name="feature_map",
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mobilevit_v1")

    def _stages(self) -> list[bottlenecks.Stage]:
        widths = (0, 0, *self.transformer_channels)
        return [
            bottlenecks.Stage(channels, *row, width)
            for channels, row, width in zip(self.channels, ROWS, widths, strict=True)
        ]

    def _mobilevit_block(
        self,
        inputs: keras.KerasTensor,
        stage: bottlenecks.Stage,
        *,
        style: conv_norm.Style,
        name: str,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """3×3 -> 1×1 -> unfold -> transformers -> fold -> 1×1 -> concatenate -> 3×3.

        Source: arXiv:2110.02178, section 3.1 and Figure 1b. A feature map without whole
        patches is resized before the unfolding, and back after the folding.

        Args:
          inputs: [B, H, W, C].
          stage: the stage, whose transformers are applied.
          style: settings shared by the network's convolutions.
          name: name of the block, such as `stage_3_block_2`.

        Returns:
          [B, H, W, C]; and queries, keys and values of the last attention,
          [B · 4, T, 3 · stage.width].
        """
        channels = inputs.shape[-1]
        block = transformer.Block(
            num_heads=self.num_heads,
            hidden=2 * stage.width,
            activation="silu",
            norm_epsilon=NORM_EPSILON,
        )

        x = conv_norm.ConvNorm(
            channels, kernel_size=3, style=style, name=f"{name}_local"
        )(inputs)
        local = bottlenecks.pointwise(
            stage.width, style, use_bias=False, name=f"{name}_embed"
        )(x)
        whole = patches.WholePatches(align_corners=False, name=f"{name}_whole")(local)
        x = patches.Unfold(name=f"{name}_unfold")(whole)
        x = _Sequences(name=f"{name}_sequences")(x)
        for number in range(1, stage.transformers + 1):
            x, qkv = block(x, name=f"{name}_transformer_{number}")
        x = transformer.norm(NORM_EPSILON, name=f"{name}_norm")(x)
        x = patches.Fold(name=f"{name}_fold")([x, whole])
        x = patches.ResizeLike(name=f"{name}_resize")([x, local])
        x = conv_norm.ConvNorm(
            channels, kernel_size=1, style=style, name=f"{name}_project"
        )(x)
        x = keras.layers.Concatenate(name=f"{name}_concatenate")([inputs, x])
        x = conv_norm.ConvNorm(
            channels, kernel_size=3, style=style, name=f"{name}_fuse"
        )(x)
        return x, qkv


class _Sequences(keras.layers.Layer):
    """Pixels of patches [B, P, N, C] -> P sequences for each image [B · P, N, C].

    The batch is left to the op: tf2onnx converts a computed one to wrong shapes.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        _, _, count, channels = keras.ops.shape(inputs)
        return keras.ops.reshape(inputs, (-1, count, channels))

    def compute_output_shape(self, input_shape: patches.Shape) -> patches.Shape:
        batch, pixels, count, channels = input_shape
        return batch and pixels and batch * pixels, count, channels


class _HeadsOfImages(keras.layers.Layer):
    """Attention of sequences [B · P, heads, T, T] -> of images [B, P · heads, T, T]."""

    def call(self, inputs: typing.Any) -> typing.Any:
        _, heads, tokens, _ = keras.ops.shape(inputs)
        shape = (-1, patches.PIXELS * heads, tokens, tokens)
        return keras.ops.reshape(inputs, shape)

    def compute_output_shape(self, input_shape: patches.Shape) -> patches.Shape:
        sequences, heads, *tokens = input_shape
        return (
            sequences and sequences // patches.PIXELS,
            heads and patches.PIXELS * heads,
            *tokens,
        )
