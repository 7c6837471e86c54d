"""DenseNet: a layer's input is the concatenated outputs of all layers before it.

Source: Huang et al., arXiv:1608.06993, section 3 and Table 1. Reference code: the
authors' `models/densenet.lua`, and torchvision's `models/densenet.py`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, norm_activation


class Stage(typing.NamedTuple):
    """A row "Dense Block" of Table 1; its unit, a dense layer, is our block."""

    layers: Mapping[int, int]  # depth of the network -> number of dense layers


# Table 1, by depth. Right: output resolution at 224 px.
STAGES = (
    Stage(layers={121: 6, 161: 6, 169: 6, 201: 6}),  # 56 × 56
    Stage(layers={121: 12, 161: 12, 169: 12, 201: 12}),  # 28 × 28
    Stage(layers={121: 24, 161: 36, 169: 32, 201: 48}),  # 14 × 14
    Stage(layers={121: 16, 161: 24, 169: 32, 201: 32}),  # 7 × 7
)
BOTTLENECK = 4  # section 3, "Bottleneck layers": 4k channels
ACTIVATION = "relu"


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseNet(spec.BackboneSpec):
    """7×7 stem -> max pool -> four dense blocks, transitions between -> average pool.

    This is DenseNet-BC: with bottlenecks, and with transitions that halve the channels.
    The endpoint `block_N` is the dense block that the paper calls Dense Block (N), the
    same as `stage_N`; its layers are `stage_N_block_1`, `stage_N_block_2` and so on.

    Args:
      depth: number of layers with weights; selects the column of Table 1.
      growth_rate: channels that each layer adds, the paper's k. The stem has 2k.
      image_size: pixels.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance; the weights of keras.applications need
        1.001e-5.
      stages: the rows of Table 1.

    Deviations:
      The output of the last dense block is normalised and activated, as in the authors'
      code. Table 1 does not show it.
      Kernels are drawn from a uniform distribution; in the authors' code it is a normal
      one of the same variance.
      DenseNet-161 with k = 48 is in the authors' code and README; in Table 1 of the
      paper's last version, v5, all networks have k = 32.
    """

    depth: int
    growth_rate: int
    image_size: int
    batch_norm_momentum: float
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("DenseNet.growth_rate", self.growth_rate, 1, 512)
        depths = self.stages[0].layers
        if self.depth not in depths:
            raise ValueError(
                f"DenseNet.depth must be one of {', '.join(map(str, depths))}, "
                f"not {self.depth!r}."
            )

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 1024] float32 at depth 121."""
        style = self._style()
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = stem(images, channels=2 * self.growth_rate, style=style)
        endpoints["stem"] = x
        for number, stage in enumerate(self.stages, start=1):
            if number > 1:
                x = transition(x, style=style, name=f"transition_{number - 1}")
            for block in range(1, stage.layers[self.depth] + 1):
                x = dense_layer(
                    x,
                    growth_rate=self.growth_rate,
                    style=style,
                    name=f"stage_{number}_block_{block}",
                )
            endpoints[f"stage_{number}"] = endpoints[f"block_{number}"] = x
        x = norm_activation.NormActivation(style=style, name="feature_map")(x)
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="densenet")

    def _style(self) -> conv_norm.Style:
        # He et al., arXiv:1502.01852: variance 2 / fan out, as in densenet.lua. Keras
        # draws faster from uniform distributions than from normal ones.
        initializer = keras.initializers.VarianceScaling(
            2.0, "fan_out", distribution="uniform"
        )
        return conv_norm.Style(
            activation=ACTIVATION,
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            padding="symmetric",
        )


def stem(
    inputs: keras.KerasTensor, *, channels: int, style: conv_norm.Style
) -> keras.KerasTensor:
    """7×7 conv with stride 2 -> 3×3 max pool with stride 2.

    Returns:
      [B, ceil(H / 4), ceil(W / 4), channels].
    """
    x = conv_norm.ConvNorm(
        channels, kernel_size=7, strides=2, style=style, name="stem"
    )(inputs)
    x = keras.layers.ZeroPadding2D(1, name="stem_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def dense_layer(
    inputs: keras.KerasTensor, *, growth_rate: int, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Norm -> ReLU -> 1×1 conv -> norm -> ReLU -> 3×3 conv -> concatenate.

    Source: arXiv:1608.06993, section 3, equation 2 and "Bottleneck layers".

    Returns:
      [B, H, W, C + growth_rate]: the inputs, then the new channels.
    """
    x = norm_activation.NormActivation(style=style, name=f"{name}_preact")(inputs)
    x = conv_norm.ConvNorm(
        BOTTLENECK * growth_rate, kernel_size=1, style=style, name=f"{name}_bottleneck"
    )(x)
    x = keras.layers.Conv2D(
        growth_rate,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=conv_norm.clone_initializer(style.initializer),
        name=f"{name}_growth",
    )(x)
    # `inputs` must come first: Keras follows first inputs recursively. If `x` were the
    # first, the path through all convolutions of DenseNet-201 would be too long for it.
    return keras.layers.Concatenate(name=f"{name}_concat")([inputs, x])


def transition(
    inputs: keras.KerasTensor, *, style: conv_norm.Style, name: str
) -> keras.KerasTensor:
    """Norm -> ReLU -> 1×1 conv -> 2×2 average pool with stride 2.

    Source: arXiv:1608.06993, section 3, "Pooling layers" and "Compression": θ = 0.5.

    Returns:
      [B, floor(H / 2), floor(W / 2), floor(C / 2)].
    """
    x = norm_activation.NormActivation(style=style, name=f"{name}_preact")(inputs)
    x = keras.layers.Conv2D(
        inputs.shape[-1] // 2,
        1,
        use_bias=False,
        kernel_initializer=conv_norm.clone_initializer(style.initializer),
        name=f"{name}_conv",
    )(x)
    return keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
