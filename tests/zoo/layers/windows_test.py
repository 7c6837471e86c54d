"""Tests the partition of maps into windows and grids, and attention inside of them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from zoo.layers import windows

SIZE, HEADS, CHANNELS = 3, 2, 4
PARTITIONS = {
    "windows": windows.Windows(SIZE, masks_padding=True),
    "shifted": windows.Windows(SIZE, 1, masks_padding=True),
    "grid": windows.Grid(SIZE, masks_padding=True),
}
MAPS = [(3, 3), (6, 9), (5, 7), (1, 1), (2, 8)]


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def place(kind, n, index):
    """Returns the window and the part that a row is in, and its row in the window."""
    count = -(-n // SIZE)
    if kind == "grid":
        return index % count, 0, index // count
    shift = int(kind == "shifted" and count > 1)
    shifted = (index - shift) % (count * SIZE)
    return shifted // SIZE, int(index < shift), shifted % SIZE


def expected(kind, qkv, biases):
    """Attends, position by position, to the others of the same window and part."""
    _, height, width, _ = qkv.shape
    positions = list(itertools.product(range(height), range(width)))
    places = {
        (r, c): (place(kind, height, r), place(kind, width, c)) for r, c in positions
    }
    queries, keys, values = np.split(qkv[0], 3, axis=-1)
    size = CHANNELS // HEADS
    output = np.zeros((1, height, width, CHANNELS))
    for query in positions:
        rows, columns = places[query]
        others = [
            key
            for key in positions
            if places[key][0][:2] == rows[:2] and places[key][1][:2] == columns[:2]
        ]
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            logits = []
            for key in others:
                down = rows[2] - places[key][0][2] + SIZE - 1
                right = columns[2] - places[key][1][2] + SIZE - 1
                bias = biases[down * (2 * SIZE - 1) + right, head]
                product = queries[query][part] @ keys[key][part]
                logits.append(product / np.sqrt(size) + bias)
            weights = np.exp(logits) / np.exp(logits).sum()
            output[0][query][part] = sum(
                w * values[key][part] for w, key in zip(weights, others, strict=True)
            )
    return output


@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("kind", PARTITIONS)
def test_attention_is_to_the_positions_of_the_same_window(kind, size, is_dynamic):
    """So nothing attends to the padding of maps that are not whole windows."""
    partition = PARTITIONS[kind]
    split = windows.Split(partition, name="split")
    attention = windows.WindowAttention(partition, HEADS, name="attention")
    join = windows.Join(partition, name="join")

    def attend(qkv, biases):
        return join([attention([split(qkv), biases, qkv]), qkv])

    if is_dynamic:
        images = tf.TensorSpec((None, None, None, 3 * CHANNELS), tf.float32)
        table = tf.TensorSpec(((2 * SIZE - 1) ** 2, HEADS), tf.float32)
        attend = tf.function(attend, input_signature=[images, table])
    qkv = 2 * random(1, *size, 3 * CHANNELS)
    biases = random((2 * SIZE - 1) ** 2, HEADS)
    np.testing.assert_allclose(
        attend(qkv, biases), expected(kind, qkv, biases), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("kind", PARTITIONS)
def test_joined_windows_are_the_map(kind, size):
    x = random(2, *size, 4)
    partition = PARTITIONS[kind]
    parts = windows.Split(partition, name="split")(x)
    assert parts.shape == windows.Split(partition, name="s").compute_output_shape(
        x.shape
    )
    joined = windows.Join(partition, name="join")([parts, x])
    np.testing.assert_array_equal(joined, x)


def test_a_grid_takes_every_nth_row_and_column():
    x = np.arange(24.0).reshape(1, 4, 6, 1)
    parts = keras.ops.convert_to_numpy(windows.Split(windows.Grid(2), name="split")(x))[
        0, ..., 0
    ]
    assert parts.tolist() == [
        [0, 3, 12, 15],
        [1, 4, 13, 16],
        [2, 5, 14, 17],
        [6, 9, 18, 21],
        [7, 10, 19, 22],
        [8, 11, 20, 23],
    ]


def test_padding_is_attended_to_unless_it_is_masked():
    qkv, biases = random(1, 2, 2, 3 * CHANNELS), random(25, HEADS)

    def attend(partition):
        x = windows.Split(partition, name="split")(qkv)
        layer = windows.WindowAttention(partition, HEADS, name="attention")
        return np.array(layer([x, biases, qkv]))[0, 0, 0]

    masked, attended = (
        attend(windows.Windows(3, masks_padding=True)),
        attend(windows.Windows(3)),
    )
    # The values of the padding, zeros, take a part of the weight.
    assert np.abs(masked - attended).max() > 0.01


def test_the_scale_of_the_products_can_be_set():
    qkv, biases = random(1, 3, 3, 3 * CHANNELS), random(25, HEADS)
    partition = windows.Windows(3)
    x = windows.Split(partition, name="split")(qkv)

    def attend(x, **settings):
        layer = windows.WindowAttention(partition, HEADS, **settings, name="attention")
        return np.array(layer([x, biases, qkv]))

    half = np.array(x)
    half[..., :CHANNELS] /= 2
    default = (CHANNELS // HEADS) ** -0.5
    np.testing.assert_allclose(attend(x, scale=default), attend(x), rtol=1e-6)
    np.testing.assert_allclose(
        attend(x, scale=default / 2), attend(half), rtol=1e-5, atol=1e-6
    )
