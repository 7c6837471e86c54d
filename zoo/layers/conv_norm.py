"""Convolution, batch normalisation and activation as one layer."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

import keras

Shape = tuple[int | None, ...]
Activation = str | Callable[[typing.Any], typing.Any]
PADDINGS = ("same", "symmetric", "valid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """Settings that all convolutions of a network share.

    Args:
      activation: a function, or the name of a Keras activation.
      norm_momentum: share of the moving statistics that a training step keeps.
      norm_epsilon: number added to the variance in batch norm.
      initializer: initialiser of convolution kernels. Each kernel gets a clone, because
        one instance draws the same values for every kernel of the same shape.
      depthwise_initializer: initialiser of depthwise kernels; cloned too.
      padding: padding of strided convolutions. `same` is TensorFlow's: if the total is
        odd, the bottom and right get one pixel more. `symmetric` is PyTorch's: half the
        kernel size on each side. At stride 1 both are the same. `valid` pads nothing,
        at any stride.
      norm_scale: whether batch norm has a scale, gamma.
      bias: whether convolutions have a bias, which batch norm makes superfluous.
    """

    activation: Activation
    norm_momentum: float
    norm_epsilon: float
    initializer: typing.Any
    depthwise_initializer: typing.Any
    padding: str = "same"
    norm_scale: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        check_padding("padding", self.padding)


def check_padding(name: str, padding: str) -> None:
    """Raises ValueError if `padding` is not one of `PADDINGS`."""
    if padding not in PADDINGS:
        raise ValueError(
            f"{name} must be one of {', '.join(PADDINGS)}, not {padding!r}."
        )


def clone_initializer(initializer: typing.Any) -> keras.Initializer:
    """Returns a clone for one kernel; a shared instance would repeat its values."""
    return keras.initializers.get(initializer).clone()


class ConvNorm(keras.layers.Layer):
    """Convolution -> batch norm -> activation.

    Variables: `NAME/conv/kernel`, with a bias `NAME/conv/bias`, and `NAME/norm/{gamma,
    beta, moving_mean, moving_variance}`, without gamma if the style has no scale.
    Output: [B, ceil(H / strides), ceil(W / strides), filters]; with `valid` padding
    [B, ceil((H - h + 1) / strides), ceil((W - w + 1) / strides), filters].

    Args:
      filters: output channels; None for a depthwise convolution, which keeps the number
        of channels.
      kernel_size: height h and width w of the kernel in pixels, or one number for both.
      style: settings shared by the network's convolutions.
      strides: vertical and horizontal stride, 1 or 2.
      groups: number of groups of channels that are convolved separately.
      padding: overrides the style's.
      linear: leave out the activation.
      gamma_initializer: initialiser of batch norm's scale. With `zeros`, a residual
        branch that ends here initially outputs zeros.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self,
        filters: int | None,
        *,
        kernel_size: int | tuple[int, int],
        style: Style,
        strides: int = 1,
        groups: int = 1,
        padding: str | None = None,
        linear: bool = False,
        gamma_initializer: str = "ones",
        name: str,
    ) -> None:
        super().__init__(name=name)
        padding = padding or style.padding
        check_padding(f"padding of {name}", padding)
        height, width = (
            (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        )
        # Rows at top and bottom, columns at left and right, that are padded here.
        pads = padding == "symmetric" and strides > 1
        self.margins = (height // 2, width // 2) if pads else (0, 0)
        shared = {
            "strides": strides,
            "padding": "valid" if pads or padding == "valid" else "same",
            "use_bias": style.bias,
            "name": "conv",
        }
        if filters is None:
            self.conv = keras.layers.DepthwiseConv2D(
                (height, width),
                depthwise_initializer=clone_initializer(style.depthwise_initializer),
                **shared,
            )
        else:
            self.conv = keras.layers.Conv2D(
                filters,
                (height, width),
                groups=groups,
                kernel_initializer=clone_initializer(style.initializer),
                **shared,
            )
        self.norm = keras.layers.BatchNormalization(
            momentum=style.norm_momentum,
            epsilon=style.norm_epsilon,
            scale=style.norm_scale,
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
        if any(self.margins):
            rows, columns = self.margins
            x = keras.ops.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
        return self.activation(self.norm(self.conv(x), training=training))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.conv.compute_output_shape(self._padded(input_shape))

    def _padded(self, shape: Shape) -> Shape:
        batch, height, width, channels = shape
        rows, columns = self.margins
        return (
            batch,
            height and height + 2 * rows,
            width and width + 2 * columns,
            channels,
        )
