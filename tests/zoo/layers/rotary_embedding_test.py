"""Tests rotary position embeddings against products of complex numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.zoo import parity
from zoo.layers import rotary_embedding

HEADS, SIZE, PREFIX = 3, 8, 2
CHANNELS = HEADS * SIZE
GRIDS = [(3, 3), (2, 5), (1, 4)]


def rotation_layer():
    return rotary_embedding.AxialRotation(SIZE, prefix=PREFIX, name="rotation")


def turns_of(grid):
    """Returns the complex number that each pair of channels is multiplied by."""
    quarter = SIZE // 4
    turns = [np.ones(SIZE // 2, complex)] * PREFIX
    for row in range(grid[0]):
        for column in range(grid[1]):
            place = (row + 0.5) / grid[0], (column + 0.5) / grid[1]
            angles = [
                2 * np.pi * (2 * part - 1) / 100 ** (index / quarter)
                for part in place
                for index in range(quarter)
            ]
            turns.append(np.exp(1j * np.array(angles)))
    return np.stack(turns)


def rotated(qkv, grid):
    """Returns queries, keys and values, of which the first two are rotated."""
    heads = qkv.reshape(*qkv.shape[:2], 3, HEADS, SIZE).astype("float64")
    first, second = np.split(heads[:, :, :2], 2, axis=-1)
    products = (first + 1j * second) * turns_of(grid)[:, None, None]
    heads[:, :, :2] = np.concatenate([products.real, products.imag], axis=-1)
    return heads.reshape(qkv.shape)


def inputs_of(grid):
    random = np.random.default_rng(0)
    tokens = PREFIX + grid[0] * grid[1]
    qkv = random.normal(size=(2, tokens, 3 * CHANNELS)).astype("float32")
    return qkv, np.zeros((2, *grid, 5), np.float32)


@pytest.mark.parametrize("grid", GRIDS)
def test_queries_and_keys_of_patches_turn(grid):
    qkv, patches = inputs_of(grid)
    rotation, rotate = rotation_layer(), rotary_embedding.Rotate(HEADS, name="rotate")

    @tf.function(  # with heights and widths that are known at the call alone
        input_signature=[
            tf.TensorSpec([None, None, 3 * CHANNELS]),
            tf.TensorSpec([None, None, None, 5]),
        ]
    )
    def call(qkv, patches):
        return rotate([qkv, rotation(patches)])

    expected = rotated(qkv, grid)
    for outputs in (rotate([qkv, rotation(patches)]), call(qkv, patches)):
        outputs = keras.ops.convert_to_numpy(outputs)
        assert parity.relative(outputs, expected) < 1e-6
        np.testing.assert_array_equal(outputs[:, :PREFIX], qkv[:, :PREFIX])
        values = outputs[..., 2 * CHANNELS :]
        np.testing.assert_array_equal(values, qkv[..., 2 * CHANNELS :])


def test_shapes():
    shape = (2, PREFIX + 6, SIZE)
    layer = rotation_layer()
    assert layer(np.zeros((4, 2, 3, 5), np.float32)).shape == shape
    assert layer.compute_output_shape((None, 2, 3, 5)) == shape
    assert layer.compute_output_shape((None, None, 3, 5)) == (2, None, SIZE)
    rotate = rotary_embedding.Rotate(HEADS, name="rotate")
    assert rotate.compute_output_shape([(4, 8, 72), shape]) == (4, 8, 72)


def test_half_precision_turns_in_full():
    qkv, patches = inputs_of((2, 5))
    half = keras.DTypePolicy("mixed_bfloat16")
    rotation, rotate = rotation_layer(), rotary_embedding.Rotate(HEADS, name="rotate")
    rotation.dtype_policy = rotate.dtype_policy = half
    turns = rotation(patches)
    assert turns.dtype == "float32"
    np.testing.assert_array_equal(turns, rotation_layer()(patches))
    rounded = keras.ops.cast(qkv, "bfloat16")
    outputs = rotate([rounded, turns])
    assert outputs.dtype == "bfloat16"
    expected = rotate([keras.ops.cast(rounded, "float32"), turns])
    np.testing.assert_array_equal(outputs, keras.ops.cast(expected, "bfloat16"))
