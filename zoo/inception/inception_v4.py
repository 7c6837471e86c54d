"""Inception V4: more uniform Inception modules.

Source: Szegedy et al., arXiv:1602.07261, Figures 3 to 9 and Table 1. Reference code:
TF-Slim's `nets/inception_v4.py`.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.inception import blocks
from zoo.inception.blocks import Conv, Pool, Split
from zoo.layers import conv_norm

# Figure 3. Conv: channels, kernel size, strides. Right: output resolution at 299 px.
STEM = (
    Conv(32, 3, strides=2, padding="valid"),  # 149 × 149
    Conv(32, 3, padding="valid"),  # 147 × 147
    Conv(64, 3),  # 147 × 147
)
STEM_MODULES: tuple[blocks.Module, ...] = (
    (  # Mixed_3a, 73 × 73
        (blocks.REDUCE_POOL,),
        (blocks.reduce(96),),
    ),
    (  # Mixed_4a, 71 × 71
        (Conv(64, 1), Conv(96, 3, padding="valid")),
        (
            Conv(64, 1),
            Conv(64, (1, 7)),
            Conv(64, (7, 1)),
            Conv(96, 3, padding="valid"),
        ),
    ),
    (  # Mixed_5a, 35 × 35
        (blocks.reduce(192),),
        (blocks.REDUCE_POOL,),
    ),
)
# Figure 4, 384 channels.
MODULE_A: blocks.Module = (
    (Conv(96, 1),),
    (Conv(64, 1), Conv(96, 3)),
    (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
    (Pool("average"), Conv(96, 1)),
)
# Figure 5, 1024 channels.
MODULE_B: blocks.Module = (
    (Conv(384, 1),),
    (Conv(192, 1), Conv(224, (1, 7)), Conv(256, (7, 1))),
    (
        Conv(192, 1),
        Conv(192, (7, 1)),
        Conv(224, (1, 7)),
        Conv(224, (7, 1)),
        Conv(256, (1, 7)),
    ),
    (Pool("average"), Conv(128, 1)),
)
# Figure 6, 1536 channels.
MODULE_C: blocks.Module = (
    (Conv(256, 1),),
    (Conv(384, 1), Split((Conv(256, (1, 3)), Conv(256, (3, 1))))),
    (
        Conv(384, 1),
        Conv(448, (3, 1)),
        Conv(512, (1, 3)),
        Split((Conv(256, (1, 3)), Conv(256, (3, 1)))),
    ),
    (Pool("average"), Conv(256, 1)),
)
# Figure 7 with row Inception-v4 of Table 1: k = 192, l = 224, m = 256, n = 384.
REDUCTION_A: blocks.Module = (
    (blocks.reduce(384),),
    (Conv(192, 1), Conv(224, 3), blocks.reduce(256)),
    (blocks.REDUCE_POOL,),
)
# Figure 8.
REDUCTION_B: blocks.Module = (
    (Conv(192, 1), blocks.reduce(192)),
    (Conv(256, 1), Conv(256, (1, 7)), Conv(320, (7, 1)), blocks.reduce(320)),
    (blocks.REDUCE_POOL,),
)
# Figure 9: the modules of each resolution, by TF-Slim's names.
STAGES = (
    {f"Mixed_5{letter}": MODULE_A for letter in "bcde"},  # 35 × 35
    {  # 17 × 17
        "Mixed_6a": REDUCTION_A,
        **{f"Mixed_6{letter}": MODULE_B for letter in "bcdefgh"},
    },
    {  # 8 × 8
        "Mixed_7a": REDUCTION_B,
        **{f"Mixed_7{letter}": MODULE_C for letter in "bcd"},
    },
)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV4(spec.BackboneSpec):
    """Stem with branches -> three stages of Inception modules -> average pool.

    Args:
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      norm_scale: whether batch norm has a scale; timm's weights need it.
      stages: the modules.

    Deviations:
      As in TF-Slim, batch norm has no scale, and the order of 1×n and n×1 convolutions
      is not everywhere that of Figures 5 and 6. The auxiliary
      classifier is not built; the importer leaves out its weights.

    Endpoints besides the stages: TF-Slim's `Mixed_5b` to `Mixed_7d`. Its `Mixed_5a` is
    `stem`, of which `Mixed_3a` and `Mixed_4a` are parts.
    """

    image_size: int = 299
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    norm_scale: bool = False
    stages: tuple[dict[str, blocks.Module], ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Figure 9; `feature_vector` is [B, 1536] float32."""
        style = blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=self.norm_scale,
        )
        images = keras.Input((None, None, 3), name="images")
        x = _stem(images, style)
        endpoints = {"stem": x}
        for number, stage in enumerate(self.stages, start=1):
            for block, (name, branches) in enumerate(stage.items(), start=1):
                block_name = f"stage_{number}_block_{block}"
                x = blocks.module(x, branches, style=style, name=block_name)
                endpoints[name] = x
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="inception_v4")


def _stem(images: keras.KerasTensor, style: conv_norm.Style) -> keras.KerasTensor:
    """Three 3×3 convs -> three modules that concatenate two branches: 35 × 35 × 384."""
    x = blocks.sequence(images, STEM, style=style, name="stem")
    for number, branches in enumerate(STEM_MODULES, start=1):
        x = blocks.module(x, branches, style=style, name=f"stem_module_{number}")
    return x
