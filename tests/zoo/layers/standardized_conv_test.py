"""Tests weight standardisation against NumPy, and padding against keras.ops.conv."""

import keras
import numpy as np
import pytest

from tests.zoo import parity
from zoo.layers import standardized_conv


def layer_for(shape, **kwargs):
    layer = standardized_conv.StandardizedConv(
        6, epsilon=0.01, initializer="he_normal", name="some_conv", **kwargs
    )
    layer.build(shape)
    layer.kernel.assign(layer.kernel + 0.3)  # a mean to remove
    return layer


def standardized(kernel):
    mean = kernel.mean((0, 1, 2))
    return (kernel - mean) / np.sqrt(kernel.var((0, 1, 2)) + 0.01)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
@pytest.mark.parametrize(
    ("kernel_size", "strides"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)]
)
def test_is_a_convolution_with_a_standardised_kernel(kernel_size, strides, size):
    x = np.random.default_rng(1).normal(size=(2, *size, 4)).astype("float32")
    layer = layer_for(x.shape, kernel_size=kernel_size, strides=strides)
    kernel = standardized(keras.ops.convert_to_numpy(layer.kernel))
    margin = kernel_size // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    expected = keras.ops.conv(padded, kernel, strides, "valid")
    assert parity.relative(layer(x), expected) < 1e-5
    assert layer.compute_output_shape(x.shape) == tuple(expected.shape)
    assert layer.compute_output_shape((None, None, None, 4)) == (None, None, None, 6)


def test_a_changed_kernel_takes_effect_at_once():
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 4)).astype("float32")
    layer = layer_for(x.shape, kernel_size=3)
    before = layer(x)
    layer.kernel.assign(layer.kernel[::-1])
    assert parity.relative(layer(x), before) > 0.1
    assert [v.path for v in layer.weights] == ["some_conv/kernel"]
