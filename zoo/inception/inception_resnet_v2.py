"""Inception-ResNet V2: Inception modules with residual connections.

Source: Szegedy et al., arXiv:1602.07261, Figures 15 to 19 and Table 1. Reference code:
TF-Slim's `nets/inception_resnet_v2.py`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.inception import blocks
from zoo.inception.blocks import Conv, Pool
from zoo.layers import conv_norm

# Conv: channels, kernel size, strides. Right: output resolution at 299 px.
STEM = (
    Conv(32, 3, strides=2, padding="valid"),  # 149 × 149
    Conv(32, 3, padding="valid"),  # 147 × 147
    Conv(64, 3),  # 147 × 147
    blocks.REDUCE_POOL,  # 73 × 73
    Conv(80, 1),  # 73 × 73
    Conv(192, 3, padding="valid"),  # 71 × 71
    blocks.REDUCE_POOL,  # 35 × 35
)
MIXED_5B: blocks.Module = (  # 320 channels
    (Conv(96, 1),),
    (Conv(48, 1), Conv(64, 5)),
    (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
    (Pool("average"), Conv(64, 1)),
)
# Figure 7 with row Inception-ResNet-v2 of Table 1: k = l = 256, m = n = 384.
MIXED_6A: blocks.Module = (  # 1088 channels
    (blocks.reduce(384),),
    (Conv(256, 1), Conv(256, 3), blocks.reduce(384)),
    (blocks.REDUCE_POOL,),
)
# Figure 18.
MIXED_7A: blocks.Module = (  # 2080 channels
    (Conv(256, 1), blocks.reduce(384)),
    (Conv(256, 1), blocks.reduce(288)),
    (Conv(256, 1), Conv(288, 3), blocks.reduce(320)),
    (blocks.REDUCE_POOL,),
)
# Figures 16, 17 and 19: the residual branches.
BLOCK_35: blocks.Module = (
    (Conv(32, 1),),
    (Conv(32, 1), Conv(32, 3)),
    (Conv(32, 1), Conv(48, 3), Conv(64, 3)),
)
BLOCK_17: blocks.Module = (
    (Conv(192, 1),),
    (Conv(128, 1), Conv(160, (1, 7)), Conv(192, (7, 1))),
)
BLOCK_8: blocks.Module = (
    (Conv(192, 1),),
    (Conv(192, 1), Conv(224, (1, 3)), Conv(256, (3, 1))),
)
FEATURES = 1536


class Stage(typing.NamedTuple):
    """The first module of a resolution, and the residual blocks after it."""

    name: str  # TF-Slim's name of `module`, and of the endpoint with its output
    module: blocks.Module
    residual: blocks.Module
    scales: tuple[float, ...]  # of each block's residual, section 3.3


# Figure 15. The last block, with scale 1, neither scales its residual nor has a ReLU.
STAGES = (
    Stage("Mixed_5b", MIXED_5B, BLOCK_35, scales=10 * (0.17,)),  # 35 × 35
    Stage("Mixed_6a", MIXED_6A, BLOCK_17, scales=20 * (0.1,)),  # 17 × 17
    Stage("Mixed_7a", MIXED_7A, BLOCK_8, scales=(*(9 * (0.2,)), 1.0)),  # 8 × 8
)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionResNetV2(spec.BackboneSpec):
    """Stem -> three stages of residual Inception blocks -> 1×1 conv -> average pool.

    Args:
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      norm_scale: whether batch norm has a scale; timm's weights need it.
      stages: the modules and the numbers of blocks.

    Deviations:
      The network is TF-Slim's, which keras.applications and timm copy. Its stem is that
      of Inception V3 with the module `Mixed_5b`, where the paper has the stem of
      Inception V4; there are 10, 20 and 10 blocks with 320, 1088 and 2080 channels,
      where Figures 15 to 19 have 5, 10 and 5 with 384, 1154 and 2048; and a 1×1
      convolution with 1536 channels follows them. Batch norm has no scale. The
      auxiliary classifier is not built; the importer leaves out its weights.
      Kernels are initialised as in the other Inception networks, with variance 2 / fan
      of the inputs; TF-Slim's code has Glorot's uniform initialiser for this network.

    Endpoints besides the stages: TF-Slim's `Mixed_5b`, `Mixed_6a` and `Mixed_7a`. Its
    `PreAuxLogits` is `stage_2`, and `Conv2d_7b_1x1` is `feature_map`.
    """

    image_size: int = 299
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    norm_scale: bool = False
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Figure 15; `feature_vector` is [B, 1536] float32."""
        style = blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=self.norm_scale,
        )
        images = keras.Input((None, None, 3), name="images")
        x = blocks.sequence(images, STEM, style=style, name="stem")
        endpoints = {"stem": x}
        for number, stage in enumerate(self.stages, start=1):
            name = f"stage_{number}_block_1"
            x = blocks.module(x, stage.module, style=style, name=name)
            endpoints[stage.name] = x
            for block, scale in enumerate(stage.scales, start=2):
                x = residual_block(
                    x,
                    stage.residual,
                    scale=scale,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            FEATURES, kernel_size=1, style=style, name="feature_map"
        )(x)
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="inception_resnet_v2")


def residual_block(
    inputs: keras.KerasTensor,
    branches: blocks.Module,
    *,
    scale: float,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """Branches -> concatenate -> 1×1 conv with bias -> scale -> add -> ReLU.

    Source: arXiv:1602.07261, Figures 16, 17, 19 and 20. The 1×1 convolution has no
    batch norm. With scale 1, the block has neither a scaling nor a ReLU.

    Args:
      inputs: [B, H, W, C].
      branches: the layers of each branch.
      scale: factor of the residual. 1 means the network's last block: no ReLU either.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_1_block_2`.

    Returns:
      [B, H, W, C].
    """
    x = blocks.module(inputs, branches, style=style, name=name)
    x = keras.layers.Conv2D(
        inputs.shape[-1],
        1,
        kernel_initializer=conv_norm.clone_initializer(style.initializer),
        name=f"{name}_expand",
    )(x)
    if scale != 1:
        x = keras.layers.Rescaling(scale, name=f"{name}_scale")(x)
    x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    if scale == 1:
        return x
    return keras.layers.Activation(style.activation, name=f"{name}_out")(x)
