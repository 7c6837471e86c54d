"""Tests group normalisation against Keras' layer."""

import keras
import numpy as np
import pytest

from tests.zoo import parity
from zoo.layers import group_norm


def test_is_the_normalisation_of_keras():
    x = np.random.default_rng(1).normal(3, 2, (2, 5, 7, 24)).astype("float32")
    ours = group_norm.GroupNorm(4, epsilon=0.1, name="ours")
    theirs = keras.layers.GroupNormalization(4, epsilon=0.1)
    for layer in (ours, theirs):
        layer.build(x.shape)
        parity.randomise(layer)
    assert parity.relative(ours(x), theirs(x)) < 1e-6
    # Half of the normalised values are negative, so ReLU makes a difference.
    activated = group_norm.GroupNormActivation(
        4, epsilon=0.1, activation="relu", name="activated"
    )
    activated.build(x.shape)
    parity.randomise(activated)
    assert parity.relative(activated(x), np.maximum(ours(x), 0)) < 1e-6
    assert [v.path for v in activated.weights] == [
        "activated/norm/gamma",
        "activated/norm/beta",
    ]


def test_channels_are_a_multiple_of_the_groups():
    layer = group_norm.GroupNorm(4, epsilon=1e-5, name="some_norm")
    with pytest.raises(ValueError, match="some_norm has 6 channels, .* its 4 groups"):
        layer.build((None, None, None, 6))


def test_bfloat16_is_normalised_in_float32():
    x = np.random.default_rng(1).normal(100, 1, (2, 9, 9, 8)).astype("float32")
    float32_layer = group_norm.GroupNorm(2, epsilon=1e-5, name="whole")
    bfloat16_layer = group_norm.GroupNorm(2, epsilon=1e-5, name="half")
    bfloat16_layer.dtype_policy = "mixed_bfloat16"
    y = bfloat16_layer(keras.ops.cast(x, "bfloat16"))
    assert y.dtype == "bfloat16"
    rounded = keras.ops.cast(keras.ops.cast(x, "bfloat16"), "float32")
    assert parity.relative(keras.ops.cast(y, "float32"), float32_layer(rounded)) < 1e-2
