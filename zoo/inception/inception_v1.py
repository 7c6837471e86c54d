"""Inception V1, GoogLeNet, with batch normalisation.

Source: Szegedy et al., arXiv:1409.4842, Table 1 and Figure 2 (b); batch norm: Ioffe and
Szegedy, arXiv:1502.03167. Reference code: TF-Slim's `nets/inception_v1.py`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.inception import blocks
from zoo.layers import conv_norm, truncated_normal

PADDINGS = ("same", "symmetric")


class Module(typing.NamedTuple):
    """One `inception` row of Table 1; the fields are its columns."""

    conv_1x1: int
    reduce_3x3: int
    conv_3x3: int
    reduce_5x5: int
    conv_5x5: int
    pool_proj: int


class Stage(typing.NamedTuple):
    """The modules of one resolution, by TF-Slim's names, and the max pool before them.

    TF-Slim counts the pool as module a: inception (3a) of Table 1 is `Mixed_3b`.
    """

    pool_size: int
    modules: dict[str, Module]


# Table 1. Columns: #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj. Right: output
# resolution at 224 px.
STAGES = (
    Stage(  # 28 × 28
        pool_size=3,
        modules={
            "Mixed_3b": Module(64, 96, 128, 16, 32, 32),
            "Mixed_3c": Module(128, 128, 192, 32, 96, 64),
        },
    ),
    Stage(  # 14 × 14
        pool_size=3,
        modules={
            "Mixed_4b": Module(192, 96, 208, 16, 48, 64),
            "Mixed_4c": Module(160, 112, 224, 24, 64, 64),
            "Mixed_4d": Module(128, 128, 256, 24, 64, 64),
            "Mixed_4e": Module(112, 144, 288, 32, 64, 64),
            "Mixed_4f": Module(256, 160, 320, 32, 128, 128),
        },
    ),
    Stage(  # 7 × 7
        pool_size=2,
        modules={
            "Mixed_5b": Module(256, 160, 320, 32, 128, 128),
            "Mixed_5c": Module(384, 192, 384, 48, 128, 128),
        },
    ),
)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionV1(spec.BackboneSpec):
    """7×7 stem -> three stages of Inception modules -> average pool.

    Args:
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      norm_scale: whether batch norm has a scale; torchvision's weights need it.
      padding: `same`, TensorFlow's, or `symmetric`, as torchvision's weights need it:
        the 7×7 convolution has 3 zeros on each side, and max pools begin at the first
        pixel (`ceil_mode`). At even sizes, the pools of both are the same.
      stages: the rows of Table 1.

    Deviations:
      Batch norm without scale follows every convolution, as in TF-Slim; the paper has
      local response normalisation. The #5×5 convolutions are 3×3, as in TF-Slim and
      torchvision. The auxiliary classifiers are not built: TF-Slim has none, and the
      importer leaves out torchvision's. Max pools have `same` padding; see `padding`.

    Endpoints besides the stages: TF-Slim's `Mixed_3b`, `Mixed_3c`, `Mixed_4b` to
    `Mixed_4f`, `Mixed_5b` and `Mixed_5c`.
    """

    image_size: int = 224
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    norm_scale: bool = False
    padding: str = "same"
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding not in PADDINGS:
            raise ValueError(
                f"InceptionV1.padding must be one of {', '.join(PADDINGS)}, "
                f"not {self.padding!r}."
            )

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 1024] float32."""
        style = blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=self.norm_scale,
            initializer=truncated_normal.TruncatedNormal(stddev=0.01),
            padding=self.padding,
        )
        images = keras.Input((None, None, 3), name="images")
        x = endpoint = self._stem(images, style)
        endpoints = {"stem": endpoint}
        for number, stage in enumerate(self.stages, start=1):
            if number > 1:  # the stem ends with the pool of stage 1
                x = self._max_pool(x, stage.pool_size, name=f"stage_{number}")
            for block, (name, row) in enumerate(stage.modules.items(), start=1):
                x = blocks.module(
                    x,
                    _branches(row),
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
                endpoints[name] = x
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="inception_v1")

    def _stem(
        self, images: keras.KerasTensor, style: conv_norm.Style
    ) -> keras.KerasTensor:
        """7×7 conv -> max pool -> 1×1 conv -> 3×3 conv -> max pool: 28 × 28 × 192."""
        x = conv_norm.ConvNorm(
            64, kernel_size=7, strides=2, style=style, name="stem_1"
        )(images)
        x = self._max_pool(x, 3, name="stem_1")
        x = conv_norm.ConvNorm(64, kernel_size=1, style=style, name="stem_2")(x)
        x = conv_norm.ConvNorm(192, kernel_size=3, style=style, name="stem_3")(x)
        return self._max_pool(x, self.stages[0].pool_size, name="stem_3")

    def _max_pool(
        self, inputs: keras.KerasTensor, size: int, *, name: str
    ) -> keras.KerasTensor:
        x, padding = inputs, self.padding
        if padding == "symmetric":
            # The last window may reach beyond the border. After ReLU, zeros there are
            # never the maximum.
            x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
            padding = "valid"
        return keras.layers.MaxPooling2D(size, 2, padding=padding, name=f"{name}_pool")(
            x
        )


def _branches(row: Module) -> blocks.Module:
    return (
        (blocks.Conv(row.conv_1x1, 1),),
        (blocks.Conv(row.reduce_3x3, 1), blocks.Conv(row.conv_3x3, 3)),
        (blocks.Conv(row.reduce_5x5, 1), blocks.Conv(row.conv_5x5, 3)),
        (blocks.Pool("max"), blocks.Conv(row.pool_proj, 1)),
    )
