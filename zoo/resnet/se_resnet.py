"""SE-ResNet: ResNet V1 with squeeze-and-excitation at the end of every branch.

Source: Hu et al., arXiv:1709.01507, section 3.3, Figure 3 and Table 1. Reference code:
the authors' Caffe networks (hujie-frank/SENet), and Cadene's port of them, which is
timm's `legacy_seresnet50`.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, squeeze_excite
from zoo.resnet import blocks

Stage = blocks.Stage

# Table 1 of arXiv:1512.03385, conv2_x to conv5_x. Right: output resolution at 224 px.
STAGES = (
    Stage(channels=64, strides=1, blocks={50: 3, 101: 3, 152: 3}),  # 56 × 56
    Stage(channels=128, strides=2, blocks={50: 4, 101: 4, 152: 8}),  # 28 × 28
    Stage(channels=256, strides=2, blocks={50: 6, 101: 23, 152: 36}),  # 14 × 14
    Stage(channels=512, strides=2, blocks={50: 3, 101: 3, 152: 3}),  # 7 × 7
)
STEM_CHANNELS = 64
SE_REDUCTION = 16  # the block's output channels ÷ squeeze channels, r in the paper


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class SEResNet(spec.BackboneSpec):
    """7×7 stem -> max pool -> four stages of SE bottlenecks -> average pool.

    Args:
      depth: number of layers with weights; selects the column of the table.
      image_size: pixels.
      stride_in: the convolution of a bottleneck that has the stride: `1x1`, the first
        one, as in the authors' networks; `3x3` as in timm's `seresnet50`.
      pool_padding: padding of the max pool, `same` or `symmetric`; see Deviations.
      zero_last_gamma: initialise residual branches so that they output zeros
        (arXiv:1706.02677).
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      Caffe's max pool has no padding and rounds its output size up, which is `same`
      padding if the stem's convolution has an even height and width, as at 224 px. If
      it has an odd one, Caffe's output has one position less. timm's `seresnet50` has
      `symmetric` padding.
      timm's port normalises images by ImageNet's means and deviations, the original
      subtracts means.
    """

    depth: int
    image_size: int
    stride_in: str = "1x1"
    pool_padding: str = "same"
    zero_last_gamma: bool = False
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)
        blocks.check_choice("stride_in", self.stride_in, blocks.STRIDES_IN)

    def build(self) -> keras.Model:
        """Builds SE-ResNet of Table 1; `feature_vector` is [B, 2048]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=7, strides=2, style=style, name="stem"
        )(images)
        x = blocks.max_pool(x, padding=self.pool_padding)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks[self.depth] + 1):
                x = self._block(
                    x,
                    channels=stage.channels,
                    strides=stage.strides if block == 1 else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="se_resnet")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        channels: int,
        strides: int,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        outputs = blocks.EXPANSION * channels
        shortcut = blocks.projection(
            inputs, channels=outputs, strides=strides, style=style, name=name
        )
        return blocks.bottleneck(
            inputs,
            shortcut=shortcut,
            channels=channels,
            strides=strides,
            style=style,
            stride_in=self.stride_in,
            zero_last_gamma=self.zero_last_gamma,
            squeeze_excite=squeeze_excite.SqueezeExcite(
                outputs // SE_REDUCTION,
                activation=blocks.ACTIVATION,
                gate="sigmoid",
                initializer=style.initializer,
                name=f"{name}_se",
            ),
            name=name,
        )

    def _style(self) -> conv_norm.Style:
        # Section 5.1: He et al., arXiv:1502.01852.
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_in"),
        )
