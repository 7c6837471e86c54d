"""ResNeXt: bottlenecks whose 3×3 convolution has groups of channels.

Source: Xie et al., arXiv:1611.05431, Table 1 and Figure 3 (c). Reference code:
torchvision's `resnext50_32x4d`; the authors' is Torch (facebookresearch/ResNeXt).
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm
from zoo.resnet import blocks

Stage = blocks.Stage

# Table 1, conv2 to conv5: channels of ResNet's bottlenecks, a quarter of the outputs.
# Right: output resolution at 224 px.
STAGES = (
    Stage(channels=64, strides=1, blocks={50: 3, 101: 3}),  # 56 × 56
    Stage(channels=128, strides=2, blocks={50: 4, 101: 4}),  # 28 × 28
    Stage(channels=256, strides=2, blocks={50: 6, 101: 23}),  # 14 × 14
    Stage(channels=512, strides=2, blocks={50: 3, 101: 3}),  # 7 × 7
)
STEM_CHANNELS = 64


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNeXt(spec.BackboneSpec):
    """7×7 stem -> max pool -> four stages of grouped bottlenecks -> average pool.

    Args:
      depth: number of layers with weights; selects the column of the table.
      image_size: pixels.
      cardinality: number of groups of the 3×3 convolutions, C in the paper.
      bottleneck_width: channels of a group in the first stage, d in the paper; each
        stage has twice as many as the one before it.
      zero_last_gamma: initialise residual branches so that they output zeros
        (arXiv:1706.02677).
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      None. As in torchvision and the authors' code, the 3×3 convolution has the stride,
      the max pool is padded symmetrically, and shortcuts that change the shape are 1×1
      convolutions.
    """

    depth: int
    image_size: int
    cardinality: int
    bottleneck_width: int
    zero_last_gamma: bool = False
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)
        for name in ("cardinality", "bottleneck_width"):
            spec.check_range(f"ResNeXt.{name}", getattr(self, name), 1, 256)

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 2048]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=7, strides=2, style=style, name="stem"
        )(images)
        x = blocks.max_pool(x, padding="symmetric")
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
        return keras.Model(images, endpoints, name="resnext")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        channels: int,
        strides: int,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        shortcut = blocks.projection(
            inputs,
            channels=blocks.EXPANSION * channels,
            strides=strides,
            style=style,
            name=name,
        )
        group = self.bottleneck_width * channels // self.stages[0].channels
        return blocks.bottleneck(
            inputs,
            shortcut=shortcut,
            channels=self.cardinality * group,
            groups=self.cardinality,
            strides=strides,
            style=style,
            zero_last_gamma=self.zero_last_gamma,
            name=name,
        )

    def _style(self) -> conv_norm.Style:
        # torchvision: He et al., arXiv:1502.01852, with the fan of the outputs.
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_out"),
        )
