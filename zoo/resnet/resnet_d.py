"""ResNet-D: V1.5 with a deep stem and average pools in the shortcuts.

Source: He et al., arXiv:1812.01187, section 4.1 and Figure 2. Reference code: GluonCV's
`resnet50_v1d`, and timm's port.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm
from zoo.resnet import blocks

Stage = blocks.Stage

# Table 1 of arXiv:1512.03385, conv2_x to conv5_x. Right: output resolution at 224 px.
STAGES = (
    Stage(channels=64, strides=1, blocks={50: 3, 101: 3, 152: 3}),  # 56 × 56
    Stage(channels=128, strides=2, blocks={50: 4, 101: 4, 152: 8}),  # 28 × 28
    Stage(channels=256, strides=2, blocks={50: 6, 101: 23, 152: 36}),  # 14 × 14
    Stage(channels=512, strides=2, blocks={50: 3, 101: 3, 152: 3}),  # 7 × 7
)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetD(spec.BackboneSpec):
    """Deep stem -> max pool -> four stages of bottlenecks -> average pool.

    Args:
      depth: selects the column of the table. It is the depth of the ResNet that this
        network derives from; the stem has three convolutions instead of its one.
      image_size: pixels.
      zero_last_gamma: initialise residual branches so that they output zeros
        (section 3.1).
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      The paper does not give the channels of the stem: 32, 32 and 64 are GluonCV's.
      As in GluonCV and timm, the average pool does not count positions outside the
      input, and rounds up if height or width is odd.
    """

    depth: int
    image_size: int
    zero_last_gamma: bool = True
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)

    def build(self) -> keras.Model:
        """Builds Figure 2 (b) and (c); `feature_vector` is [B, 2048]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = blocks.deep_stem(images, style=style)
        x = blocks.max_pool(x, padding="symmetric")
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks[self.depth] + 1):
                name = f"stage_{number}_block_{block}"
                strides = stage.strides if block == 1 else 1
                shortcut = blocks.projection(
                    x,
                    channels=blocks.EXPANSION * stage.channels,
                    strides=strides,
                    pool=True,
                    style=style,
                    name=name,
                )
                x = blocks.bottleneck(
                    x,
                    shortcut=shortcut,
                    channels=stage.channels,
                    strides=strides,
                    style=style,
                    zero_last_gamma=self.zero_last_gamma,
                    name=name,
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="resnet_d")

    def _style(self) -> conv_norm.Style:
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer="glorot_uniform",  # section 2.1: Xavier, uniform
        )
