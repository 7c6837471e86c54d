"""Tests attention against a plain computation, and against Keras' own layer."""

import keras
import numpy as np

from tests.zoo import parity
from zoo.layers import attention

HEADS, SIZE = 3, 4
CHANNELS = HEADS * SIZE


def weights_and_sums(queries, keys, values):
    """Computes one head in NumPy."""
    products = queries @ keys.T / np.sqrt(SIZE)
    weights = np.exp(products - products.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights, weights @ values


def test_self_attention_and_its_map():
    x = np.random.default_rng(0).normal(size=(2, 7, 3 * CHANNELS)).astype("float32")
    outputs = attention.SelfAttention(HEADS, name="attention")(x)
    maps = attention.AttentionMap(HEADS, name="map")(x)
    assert maps.shape == (2, HEADS, 7, 7)
    for image in range(2):
        queries, keys, values = np.split(x[image], 3, axis=1)
        for head in range(HEADS):
            part = slice(SIZE * head, SIZE * (head + 1))
            weights, sums = weights_and_sums(
                queries[:, part], keys[:, part], values[:, part]
            )
            assert parity.relative(maps[image, head], weights) < 1e-5
            assert parity.relative(outputs[image][:, part], sums) < 1e-5


def test_cross_attention_is_that_of_keras():
    random = np.random.default_rng(0)
    queries = random.normal(size=(2, 3, CHANNELS)).astype("float32")
    others = random.normal(size=(2, 7, 2 * CHANNELS)).astype("float32")
    layer = attention.CrossAttention(HEADS, name="attention")
    theirs = keras.layers.MultiHeadAttention(HEADS, SIZE, use_bias=False)
    keys, values = np.split(others, 2, axis=-1)
    theirs.build(queries.shape, values.shape, keys.shape)
    identity = np.eye(CHANNELS, dtype="float32")
    for variable in theirs.weights:
        variable.assign(identity.reshape(variable.shape))
    outputs = layer([queries, others])
    assert parity.relative(outputs, theirs(queries, values, keys)) < 1e-5
    assert layer.compute_output_shape([(2, 3, 12), (2, 7, 24)]) == (2, 3, 12)


def test_multiply_adds_are_those_of_both_products():
    layer = attention.SelfAttention(HEADS, name="attention")
    assert layer.multiply_adds((1, 7, 3 * CHANNELS)) == 2 * 7 * 7 * CHANNELS
    cross = attention.CrossAttention(HEADS, name="cross")
    shapes = [(1, 3, CHANNELS), (1, 7, 2 * CHANNELS)]
    assert cross.multiply_adds(shapes) == 2 * 3 * 7 * CHANNELS
