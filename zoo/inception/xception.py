"""Xception: depthwise separable convolutions with residual connections.

Source: Chollet, arXiv:1610.02357, Figure 5. Reference code: keras.applications'
`xception.py`.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.inception import blocks
from zoo.layers import conv_norm

POOL_PADDINGS = ("same", "symmetric")


class Block(typing.NamedTuple):
    """Separable convolutions, and a shortcut around them.

    With strides 1, a block keeps the shape of its input, and its shortcut is the
    identity. With others, a max pool has the strides, and the shortcut is a 1×1
    convolution with the same strides.
    """

    channels: tuple[int, ...]
    strides: int = 1


# Figure 5 without the first two convolutions and the last two, which have no shortcut.
# Right: output resolution at 299 px.
STAGES: tuple[tuple[Block, ...], ...] = (
    (Block(channels=(128, 128), strides=2),),  # 74 × 74
    (Block(channels=(256, 256), strides=2),),  # 37 × 37
    (  # 19 × 19
        Block(channels=(728, 728), strides=2),
        *(8 * (Block(channels=(728, 728, 728)),)),
    ),
    (Block(channels=(728, 1024), strides=2),),  # 10 × 10
)
STEM_CHANNELS = (32, 64)
EXIT_CHANNELS = (1536, 2048)


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Xception(spec.BackboneSpec):
    """Entry flow -> middle flow -> exit flow -> average pool.

    Args:
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance; timm's weights need 1e-5.
      pool_padding: `same`, TensorFlow's, or `symmetric`, as timm's weights need it: the
        first window of each max pool is around the first pixel. At odd sizes, both are
        the same.
      stages: the blocks of Figure 5.

    Deviations:
      None from keras.applications. Figure 5 does not state the padding; as in
      keras.applications, the stem's two convolutions have none.
    """

    image_size: int = 299
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-3
    pool_padding: str = "same"
    stages: tuple[tuple[Block, ...], ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool_padding not in POOL_PADDINGS:
            raise ValueError(
                f"pool_padding must be one of {', '.join(POOL_PADDINGS)}, "
                f"not {self.pool_padding!r}."
            )

    def build(self) -> keras.Model:
        """Builds Figure 5; `feature_vector` is [B, 2048] float32."""
        style = blocks.style(
            momentum=self.batch_norm_momentum,
            epsilon=self.batch_norm_epsilon,
            scale=True,
            initializer="glorot_uniform",
            padding="valid",
        )
        images = keras.Input((None, None, 3), name="images")
        x = images
        for number, channels in enumerate(STEM_CHANNELS, start=1):
            x = conv_norm.ConvNorm(
                channels,
                kernel_size=3,
                strides=2 if number == 1 else 1,
                style=style,
                name=f"stem_{number}",
            )(x)
        endpoints = {"stem": x}
        for number, stage in enumerate(self.stages, start=1):
            for block, row in enumerate(stage, start=1):
                name = f"stage_{number}_block_{block}"
                # The output of the stem is activated already.
                first = name == "stage_1_block_1"
                x = self._block(
                    x, row, activate_first=not first, style=style, name=name
                )
            if number == len(self.stages):
                name = f"stage_{number}_block_{len(stage) + 1}"
                x = _exit(x, style=style, name=name)
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        average = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = average(x)
        return keras.Model(images, endpoints, name="xception")

    def _block(
        self,
        inputs: keras.KerasTensor,
        row: Block,
        *,
        activate_first: bool,
        style: conv_norm.Style,
        name: str,
    ) -> keras.KerasTensor:
        """ReLU -> separable conv, two or three times -> max pool -> add the shortcut.

        Args:
          inputs: [B, H, W, C].
          row: the block; with strides 1, it has no max pool.
          activate_first: whether the first separable convolution has a ReLU before it.
          style: settings shared by the network's convolutions.
          name: name of the block, such as `stage_1_block_1`.
        """
        x = inputs
        for number, channels in enumerate(row.channels, start=1):
            part = f"{name}_conv_{number}"
            if number > 1 or activate_first:
                x = keras.layers.Activation(blocks.ACTIVATION, name=f"{part}_in")(x)
            x = separable_conv(x, channels, linear=True, style=style, name=part)
        if row.strides == 1:
            return keras.layers.Add(name=f"{name}_add")([inputs, x])
        shortcut = conv_norm.ConvNorm(
            row.channels[-1],
            kernel_size=1,
            strides=row.strides,
            linear=True,
            style=style,
            name=f"{name}_shortcut",
        )(inputs)
        x = self._max_pool(x, strides=row.strides, name=f"{name}_pool")
        return keras.layers.Add(name=f"{name}_add")([shortcut, x])

    def _max_pool(
        self, inputs: keras.KerasTensor, *, strides: int, name: str
    ) -> keras.KerasTensor:
        if self.pool_padding == "same":
            return keras.layers.MaxPooling2D(3, strides, padding="same", name=name)(
                inputs
            )
        # The maxima around every pixel, of which the strides keep the first, the third…
        x = keras.layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_all")(inputs)
        return keras.layers.MaxPooling2D(1, strides, name=name)(x)


def _exit(
    inputs: keras.KerasTensor, *, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Two separable convolutions, each followed by ReLU."""
    x = inputs
    for number, channels in enumerate(EXIT_CHANNELS, start=1):
        part = f"{name}_conv_{number}"
        x = separable_conv(x, channels, linear=False, style=style, name=part)
    return x


def separable_conv(
    inputs: keras.KerasTensor,
    channels: int,
    *,
    linear: bool,
    style: conv_norm.Style,
    name: str,
) -> keras.KerasTensor:
    """3×3 depthwise -> 1×1 conv -> batch norm -> ReLU, unless linear.

    Source: arXiv:1610.02357, sections 3 and 4.7: nothing is between the convolutions.

    Args:
      inputs: [B, H, W, C].
      channels: output channels.
      linear: leave out the activation.
      style: settings shared by the network's convolutions.
      name: first part of the layers' names, `NAME_depthwise` and `NAME_pointwise`.

    Returns:
      [B, H, W, channels].
    """
    x = keras.layers.DepthwiseConv2D(
        3,
        padding="same",
        use_bias=False,
        depthwise_initializer=conv_norm.clone_initializer(style.depthwise_initializer),
        name=f"{name}_depthwise",
    )(inputs)
    return conv_norm.ConvNorm(
        channels, kernel_size=1, linear=linear, style=style, name=f"{name}_pointwise"
    )(x)
