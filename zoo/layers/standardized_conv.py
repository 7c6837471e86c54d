"""Convolution whose kernel is standardised at every call."""

from __future__ import annotations

import math
import typing

import keras

from zoo.layers import conv_norm


class StandardizedConv(keras.layers.Conv2D):
    """Weight standardisation -> convolution without bias, padded symmetrically.

    Each output channel's weights have mean 0 and variance 1 when they are applied.

    Source: arXiv:1903.10520, equations 7 and 8.

    Variables: `NAME/kernel`. Output: [B, ceil(H / strides), ceil(W / strides),
    filters].

    Args:
      filters: output channels.
      kernel_size: height and width of the kernel in pixels.
      epsilon: number added to the variance of a channel's weights.
      initializer: initialiser of the kernel, which gets a clone.
      strides: vertical and horizontal stride, 1 or 2.
      name: layer name, and the first part of its variable's path.
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_size: int,
        epsilon: float,
        initializer: typing.Any,
        strides: int = 1,
        name: str,
    ) -> None:
        super().__init__(
            filters,
            kernel_size,
            strides,
            padding="valid" if strides > 1 else "same",
            use_bias=False,
            kernel_initializer=conv_norm.clone_initializer(initializer),
            name=name,
        )
        self.epsilon = epsilon
        # Rows and columns on each side that are padded here.
        self.margin = kernel_size // 2 if strides > 1 else 0

    def call(self, inputs: typing.Any) -> typing.Any:
        x = inputs
        if self.margin:
            sides = (self.margin, self.margin)
            x = keras.ops.pad(x, ((0, 0), sides, sides, (0, 0)))
        kernel = standardize(self.kernel, epsilon=self.epsilon)
        return self.convolution_op(x, keras.ops.cast(kernel, self.compute_dtype))

    def compute_output_shape(self, input_shape: conv_norm.Shape) -> conv_norm.Shape:
        batch, height, width, channels = input_shape
        height, width = (n and n + 2 * self.margin for n in (height, width))
        return super().compute_output_shape((batch, height, width, channels))


def standardize(kernel: typing.Any, *, epsilon: float) -> typing.Any:
    """Returns a float32 kernel [h, w, C, N] whose N channels have mean 0, variance 1.

    The means are products with a row of 1 / (h · w · C): TensorFlow multiplies matrices
    on all cores, but reduces the leading axes of a kernel several times slower.
    """
    count = math.prod(kernel.shape[:-1])
    row = keras.ops.full((1, count), 1 / count, dtype="float32")
    flat = keras.ops.reshape(kernel, (count, kernel.shape[-1]))
    flat = keras.ops.cast(flat, "float32")
    centred = flat - keras.ops.matmul(row, flat)
    variance = keras.ops.matmul(row, keras.ops.square(centred))
    scaled = centred * keras.ops.rsqrt(variance + epsilon)
    return keras.ops.reshape(scaled, kernel.shape)
