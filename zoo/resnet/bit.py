"""Big Transfer (BiT): ResNet V2 with group norm and weight standardisation.

Source: Kolesnikov et al., arXiv:1912.11370, section 3.3; group norm arXiv:1803.08494,
weight standardisation arXiv:1903.10520. Reference code: google-research/big_transfer,
and `models/bit_paper.py` of google-research/big_vision.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import group_norm, standardized_conv
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
GROUPS = 32
GROUP_NORM_EPSILON = 1e-5


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class BiT(spec.BackboneSpec):
    """7×7 linear stem -> max pool -> four stages -> norm -> ReLU -> average pool.

    Args:
      depth: number of layers with weights; selects the column of the table.
      image_size: pixels, 224 in pre-training.
      width_multiplier: channels of all layers relative to the table, 3 in R50x3.
      standardization_epsilon: added to the variance of a kernel: 1e-10 in the authors'
        code, 1e-8 in timm and transformers.
      stages: the rows of the table.

    Deviations:
      None from the authors' code. Unlike in ResNetV2, the strides are those of the 3×3
      convolution in the first block of a stage. Shortcuts that change the shape start
      after the first activation. The max pool pads with zeros, although its inputs may
      be negative.
    """

    depth: int
    image_size: int
    width_multiplier: int
    standardization_epsilon: float = 1e-10
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)
        name = "BiT.standardization_epsilon"
        spec.check_range(name, self.standardization_epsilon, 0.0, 1.0)

    def build(self) -> keras.Model:
        """Builds R{depth}x{width}; `feature_vector` is [B, 2048 · width_multiplier]."""
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = self._conv(
            self.width_multiplier * STEM_CHANNELS, kernel_size=7, strides=2, name="stem"
        )(images)
        x = blocks.max_pool(x, padding="symmetric")
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks[self.depth] + 1):
                x = self._block(
                    x,
                    channels=self.width_multiplier * stage.channels,
                    strides=stage.strides if block == 1 else 1,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        x = self._norm_activation("feature_map")(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="bit")

    def _block(
        self, inputs: keras.KerasTensor, *, channels: int, strides: int, name: str
    ) -> keras.KerasTensor:
        """Norm -> ReLU -> 1×1 -> norm -> ReLU -> 3×3 -> norm -> ReLU -> 1×1 -> add.

        Source: arXiv:1603.05027, Figure 1 (b).

        Args:
          inputs: [B, H, W, C].
          channels: channels of the 3×3 convolution, the narrow part of the bottleneck.
          strides: strides of the 3×3 convolution and the shortcut, 1 or 2.
          name: name of the block, such as `stage_2_block_1`.

        Returns:
          [B, ceil(H / strides), ceil(W / strides), 4 · channels].
        """
        outputs = blocks.EXPANSION * channels
        activated = self._norm_activation(f"{name}_preact")(inputs)
        shortcut = inputs
        if strides > 1 or inputs.shape[-1] != outputs:
            shortcut = self._conv(
                outputs, kernel_size=1, strides=strides, name=f"{name}_shortcut"
            )(activated)
        x = self._conv(channels, kernel_size=1, name=f"{name}_reduce")(activated)
        x = self._norm_activation(f"{name}_reduce_norm")(x)
        x = self._conv(channels, kernel_size=3, strides=strides, name=f"{name}_middle")(
            x
        )
        x = self._norm_activation(f"{name}_middle_norm")(x)
        x = self._conv(outputs, kernel_size=1, name=f"{name}_expand")(x)
        return keras.layers.Add(name=f"{name}_add")([shortcut, x])

    def _conv(
        self, filters: int, *, kernel_size: int, strides: int = 1, name: str
    ) -> standardized_conv.StandardizedConv:
        return standardized_conv.StandardizedConv(
            filters,
            kernel_size=kernel_size,
            strides=strides,
            epsilon=self.standardization_epsilon,
            # The scale has no effect, since kernels are standardised. big_vision uses
            # this one, the default of Flax.
            initializer=blocks.variance_scaling(1.0, mode="fan_in"),
            name=name,
        )

    def _norm_activation(self, name: str) -> group_norm.GroupNormActivation:
        return group_norm.GroupNormActivation(
            GROUPS,
            epsilon=GROUP_NORM_EPSILON,
            activation=blocks.ACTIVATION,
            name=name,
        )
