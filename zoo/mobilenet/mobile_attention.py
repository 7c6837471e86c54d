"""Mobile MQA: attention whose heads share one key and one value."""

from __future__ import annotations

import dataclasses
import math
import typing

import keras

from zoo.layers import conv_norm

Shape = tuple[int | None, ...]


class MobileAttention(keras.layers.Layer):
    """Batch norm -> multi-query attention -> 1×1 conv.

    Source: arXiv:2404.10518, section 5, equation 2; arXiv:1911.02150 for the key and
    value that all heads share. The output has the input's shape. Variables:
    `NAME/norm`, `NAME/{query, key, value, project}/kernel`, and with `kv_strides`
    above 1 `NAME/{key, value}_depthwise/{conv, norm}`.

    Args:
      channels: channels of input and output.
      heads: number of queries for each position.
      head_channels: channels of each query, of the key and of the value.
      kv_strides: strides of a 3×3 depthwise convolution before key and value; 1 leaves
        it out.
      style: settings shared by the network's convolutions; its activation is not used.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        head_channels: int,
        kv_strides: int,
        style: conv_norm.Style,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.heads = heads
        self.head_channels = head_channels
        self.kv_strides = kv_strides
        self.norm = keras.layers.BatchNormalization(
            momentum=style.norm_momentum, epsilon=style.norm_epsilon, name="norm"
        )
        self.query = _pointwise(heads * head_channels, "query")
        self.key = _pointwise(head_channels, "key")
        self.value = _pointwise(head_channels, "value")
        self.project = _pointwise(channels, "project")
        # TF Vision uses Keras' default initialiser for all kernels of this layer.
        style = dataclasses.replace(style, depthwise_initializer="glorot_uniform")
        self.shrink_key, self.shrink_value = (
            conv_norm.ConvNorm(
                None,
                kernel_size=3,
                strides=kv_strides,
                linear=True,
                style=style,
                name=f"{part}_depthwise",
            )
            if kv_strides > 1
            else keras.layers.Identity(name=f"{part}_identity")
            for part in ("key", "value")
        )

    def build(self, input_shape: Shape) -> None:
        for layer in (self.norm, self.query, self.shrink_key, self.shrink_value):
            layer.build(input_shape)
        self.key.build(input_shape)
        self.value.build(input_shape)
        self.project.build((*input_shape[:-1], self.heads * self.head_channels))
        self.built = True

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        x = self.norm(inputs, training=training)
        key = self.key(self.shrink_key(x, training=training))
        value = self.value(self.shrink_value(x, training=training))
        batch, height, width, _ = keras.ops.shape(x)

        # The heads share the keys: queries are [batch, positions · heads, channels].
        shape = (batch, -1, self.head_channels)
        query = keras.ops.reshape(self.query(x), shape) / self.head_channels**0.5
        key, value = keras.ops.reshape(key, shape), keras.ops.reshape(value, shape)
        scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1)))
        attended = keras.ops.matmul(keras.ops.softmax(scores, axis=-1), value)
        # Without a static number of channels, Keras would compile with XLA.
        output_shape = (batch, height, width, self.heads * self.head_channels)
        return self.project(keras.ops.reshape(attended, output_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """Returns the multiply-adds of all kernels and both attention products."""
        _, height, width, channels = input_shape
        positions = height * width
        kv_positions = math.ceil(height / self.kv_strides) * math.ceil(
            width / self.kv_strides
        )
        query_channels = self.heads * self.head_channels
        shrink = 9 * channels if self.kv_strides > 1 else 0
        return (
            2 * positions * channels * query_channels  # query and project
            + 2 * kv_positions * (shrink + channels * self.head_channels)
            + 2 * positions * kv_positions * query_channels
        )


def _pointwise(channels: int, name: str) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(channels, 1, use_bias=False, name=name)
