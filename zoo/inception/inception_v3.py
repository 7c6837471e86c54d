"""Inception V3: factorised convolutions.

Source: Szegedy et al., arXiv:1512.00567, Table 1 and Figures 5 to 7. Reference code:
TF-Slim's `nets/inception_v3.py`.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.inception import blocks
from zoo.inception.blocks import Conv, Pool, Split

# The first rows of Table 1. Conv: channels, kernel size, strides. Right: output
# resolution at 299 px.
STEM = (
    Conv(32, 3, strides=2, padding="valid"),  # 149 × 149
    Conv(32, 3, padding="valid"),  # 147 × 147
    Conv(64, 3),  # 147 × 147
    blocks.REDUCE_POOL,  # 73 × 73
    Conv(80, 1),  # 73 × 73
    Conv(192, 3, padding="valid"),  # 71 × 71
    blocks.REDUCE_POOL,  # 35 × 35
)


def module_a(*, pool_channels: int) -> blocks.Module:
    """Returns a module of Figure 5, with a 5×5 convolution in its second branch."""
    return (
        (Conv(64, 1),),
        (Conv(48, 1), Conv(64, 5)),
        (Conv(64, 1), Conv(96, 3), Conv(96, 3)),
        (Pool("average"), Conv(pool_channels, 1)),
    )


def module_b(*, channels: int) -> blocks.Module:
    """Returns a module of Figure 6, for n = 7."""
    return (
        (Conv(192, 1),),
        (Conv(channels, 1), Conv(channels, (1, 7)), Conv(192, (7, 1))),
        (
            Conv(channels, 1),
            Conv(channels, (7, 1)),
            Conv(channels, (1, 7)),
            Conv(channels, (7, 1)),
            Conv(192, (1, 7)),
        ),
        (Pool("average"), Conv(192, 1)),
    )


# Figure 7.
MODULE_C: blocks.Module = (
    (Conv(320, 1),),
    (Conv(384, 1), Split((Conv(384, (1, 3)), Conv(384, (3, 1))))),
    (Conv(448, 1), Conv(384, 3), Split((Conv(384, (1, 3)), Conv(384, (3, 1))))),
    (Pool("average"), Conv(192, 1)),
)
# Section 5 and Figure 10: a pool beside convolutions with stride 2.
REDUCTION_A: blocks.Module = (
    (blocks.reduce(384),),
    (Conv(64, 1), Conv(96, 3), blocks.reduce(96)),
    (blocks.REDUCE_POOL,),
)
REDUCTION_B: blocks.Module = (
    (Conv(192, 1), blocks.reduce(320)),
    (Conv(192, 1), Conv(192, (1, 7)), Conv(192, (7, 1)), blocks.reduce(192)),
    (blocks.REDUCE_POOL,),
)

# The modules of each resolution, by TF-Slim's names.
STAGES = (
    {  # 35 × 35
        "Mixed_5b": module_a(pool_channels=32),  # 256 channels
        "Mixed_5c": module_a(pool_channels=64),  # 288 channels
        "Mixed_5d": module_a(pool_channels=64),
    },
    {  # 17 × 17, 768 channels
        "Mixed_6a": REDUCTION_A,
        "Mixed_6b": module_b(channels=128),
        "Mixed_6c": module_b(channels=160),
        "Mixed_6d": module_b(channels=160),
        "Mixed_6e": module_b(channels=192),
    },
    {  # 8 × 8
        "Mixed_7a": REDUCTION_B,  # 1280 channels
        "Mixed_7b": MODULE_C,  # 2048 channels
        "Mixed_7c": MODULE_C,
    },
)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV3(spec.BackboneSpec):
    """Stem of 3×3 convolutions -> three stages of Inception modules -> average pool.

    Args:
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      norm_scale: whether batch norm has a scale; torchvision's and timm's weights need
        it.
      pool_counts_padding: whether the average pools in modules count the zeros beyond
        the border, as in torchvision and timm.
      stages: the modules.

    Deviations:
      The network is TF-Slim's, of which keras.applications' and torchvision's are
      copies. The stem ends with a 1×1 convolution with 80 channels, a 3×3 convolution
      with 192 and a max pool, where Table 1 has three 3×3 convolutions; modules of
      Figure 5 have a 5×5 convolution; Table 1 gives only 288, 768 and 1280 channels for
      the inputs of the three groups of modules. Batch norm has no scale. The auxiliary
      classifier is not built; importers leave out its weights.

    Endpoints besides the stages: TF-Slim's `Mixed_5b` to `Mixed_7c`.
    """

    image_size: int = 299
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    norm_scale: bool = False
    pool_counts_padding: bool = False
    stages: tuple[dict[str, blocks.Module], ...] = STAGES

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 2048] float32."""
        style = blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=self.norm_scale,
        )
        images = keras.Input((None, None, 3), name="images")
        x = blocks.sequence(images, STEM, style=style, name="stem")
        endpoints = {"stem": x}
        for number, stage in enumerate(self.stages, start=1):
            for block, (name, branches) in enumerate(stage.items(), start=1):
                x = blocks.module(
                    x,
                    branches,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                    pool_counts_padding=self.pool_counts_padding,
                )
                endpoints[name] = x
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="inception_v3")
