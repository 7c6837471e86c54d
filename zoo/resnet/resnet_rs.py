"""ResNet-RS: ResNet-D with squeeze-excite and drop path, without a max pool.

Source: Bello et al., arXiv:2103.07579, section 4.1 and appendix. Reference code: the
TensorFlow TPU repository, `models/official/resnet`.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, squeeze_excite
from zoo.resnet import blocks

Stage = blocks.Stage

# The appendix's table of block repeats (`model_params` in the TPU code): depth ->
# number of blocks. Right: output resolution at 256 px.
STAGES = (
    Stage(  # 64 × 64
        channels=64,
        strides=1,
        blocks={50: 3, 101: 3, 152: 3, 200: 3, 270: 4, 350: 4, 420: 4},
    ),
    Stage(  # 32 × 32
        channels=128,
        strides=2,
        blocks={50: 4, 101: 4, 152: 8, 200: 24, 270: 29, 350: 36, 420: 44},
    ),
    Stage(  # 16 × 16
        channels=256,
        strides=2,
        blocks={50: 6, 101: 23, 152: 36, 200: 36, 270: 53, 350: 72, 420: 87},
    ),
    Stage(  # 8 × 8
        channels=512,
        strides=2,
        blocks={50: 3, 101: 3, 152: 3, 200: 3, 270: 4, 350: 4, 420: 4},
    ),
)
STEM_CHANNELS = 64
SE_RATIO = 0.25  # squeeze channels ÷ the block's output channels


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetRS(spec.BackboneSpec):
    """Deep stem -> strided 3×3 conv -> four stages of bottlenecks -> average pool.

    Args:
      depth: selects the column of the table.
      image_size: pixels, 160 to 320 as published.
      drop_path_rate: rate of the last stage; the stages before it have 2/5, 3/5 and 4/5
        of this rate, because the stem counts as the first of five stages.
      zero_last_gamma: initialise residual branches so that they output zeros.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of the table.

    Deviations:
      None in inference. The published weights are moving averages of all variables
      over the training steps, including the moving statistics. The recipe's batch norm
      therefore does not average its statistics a second time (momentum 0).
    """

    depth: int
    image_size: int
    drop_path_rate: float = 0.0
    zero_last_gamma: bool = True
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_depth(self.depth, self.stages)

    def build(self) -> keras.Model:
        """Builds the appendix's table; `feature_vector` is [B, 2048]."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = blocks.deep_stem(images, style=style)
        x = conv_norm.ConvNorm(
            STEM_CHANNELS, kernel_size=3, strides=2, style=style, name="stem_4"
        )(x)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.blocks[self.depth] + 1):
                x = self._block(
                    x,
                    channels=stage.channels,
                    strides=stage.strides if block == 1 else 1,
                    drop_path_rate=self.drop_path_rate * (number + 1) / 5,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="resnet_rs")

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        channels: int,
        strides: int,
        drop_path_rate: float,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        outputs = blocks.EXPANSION * channels
        shortcut = blocks.projection(
            inputs,
            channels=outputs,
            strides=strides,
            pool=True,
            style=style,
            name=name,
        )
        return blocks.bottleneck(
            inputs,
            shortcut=shortcut,
            channels=channels,
            strides=strides,
            style=style,
            zero_last_gamma=self.zero_last_gamma,
            squeeze_excite=squeeze_excite.SqueezeExcite(
                int(outputs * SE_RATIO),
                activation=blocks.ACTIVATION,
                gate="sigmoid",
                initializer=style.initializer,
                name=f"{name}_se",
            ),
            drop_path_rate=drop_path_rate,
            name=name,
        )

    def _style(self) -> conv_norm.Style:
        # All kernels of the TPU code use tf.variance_scaling_initializer().
        return blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            initializer=blocks.variance_scaling(1.0, mode="fan_in"),
        )
