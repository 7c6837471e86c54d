"""AlexNet: five convolutions, three max pools, and fully connected layers.

Source: Krizhevsky, arXiv:1404.5997, the single-column model of the experiments. It is
the network of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep
Convolutional Neural Networks", NIPS 2012, in one column instead of two. Reference code:
torchvision.
"""

from __future__ import annotations

import dataclasses
import typing

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, fully_convolutional


class Stage(typing.NamedTuple):
    """One convolution, and the max pool after it."""

    channels: int
    kernel_size: int
    strides: int
    pool: bool


# The widths in torchvision; right: output resolution at 224 px.
STAGES = (
    Stage(channels=64, kernel_size=11, strides=4, pool=True),  # 27 × 27
    Stage(channels=192, kernel_size=5, strides=1, pool=True),  # 13 × 13
    Stage(channels=384, kernel_size=3, strides=1, pool=False),  # 13 × 13
    Stage(channels=256, kernel_size=3, strides=1, pool=False),  # 13 × 13
    Stage(channels=256, kernel_size=3, strides=1, pool=True),  # 6 × 6
)
STEM_MARGIN = 2  # zeros padded on each side of the images
FC6_KERNEL = 6  # the resolution of the last max pool at 224 px


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class AlexNet(spec.BackboneSpec):
    """Five convolutions, three with a max pool -> fc6 -> fc7 -> average pool.

    Args:
      image_size: pixels; the smallest size is 223.
      dropout_rate: share of fc6's activations dropped in training, in [0, 1); None for
        that of fc7's, `model.dropout_rate`. A call's `dropout_rate` sets both.
      stages: the convolutions.

    Deviations:
      The fourth convolution has 256 channels, as in torchvision; the paper has 384.
      Local response normalisation is left out, as in torchvision.
      Dropout follows fc6 and fc7, as in the paper of 2012; torchvision has it before
      fc6 and before fc7.
      The fully connected layers fc6 and fc7 are convolutions, and fc7's activations are
      averaged over all positions, as in VGG. For other sizes than 224 px, torchvision
      resizes the last feature map to 6 × 6; here smaller images are refused.
      Kernels have the initialisation of arXiv:1502.01852; torchvision's is PyTorch's
      default.
    """

    image_size: int
    dropout_rate: float | None = None
    stages: tuple[Stage, ...] = STAGES

    def build(self) -> keras.Model:
        """Builds the network; `feature_vector` is [B, 4096] float32.

        Beside the stages, the endpoints are `stem`, the first convolution before its
        max pool, and `fc6`.
        """
        initializer = keras.initializers.VarianceScaling(
            2.0, "fan_in", distribution="uniform"
        )
        images = keras.Input((None, None, 3), name="images")
        endpoints: dict[str, keras.KerasTensor] = {}

        x = keras.layers.ZeroPadding2D(STEM_MARGIN, name="stem_pad")(images)
        for number, stage in enumerate(self.stages, start=1):
            x = keras.layers.Conv2D(
                stage.channels,
                stage.kernel_size,
                stage.strides,
                padding="same" if stage.strides == 1 else "valid",
                activation="relu",
                kernel_initializer=conv_norm.clone_initializer(initializer),
                name=f"stage_{number}_block_1_conv",
            )(x)
            endpoints.setdefault("stem", x)
            if stage.pool:
                x = keras.layers.MaxPooling2D(3, 2, name=f"stage_{number}_pool")(x)
            endpoints[f"stage_{number}"] = x
        endpoints |= fully_convolutional.features(
            x,
            kernel_size=FC6_KERNEL,
            dropout_rate=self.dropout_rate or 0.0,
            initializer=initializer,
        )
        return keras.Model(images, endpoints, name="alexnet")
