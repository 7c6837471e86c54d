"""VGG: stages of 3×3 convolutions, each with a max pool, and fully connected layers.

Source: Simonyan and Zisserman, arXiv:1409.1556, Table 1 and section 2. Reference code:
the authors' Caffe models of 16 and 19 layers, TF-Slim's `nets/vgg.py`, and torchvision,
which also has 11 and 13 layers, and batch normalisation.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, fully_convolutional


class Stage(typing.NamedTuple):
    """The convolutions between two max pools of Table 1."""

    channels: int
    convolutions: Mapping[int, int]  # depth of the network -> number of convolutions


# Table 1: columns A (11), B (13), D (16) and E (19). Right: output resolution at
# 224 px, after the max pool.
STAGES = (
    Stage(channels=64, convolutions={11: 1, 13: 2, 16: 2, 19: 2}),  # 112 × 112
    Stage(channels=128, convolutions={11: 1, 13: 2, 16: 2, 19: 2}),  # 56 × 56
    Stage(channels=256, convolutions={11: 2, 13: 2, 16: 3, 19: 4}),  # 28 × 28
    Stage(channels=512, convolutions={11: 2, 13: 2, 16: 3, 19: 4}),  # 14 × 14
    Stage(channels=512, convolutions={11: 2, 13: 2, 16: 3, 19: 4}),  # 7 × 7
)
FC6_KERNEL = 7  # the resolution of the last max pool at 224 px
FC_LIMIT = 0.01 * 3**0.5  # for a standard deviation of 0.01, as in torchvision


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class VGG(spec.BackboneSpec):
    """Five stages of 3×3 convolutions and a max pool -> fc6 -> fc7 -> average pool.

    Args:
      depth: number of layers with weights; selects the column of Table 1.
      image_size: pixels; the smallest size is 224.
      batch_norm: normalise after each convolution of the stages.
      dropout_rate: share of fc6's activations dropped in training, in [0, 1); None for
        that of fc7's, `model.dropout_rate`. A call's `dropout_rate` sets both.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      stages: the rows of Table 1.

    Deviations:
      The fully connected layers fc6 and fc7 are convolutions at training time too, and
      fc7's activations are averaged over all positions before the last layer instead
      of the class scores after it, which gives the same scores. For images smaller than
      224 px, torchvision enlarges the last feature map; here they are refused.
      Batch normalisation is not in the paper. As in torchvision, convolutions before it
      keep their bias.
      Kernels of the stages have the initialisation of arXiv:1502.01852, as in
      torchvision, so that 16 and 19 layers train without the paper's pre-training of
      11 layers. They, and the dense layers, are drawn from uniform distributions with
      the variance of torchvision's normal ones.
      Columns A-LRN (local response normalisation) and C (1×1 convolutions) are left
      out: none of the projects above publishes weights of them.
    """

    depth: int
    image_size: int
    batch_norm: bool = False
    dropout_rate: float | None = None
    batch_norm_momentum: float = 0.9
    batch_norm_epsilon: float = 1e-5
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        depths = self.stages[0].convolutions
        if self.depth not in depths:
            raise ValueError(
                f"VGG.depth must be one of {', '.join(map(str, depths))}, "
                f"not {self.depth!r}."
            )

    def build(self) -> keras.Model:
        """Builds Table 1; `feature_vector` is [B, 4096] float32.

        Beside the stages, each of which ends with its max pool, the endpoints are
        `stem`, the first convolution, and `fc6`.
        """
        images = keras.Input((None, None, 3), name="images")
        endpoints: dict[str, keras.KerasTensor] = {}

        x = images
        for number, stage in enumerate(self.stages, start=1):
            for block in range(1, stage.convolutions[self.depth] + 1):
                name = f"stage_{number}_block_{block}_conv"
                x = self._convolution(stage.channels, name=name)(x)
                endpoints.setdefault("stem", x)
            x = keras.layers.MaxPooling2D(2, 2, name=f"stage_{number}_pool")(x)
            endpoints[f"stage_{number}"] = x
        endpoints |= fully_convolutional.features(
            x,
            kernel_size=FC6_KERNEL,
            dropout_rate=self.dropout_rate or 0.0,
            initializer=keras.initializers.RandomUniform(-FC_LIMIT, FC_LIMIT),
        )
        return keras.Model(images, endpoints, name="vgg")

    def _convolution(self, channels: int, *, name: str) -> keras.layers.Layer:
        """Returns 3×3 convolution -> batch norm, if there is any -> ReLU."""
        initializer = keras.initializers.VarianceScaling(
            2.0, "fan_out", distribution="uniform"
        )
        if not self.batch_norm:
            return keras.layers.Conv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=initializer,
                name=name,
            )
        style = conv_norm.Style(
            activation="relu",
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=initializer,
            depthwise_initializer=initializer,
            bias=True,
        )
        return conv_norm.ConvNorm(channels, kernel_size=3, style=style, name=name)
