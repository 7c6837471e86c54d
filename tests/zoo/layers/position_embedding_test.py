"""Tests the interpolation of position embeddings against PyTorch's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import oracles, parity
from zoo.layers import position_embedding

GRID = (5, 7)
SIZES = [(5, 7), (7, 5), (9, 16), (3, 2), (1, 1), (23, 4)]


def layer_for(**settings):
    layer = position_embedding.PositionEmbedding(
        GRID,
        interpolation=position_embedding.Interpolation(**settings),
        name="positions",
    )
    layer.build((None, None, None, 3))
    values = np.random.default_rng(0).normal(size=(35, 3)).astype("float32")
    layer.embedding.assign(values)
    return layer, values.reshape(*GRID, 3)


def torch_interpolated(values, size, *, antialias, offset):
    """Interpolates as DINO's code does: by scales, if there is an offset."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    how = {"size": size}
    if offset:
        scales = [(n + offset) / count for n, count in zip(size, GRID, strict=True)]
        how = {"scale_factor": tuple(scales)}
    result = torch.nn.functional.interpolate(
        torch.tensor(values.transpose(2, 0, 1)[None].copy()),
        mode="bicubic",
        antialias=antialias,
        align_corners=False,
        **how,
    )
    return result[0].numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "settings",
    [
        {"antialias": True, "offset": 0.0},
        {"antialias": False, "offset": 0.0},
        {"antialias": False, "offset": 0.1},
    ],
    ids=["antialiased", "plain", "offset"],
)
def test_interpolates_as_pytorch_does(settings, size):
    layer, values = layer_for(**settings)
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    expected = images + (
        values if size == GRID else torch_interpolated(values, size, **settings)
    )
    assert parity.relative(layer(images), expected) < 1e-5
    # With heights and widths that are known at the call alone.
    call = tf.function(
        layer, input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)]
    )
    assert parity.relative(call(images), expected) < 1e-5


def test_at_the_own_size_nothing_is_interpolated():
    for settings in ({"antialias": True}, {"offset": 0.1}):
        layer, values = layer_for(**settings)
        images = np.zeros((1, *GRID, 3), np.float32)
        np.testing.assert_array_equal(layer(images)[0], values)


def test_gradients_reach_the_embedding():
    layer, _ = layer_for(offset=0.1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.zeros((1, 3, 9, 3), np.float32)) ** 2)
    assert np.abs(tape.gradient(loss, layer.embedding.value)).max() > 0


def test_half_precision_interpolates_in_full():
    whole, _ = layer_for()
    layer = position_embedding.PositionEmbedding(
        GRID, interpolation=whole.interpolation, name="positions"
    )
    layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    nothing = np.zeros((1, 4, 4, 3), np.float32)
    layer.build(nothing.shape)
    layer.embedding.assign(whole.embedding)
    outputs = layer(nothing)
    assert outputs.dtype == "bfloat16"
    expected = keras.ops.cast(whole(nothing), "bfloat16")
    np.testing.assert_array_equal(outputs, expected)
