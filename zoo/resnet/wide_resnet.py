"""Wide ResNet for ImageNet: bottlenecks with a wider 3×3 convolution.

Source: Zagoruyko and Komodakis, arXiv:1605.07146, section 3, "ImageNet and COCO
experiments", and Table 8, WRN-50-2-bottleneck. Reference code: torchvision's
`wide_resnet50_2`; the authors' is Torch (szagoruyko/wide-residual-networks; its
`pretrained/README.md` prints the layers).
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
    Stage(channels=64, strides=1, blocks={50: 3, 101: 3}),  # 56 × 56
    Stage(channels=128, strides=2, blocks={50: 4, 101: 4}),  # 28 × 28
    Stage(channels=256, strides=2, blocks={50: 6, 101: 23}),  # 14 × 14
    Stage(channels=512, strides=2, blocks={50: 3, 101: 3}),  # 7 × 7
)
STEM_CHANNELS = 64


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNet(spec.BackboneSpec):
    """7×7 stem -> max pool -> four stages of wide bottlenecks -> average pool.

    Args:
      depth: number of layers with weights; selects the column of the table.
      image_size: pixels.
      width_multiplier: channels of the 3×3 convolutions relative to ResNet's, k in the
        paper. The blocks' outputs are as wide as ResNet's.
      zero_last_gamma: initialise residual branches so that they output zeros
        (arXiv:1706.02677).
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      None. As in torchvision and the authors' model, the 3×3 convolution has the
      stride, the max pool is padded symmetrically, and shortcuts that change the shape
      are 1×1 convolutions.
      The paper has no network with 101 layers: torchvision's is the same with the
      blocks of ResNet-101.
    """

    depth: int
    image_size: int
    width_multiplier: int
    zero_last_gamma: bool = False
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)

    def build(self) -> keras.Model:
        """Builds WRN-50-2-bottleneck, or WRN-101-2; `feature_vector` is [B, 2048]."""
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
                name = f"stage_{number}_block_{block}"
                strides = stage.strides if block == 1 else 1
                shortcut = blocks.projection(
                    x,
                    channels=blocks.EXPANSION * stage.channels,
                    strides=strides,
                    style=style,
                    name=name,
                )
                x = blocks.bottleneck(
                    x,
                    shortcut=shortcut,
                    channels=self.width_multiplier * stage.channels,
                    strides=strides,
                    style=style,
                    zero_last_gamma=self.zero_last_gamma,
                    name=name,
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="wide_resnet")

    def _style(self) -> conv_norm.Style:
        # torchvision: He et al., arXiv:1502.01852, with the fan of the outputs.
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_out"),
        )
