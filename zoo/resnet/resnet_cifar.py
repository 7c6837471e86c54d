"""CIFAR ResNets: the first ResNet paper's small networks for 32×32 images.

Source: He et al., arXiv:1512.03385, section 4.2. Reference code: Facebook's
`fb.resnet.torch`, dataset `cifar10`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm
from zoo.resnet import blocks

Stage = blocks.Stage

# Section 4.2's table: n blocks per stage, 6n + 2 layers. Right: resolution at 32 px.
STAGES = (
    Stage(channels=16, strides=1, blocks={20: 3, 32: 5, 44: 7, 56: 9, 110: 18}),  # 32
    Stage(channels=32, strides=2, blocks={20: 3, 32: 5, 44: 7, 56: 9, 110: 18}),  # 16
    Stage(channels=64, strides=2, blocks={20: 3, 32: 5, 44: 7, 56: 9, 110: 18}),  # 8
)
STEM_CHANNELS = 16


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetCifar(spec.BackboneSpec):
    """3×3 stem -> three stages of basic blocks -> average pool.

    Args:
      depth: number of layers with weights, 6n + 2 for n blocks per stage.
      image_size: pixels.
      zero_last_gamma: initialise residual branches so that they output zeros.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      The paper subtracts the mean image. Normalisation here uses a mean and a standard
      deviation per channel, as in fb.resnet.torch, so that images may have any size.
      Shortcuts append the channels of zeros, as in fb.resnet.torch; some ports put half
      of them first.
    """

    depth: int
    image_size: int
    zero_last_gamma: bool = False
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)

    def build(self) -> keras.Model:
        """Builds the table of section 4.2; `feature_vector` is [B, 64]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(STEM_CHANNELS, kernel_size=3, style=style, name="stem")(
            images
        )
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks[self.depth] + 1):
                name = f"stage_{number}_block_{block}"
                strides = stage.strides if block == 1 else 1
                shortcut = x
                if strides > 1:
                    shortcut = ZeroShortcut(
                        stage.channels, strides=strides, name=f"{name}_shortcut"
                    )(x)
                x = blocks.basic(
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
        return keras.Model(images, endpoints, name="resnet_cifar")

    def _style(self) -> conv_norm.Style:
        # He et al., arXiv:1502.01852; fan of the outputs as in fb.resnet.torch.
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(2.0, mode="fan_out"),
        )


class ZeroShortcut(keras.layers.Layer):
    """Subsampling by `strides` -> append channels of zeros.

    Source: arXiv:1512.03385, section 3.3, option A: a shortcut without parameters.

    Args:
      channels: channels of the output, at least as many as the input has.
      strides: vertical and horizontal stride.
      name: layer name.
    """

    def __init__(self, channels: int, *, strides: int, name: str) -> None:
        super().__init__(name=name)
        self.channels = channels
        self.strides = strides

    def call(self, inputs: typing.Any) -> typing.Any:
        missing = self.channels - inputs.shape[-1]
        x = inputs[:, :: self.strides, :: self.strides]
        return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        batch, *sides = input_shape[:-1]
        height, width = (n and -(-n // self.strides) for n in sides)
        return batch, height, width, self.channels
