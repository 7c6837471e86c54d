"""EfficientNetV2: fused MBConv blocks, then MBConv blocks with squeeze-excite.

Source: Tan and Le, arXiv:2104.00298, Table 4 and section 3.3. Reference code:
`efficientnetv2` of Google's automl repository; its `effnetv2_configs.py` has the
tables that the paper does not print (M, L, XL and the baseline B).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing

import gin
import keras

from zoo import spec
from zoo.efficientnet import blocks
from zoo.layers import conv_norm, rounding


class Stage(typing.NamedTuple):
    """One row of Table 4, with the paper's stage numbers; all kernels are 3×3."""

    fused: bool
    expansion_ratio: int
    channels: int
    blocks: int
    strides: int


class Table(typing.NamedTuple):
    """The stages and the stem channels of one baseline."""

    stem_channels: int
    stages: tuple[Stage, ...]


# fmt: off
# Right: output resolution at the default size, before any scaling.
TABLES = {
    "b": Table(stem_channels=32, stages=(
        Stage(fused=True, expansion_ratio=1, channels=16, blocks=1, strides=1),  # 112
        Stage(fused=True, expansion_ratio=4, channels=32, blocks=2, strides=2),  # 56
        Stage(fused=True, expansion_ratio=4, channels=48, blocks=2, strides=2),  # 28
        Stage(fused=False, expansion_ratio=4, channels=96, blocks=3, strides=2),  # 14
        Stage(fused=False, expansion_ratio=6, channels=112, blocks=5, strides=1),  # 14
        Stage(fused=False, expansion_ratio=6, channels=192, blocks=8, strides=2),  # 7
    )),
    "s": Table(stem_channels=24, stages=(  # Table 4
        Stage(fused=True, expansion_ratio=1, channels=24, blocks=2, strides=1),  # 192
        Stage(fused=True, expansion_ratio=4, channels=48, blocks=4, strides=2),  # 96
        Stage(fused=True, expansion_ratio=4, channels=64, blocks=4, strides=2),  # 48
        Stage(fused=False, expansion_ratio=4, channels=128, blocks=6, strides=2),  # 24
        Stage(fused=False, expansion_ratio=6, channels=160, blocks=9, strides=1),  # 24
        Stage(fused=False, expansion_ratio=6, channels=256, blocks=15, strides=2),  # 12
    )),
    "m": Table(stem_channels=24, stages=(
        Stage(fused=True, expansion_ratio=1, channels=24, blocks=3, strides=1),  # 240
        Stage(fused=True, expansion_ratio=4, channels=48, blocks=5, strides=2),  # 120
        Stage(fused=True, expansion_ratio=4, channels=80, blocks=5, strides=2),  # 60
        Stage(fused=False, expansion_ratio=4, channels=160, blocks=7, strides=2),  # 30
        Stage(fused=False, expansion_ratio=6, channels=176, blocks=14, strides=1),  # 30
        Stage(fused=False, expansion_ratio=6, channels=304, blocks=18, strides=2),  # 15
        Stage(fused=False, expansion_ratio=6, channels=512, blocks=5, strides=1),  # 15
    )),
    "l": Table(stem_channels=32, stages=(
        Stage(fused=True, expansion_ratio=1, channels=32, blocks=4, strides=1),  # 240
        Stage(fused=True, expansion_ratio=4, channels=64, blocks=7, strides=2),  # 120
        Stage(fused=True, expansion_ratio=4, channels=96, blocks=7, strides=2),  # 60
        Stage(fused=False, expansion_ratio=4, channels=192, blocks=10, strides=2),  # 30
        Stage(fused=False, expansion_ratio=6, channels=224, blocks=19, strides=1),  # 30
        Stage(fused=False, expansion_ratio=6, channels=384, blocks=25, strides=2),  # 15
        Stage(fused=False, expansion_ratio=6, channels=640, blocks=7, strides=1),  # 15
    )),
    "xl": Table(stem_channels=32, stages=(
        Stage(fused=True, expansion_ratio=1, channels=32, blocks=4, strides=1),  # 256
        Stage(fused=True, expansion_ratio=4, channels=64, blocks=8, strides=2),  # 128
        Stage(fused=True, expansion_ratio=4, channels=96, blocks=8, strides=2),  # 64
        Stage(fused=False, expansion_ratio=4, channels=192, blocks=16, strides=2),  # 32
        Stage(fused=False, expansion_ratio=6, channels=256, blocks=24, strides=1),  # 32
        Stage(fused=False, expansion_ratio=6, channels=512, blocks=32, strides=2),  # 16
        Stage(fused=False, expansion_ratio=6, channels=640, blocks=8, strides=1),  # 16
    )),
}
# fmt: on
KERNEL_SIZE = 3
FEATURE_CHANNELS = 1280
SE_RATIO = 0.25  # for MBConv blocks; fused blocks have no squeeze-excite


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetV2(spec.BackboneSpec):
    """3×3 stem -> six or seven stages -> 1×1 conv -> average pool.

    Args:
      table: the baseline: `b`, `s`, `m`, `l` or `xl`.
      width_multiplier: scales all channels; 1 to 1.2 for `b` as published, else 1.
      depth_multiplier: scales the repeats of all stages; 1 to 1.4 for `b` as
        published, else 1.
      image_size: pixels in the published evaluation; training began with smaller
        images.
      activation: name of a Keras activation.
      drop_path_rate: limit towards which the rate of the blocks grows linearly, from 0
        at the first.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      padding: see `conv_norm.Style`; weights trained in PyTorch need `symmetric`.

    Raises:
      ValueError: `table` is not one of the baselines.

    Deviations:
      Figure 1 of the paper gives 24M parameters for S. This table is that of the
      reference code and its checkpoints, and gives 21.5M. As in that code, scaled
      channels are rounded to the nearest multiple of 8 without EfficientNet's bound on
      the loss: 16 · 1.2 becomes 16. The paper trains with a batch-norm momentum of
      0.99; that code has 0.9.
    """

    table: str
    width_multiplier: float = 1.0
    depth_multiplier: float = 1.0
    image_size: int
    activation: str = "silu"
    drop_path_rate: float = 0.2
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table not in TABLES:
            raise ValueError(
                f"table must be one of {', '.join(TABLES)}, not {self.table!r}."
            )

    def build(self) -> keras.Model:
        """Builds Table 4, top to bottom; `feature_vector` is [B, 1280] at width 1."""
        style = self._style()
        stem_channels, stages = TABLES[self.table]
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = conv_norm.ConvNorm(
            self._width(stem_channels),
            kernel_size=3,
            strides=2,
            style=style,
            name="stem",
        )(images)
        endpoints["stem"] = x
        depths = [math.ceil(stage.blocks * self.depth_multiplier) for stage in stages]
        position = 0
        for number, stage in enumerate(stages, start=1):
            for block in range(1, depths[number - 1] + 1):
                x = self._block(stage)(
                    x,
                    channels=self._width(stage.channels),
                    expansion_ratio=stage.expansion_ratio,
                    kernel_size=KERNEL_SIZE,
                    strides=stage.strides if block == 1 else 1,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                    drop_path_rate=self.drop_path_rate * position / sum(depths),
                )
                position += 1
            endpoints[f"stage_{number}"] = x
        x = conv_norm.ConvNorm(
            self._width(FEATURE_CHANNELS),
            kernel_size=1,
            style=style,
            name="feature_map",
        )(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="efficientnet_v2")

    def _width(self, channels: int) -> int:
        return rounding.round_channels(channels * self.width_multiplier, max_loss=1.0)

    def _block(self, stage: Stage) -> typing.Callable[..., keras.KerasTensor]:
        if stage.fused:
            return blocks.fused_mbconv
        return functools.partial(blocks.mbconv, se_ratio=SE_RATIO)

    def _style(self) -> conv_norm.Style:
        return blocks.style(
            activation=self.activation,
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            padding=self.padding,
        )
