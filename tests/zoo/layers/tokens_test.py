"""Tests the conversions between feature maps and tokens."""

import keras
import numpy as np
import pytest

from zoo.layers import tokens

RANDOM = np.random.default_rng(0)


def test_tokens_of_a_map_and_back():
    patches = RANDOM.normal(size=(2, 3, 4, 5)).astype("float32")
    x = tokens.FromMap()(patches)
    np.testing.assert_array_equal(x, patches.reshape(2, 12, 5))
    to_map = tokens.ToMap(prefix=2, name="map")
    longer = np.concatenate([np.ones((2, 2, 5), "float32"), x], axis=1)
    np.testing.assert_array_equal(to_map([longer, patches]), patches)
    assert to_map.compute_output_shape([(2, 14, 5), (2, 3, 4, 9)]) == (2, 3, 4, 5)
    shape = tokens.FromMap().compute_output_shape((None, None, 4, 5))
    assert shape == (None, None, 5)


@pytest.mark.parametrize("has_position", [False, True])
def test_a_prefix_is_the_same_for_each_image(has_position):
    x = RANDOM.normal(size=(3, 4, 5)).astype("float32")
    layer = tokens.Prefix(2, has_position=has_position, name="registers")
    outputs = keras.ops.convert_to_numpy(layer(x))
    paths = [variable.path for variable in layer.weights]
    assert paths == ["registers/embedding", "registers/position"][: 1 + has_position]
    expected = sum(keras.ops.convert_to_numpy(v) for v in layer.weights)
    for image, original in zip(outputs, x, strict=True):
        np.testing.assert_allclose(image[:2], expected, rtol=1e-6)
        np.testing.assert_array_equal(image[2:], original)
    assert layer.compute_output_shape((None, 4, 5)) == (None, 6, 5)
    assert layer.compute_output_shape((None, None, 5)) == (None, None, 5)


def test_queries_are_the_same_for_each_image():
    layer = tokens.Queries(2, name="pool_query")
    outputs = keras.ops.convert_to_numpy(layer(np.zeros((3, 7, 5), np.float32)))
    assert outputs.shape == layer.compute_output_shape((3, 7, 5)) == (3, 2, 5)
    for image in outputs:
        np.testing.assert_array_equal(image, layer.embedding)


def test_the_first_token():
    x = RANDOM.normal(size=(3, 4, 5)).astype("float32")
    np.testing.assert_array_equal(tokens.First()(x), x[:, 0])


def test_one_token():
    x = RANDOM.normal(size=(3, 4, 5)).astype("float32")
    layer = tokens.Token(1, name="distillation")
    np.testing.assert_array_equal(layer(x), x[:, 1])
    assert layer.compute_output_shape((None, 4, 5)) == (None, 5)
