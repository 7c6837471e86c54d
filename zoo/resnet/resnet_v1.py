"""ResNet V1 and V1.5: residual blocks with the activation after the addition.

Source: He et al., arXiv:1512.03385, Table 1 and section 4.1. Reference code: Facebook's
`fb.resnet.torch` and torchvision (18, 34 and V1.5), TF-Slim's `nets/resnet_v1.py` (50,
101, 152 as in the paper).
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm
from zoo.resnet import blocks

Stage = blocks.Stage

# Table 1, conv2_x to conv5_x: channels of the 3×3 convolutions, and blocks by depth.
# Right: output resolution at 224 px.
STAGES = (
    Stage(  # 56 × 56
        channels=64,
        strides=1,
        blocks={18: 2, 34: 3, 50: 3, 101: 3, 152: 3},
    ),
    Stage(  # 28 × 28
        channels=128,
        strides=2,
        blocks={18: 2, 34: 4, 50: 4, 101: 4, 152: 8},
    ),
    Stage(  # 14 × 14
        channels=256,
        strides=2,
        blocks={18: 2, 34: 6, 50: 6, 101: 23, 152: 36},
    ),
    Stage(  # 7 × 7
        channels=512,
        strides=2,
        blocks={18: 2, 34: 3, 50: 3, 101: 3, 152: 3},
    ),
)
BASIC_DEPTHS = (18, 34)  # the others have bottlenecks
STEM_CHANNELS = 64


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetV1(spec.BackboneSpec):
    """7×7 stem -> max pool -> four stages of residual blocks -> average pool.

    Args:
      depth: number of layers with weights; selects the column of Table 1.
      image_size: pixels.
      stride_in: the convolution of a bottleneck that has the stride: `1x1`, the first
        one, as in the paper; `3x3` is V1.5, as in torchvision.
      pool_padding: padding of the max pool, `symmetric` or `same`; see Deviations.
      zero_last_gamma: initialise residual branches so that they output zeros
        (arXiv:1706.02677).
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of Table 1.

    Deviations:
      Padding is symmetric, as in torchvision and keras.applications. The original
      Caffe models and TF-Slim have `same` padding in the max pool, which at even sizes
      moves the windows one pixel to the bottom right; see `pool_padding`.
      Convolutions before a batch norm have no bias, as in Caffe, TF-Slim and
      torchvision. The biases of keras.applications can be folded into the moving means.
      TF-Slim has the stride in a stage's last block, which gives the same results.
      Shortcuts that change the shape are 1×1 convolutions at every depth, the paper's
      option B, as in Caffe, TF-Slim and torchvision; for 18 and 34, the paper's Table 2
      has option A (no parameters).
    """

    depth: int
    image_size: int
    stride_in: str = "1x1"
    pool_padding: str = "symmetric"
    zero_last_gamma: bool = False
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)
        blocks.check_choice("stride_in", self.stride_in, blocks.STRIDES_IN)

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 512], or [B, 2048] from depth 50."""
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
        return keras.Model(images, endpoints, name="resnet_v1")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        channels: int,
        strides: int,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        basic = self.depth in BASIC_DEPTHS
        shortcut = blocks.projection(
            inputs,
            channels=channels if basic else blocks.EXPANSION * channels,
            strides=strides,
            style=style,
            name=name,
        )
        residual = blocks.basic if basic else blocks.bottleneck
        return residual(
            inputs,
            shortcut=shortcut,
            channels=channels,
            strides=strides,
            style=style,
            zero_last_gamma=self.zero_last_gamma,
            name=name,
            **({} if basic else {"stride_in": self.stride_in}),
        )

    def _style(self) -> conv_norm.Style:
        # He et al., arXiv:1502.01852, with the fan of the outputs as in fb.resnet.torch
        # and torchvision.
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_out"),
        )
