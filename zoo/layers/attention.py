"""Multi-head self-attention, without its linear layers."""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]


class _Attention(keras.layers.Layer):
    """Base class of attention with several heads.

    Args:
      num_heads: number of heads, which divides the channels C.
      name: layer name.
    """

    def __init__(self, num_heads: int, *, name: str) -> None:
        super().__init__(name=name)
        self.num_heads = num_heads


class _Heads(_Attention):
    """Splits [B, T, 3 · C], queries, keys and values, into heads."""

    def split(self, inputs: typing.Any) -> list[typing.Any]:
        """Returns queries, keys and values, each [B, T, heads, C / heads]."""
        batch, tokens, channels = keras.ops.shape(inputs)
        shape = (batch, tokens, 3, self.num_heads, channels // (3 * self.num_heads))
        heads = keras.ops.reshape(inputs, shape)
        return [heads[:, :, part] for part in range(3)]


class SelfAttention(_Heads):
    """[B, T, 3 · C] -> scaled dot products -> softmax -> sums of values [B, T, C].

    Source: arXiv:1706.03762, section 3.2; arXiv:2010.11929, appendix A.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        batch, tokens, channels = keras.ops.shape(inputs)
        x = keras.ops.dot_product_attention(*self.split(inputs))
        return keras.ops.reshape(x, (batch, tokens, channels // 3))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, tokens, channels = input_shape
        return batch, tokens, channels and channels // 3

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """Counts both products of T × T weights, with the keys and with the values.

        The batch counts, since an image may be divided into several sequences.
        """
        batch, tokens, channels = input_shape
        return 2 * batch * tokens**2 * (channels // 3)


class AttentionMap(_Heads):
    """[B, T, 3 · C] -> the weights of `SelfAttention`, [B, heads, T, T] float32.

    An image of them shows what a token, such as the class token, attends to.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        queries, keys, _ = self.split(inputs)
        scale = queries.shape[-1] ** -0.5
        products = keras.ops.einsum("bqhc,bkhc->bhqk", queries * scale, keys)
        return keras.ops.softmax(keras.ops.cast(products, "float32"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, tokens, _ = input_shape
        return batch, self.num_heads, tokens, tokens

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return 0  # its products are `SelfAttention`'s


class CrossAttention(_Attention):
    """Queries [B, Q, C] and, side by side, keys and values [B, T, 2 · C] -> [B, Q, C].

    Called on a list of the two.
    """

    def call(self, inputs: typing.Any) -> typing.Any:
        queries, others = inputs
        batch, count, channels = keras.ops.shape(queries)
        tokens = keras.ops.shape(others)[1]
        heads = (self.num_heads, channels // self.num_heads)
        queries = keras.ops.reshape(queries, (batch, count, *heads))
        others = keras.ops.reshape(others, (batch, tokens, 2, *heads))
        keys, values = others[:, :, 0], others[:, :, 1]
        x = keras.ops.dot_product_attention(queries, keys, values)
        return keras.ops.reshape(x, (batch, count, channels))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return input_shape[0]

    def multiply_adds(self, input_shape: list[tuple[int, ...]]) -> int:
        """Counts both products of Q × T weights, with the keys and with the values."""
        (_, count, channels), (_, tokens, _) = input_shape
        return 2 * count * tokens * channels


class QueryValueBias(keras.layers.Layer):
    """Adds a bias to queries and values, but not to keys, of [..., 3 · C].

    Source: arXiv:2106.08254, its code `modeling_finetune.py` in microsoft/unilm.

    Variables: `NAME/query` [C] and `NAME/value` [C].
    """

    def build(self, input_shape: Shape) -> None:
        shape = ((input_shape[-1] or 0) // 3,)
        self.query = self.add_weight(shape, "zeros", name="query")
        self.value = self.add_weight(shape, "zeros", name="value")
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        query = keras.ops.convert_to_tensor(self.query)
        parts = [query, keras.ops.zeros_like(query), self.value]
        return inputs + keras.ops.concatenate(parts)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape
