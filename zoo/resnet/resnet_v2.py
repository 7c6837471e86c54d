"""ResNet V2: batch norm and activation before the convolutions, none after the sum.

Source: He et al., arXiv:1603.05027, Figure 1 (b) and appendix, on Table 1 of
arXiv:1512.03385. Reference code: TF-Slim's `nets/resnet_v2.py`.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, norm_activation
from zoo.resnet import blocks

Stage = blocks.Stage

# TF-Slim's `resnet_v2_block`s; the last block of a stage has the stride. Right: output
# resolution of that block at 224 px; the blocks before it keep the resolution.
STAGES = (
    Stage(channels=64, strides=2, blocks={50: 3, 101: 3, 152: 3}),  # 28 × 28
    Stage(channels=128, strides=2, blocks={50: 4, 101: 4, 152: 8}),  # 14 × 14
    Stage(channels=256, strides=2, blocks={50: 6, 101: 23, 152: 36}),  # 7 × 7
    Stage(channels=512, strides=1, blocks={50: 3, 101: 3, 152: 3}),  # 7 × 7
)
STEM_CHANNELS = 64


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetV2(spec.BackboneSpec):
    """7×7 linear stem -> max pool -> four stages -> norm -> ReLU -> average pool.

    Args:
      depth: number of layers with weights; selects the column of the table.
      image_size: pixels.
      pool_padding: padding of the max pool, `same` or `symmetric`; see Deviations.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      As in TF-Slim, and unlike the authors' Torch code: the 3×3 convolution of a
      stage's last block has the stride, so that `stage_1` to `stage_3` have an output
      stride of 8, 16 and 32; the stem has a bias, and neither batch norm nor
      activation; the convolution of the shortcut and the last one of a block have
      biases. A convolution before a batch norm has no bias.
      TF-Slim's max pool has `same` padding. keras.applications and `symmetric` pad with
      a zero on each side, which changes the maximum where the input is negative.
    """

    depth: int
    image_size: int
    pool_padding: str = "same"
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)

    def build(self) -> keras.Model:
        """Builds TF-Slim's `resnet_v2`; `feature_vector` is [B, 2048]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = keras.layers.ZeroPadding2D(3, name="stem_conv_pad")(images)
        x = keras.layers.Conv2D(
            STEM_CHANNELS, 7, 2, kernel_initializer=style.initializer, name="stem"
        )(x)
        x = blocks.max_pool(x, padding=self.pool_padding)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            count = stage.blocks[self.depth]
            for block in range(1, count + 1):
                x = preactivated(
                    x,
                    channels=stage.channels,
                    strides=stage.strides if block == count else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        x = norm_activation.NormActivation(style=style, name="feature_map")(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="resnet_v2")

    def _style(self) -> conv_norm.Style:
        # TF-Slim's resnet_arg_scope uses slim.variance_scaling_initializer().
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_in"),
        )


def preactivated(
    inputs: keras.KerasTensor,
    *,
    channels: int,
    strides: int,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """Norm -> ReLU -> 1×1 reduce -> 3×3 -> 1×1 linear expand -> add.

    Source: arXiv:1603.05027, Figure 1 (b) and appendix: if the number of channels
    changes, the shortcut starts after the first activation.

    Args:
      inputs: [B, H, W, C].
      channels: channels of the narrow middle.
      strides: strides of the 3×3 convolution and the shortcut, 1 or 2.
      style: settings shared by the network's convolutions.
      name: name of the block, such as `stage_2_block_1`.

    Returns:
      [B, ceil(H / strides), ceil(W / strides), 4 · channels].
    """
    outputs = blocks.EXPANSION * channels

    def linear(part: str, strides: int = 1) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            outputs,
            1,
            strides,
            kernel_initializer=style.initializer,
            name=f"{name}_{part}",
        )

    activated = norm_activation.NormActivation(style=style, name=f"{name}_preact")(
        inputs
    )
    shortcut = inputs
    if inputs.shape[-1] != outputs:
        shortcut = linear("shortcut", strides)(activated)
    elif strides > 1:
        subsample = keras.layers.MaxPooling2D(1, strides, name=f"{name}_subsample")
        shortcut = subsample(inputs)
    x = conv_norm.ConvNorm(channels, kernel_size=1, style=style, name=f"{name}_reduce")(
        activated
    )
    x = conv_norm.ConvNorm(
        channels, kernel_size=3, strides=strides, style=style, name=f"{name}_middle"
    )(x)
    x = linear("expand")(x)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])
