"""Convolution, batch normalisation and activation as one layer."""

from __future__ import annotations

import dataclasses
import typing

import keras

Shape = tuple[int | None, ...]
PADDINGS = ("same", "symmetric")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """Settings that all convolutions of a network share.

    Args:
      activation: name of a Keras activation.
      norm_momentum: share of the moving statistics that a training step keeps.
      norm_epsilon: number added to the variance in batch norm.
      initializer: initialiser of convolution kernels. Each kernel gets a clone, because
        one instance draws the same values for every kernel of the same shape.
      depthwise_initializer: initialiser of depthwise kernels; cloned too.
      padding: padding of strided convolutions. `same` is TensorFlow's: if the total is
        odd, the bottom and right get one pixel more. `symmetric` is PyTorch's: half the
        kernel size on each side. At stride 1 both are the same.
    """

    activation: str
    norm_momentum: float
    norm_epsilon: float
    initializer: typing.Any
    depthwise_initializer: typing.Any
    padding: str = "same"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(
                f"padding must be one of {', '.join(PADDINGS)}, not {self.padding!r}."
            )


def clone_initializer(initializer: typing.Any) -> keras.Initializer:
    """Returns a clone for one kernel; a shared instance would repeat its values."""
    return keras.initializers.get(initializer).clone()


class ConvNorm(keras.layers.Layer):
    """Convolution (no bias) -> batch norm -> activation.

    Variables: `NAME/conv/kernel` and `NAME/norm/{gamma, beta, moving_mean,
    moving_variance}`. Output: [B, ceil(H / strides), ceil(W / strides), filters].

    Args:
      filters: output channels; None for a depthwise convolution, which keeps the number
        of channels.
      kernel_size: height and width of the kernel, pixels; odd.
      style: settings shared by the network's convolutions.
      strides: vertical and horizontal stride, 1 or 2.
      linear: leave out the activation.
      gamma_initializer: initialiser of batch norm's scale. With `zeros`, a residual
        branch that ends here initially outputs zeros.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self,
        filters: int | None,
        *,
        kernel_size: int,
        style: Style,
        strides: int = 1,
        linear: bool = False,
        gamma_initializer: str = "ones",
        name: str,
    ) -> None:
        super().__init__(name=name)
        pads = style.padding == "symmetric" and strides > 1
        self.margin = kernel_size // 2 if pads else 0
        shared = {
            "strides": strides,
            "padding": "valid" if pads else "same",
            "use_bias": False,
            "name": "conv",
        }
        if filters is None:
            self.conv = keras.layers.DepthwiseConv2D(
                kernel_size,
                depthwise_initializer=clone_initializer(style.depthwise_initializer),
                **shared,
            )
        else:
            self.conv = keras.layers.Conv2D(
                filters,
                kernel_size,
                kernel_initializer=clone_initializer(style.initializer),
                **shared,
            )
        self.norm = keras.layers.BatchNormalization(
            momentum=style.norm_momentum,
            epsilon=style.norm_epsilon,
            gamma_initializer=gamma_initializer,
            name="norm",
        )
        self.activation = keras.activations.get(None if linear else style.activation)

    def build(self, input_shape: Shape) -> None:
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(self._padded(input_shape)))
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        x = inputs
        if self.margin:
            sides = (self.margin, self.margin)
            x = keras.ops.pad(x, ((0, 0), sides, sides, (0, 0)))
        return self.activation(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.conv.compute_output_shape(self._padded(input_shape))

    def _padded(self, shape: Shape) -> Shape:
        batch, height, width, channels = shape
        height, width = (n and n + 2 * self.margin for n in (height, width))
        return batch, height, width, channels
