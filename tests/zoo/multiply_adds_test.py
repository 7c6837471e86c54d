"""Tests the count of multiply-adds, and errors that name an uncountable layer."""

import keras
import pytest

from zoo import multiply_adds


class Halves(keras.layers.Layer):
    def call(self, inputs):
        return inputs[..., :1], inputs[..., 1:]

    def compute_output_shape(self, shape):
        return (*shape[:-1], 1), (*shape[:-1], shape[-1] - 1)


class Mute(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def conv(filters, **arguments):
    return keras.layers.Conv2D(filters, 3, padding="same", **arguments)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (conv(16), 8 * 8 * 9 * 12 * 16),
        (conv(16, strides=2), 4 * 4 * 9 * 12 * 16),
        # In 4 groups, each filter reads a quarter of the channels.
        (conv(16, groups=4), 8 * 8 * 9 * (12 // 4) * 16),
        (keras.layers.DepthwiseConv2D(3, padding="same"), 8 * 8 * 9 * 12),
        (keras.layers.Dense(5), 8 * 8 * 12 * 5),
        (keras.layers.BatchNormalization(), 0),
    ],
    ids=["conv", "strides", "groups", "depthwise", "dense", "norm"],
)
def test_each_kernel_value_counts_once_at_each_position(layer, expected):
    images = keras.Input((8, 8, 12))
    model = keras.Model(images, layer(images))
    assert multiply_adds.multiply_adds(model, input_shape=(8, 8, 12)) == expected


def test_a_matrix_that_is_no_kernel_is_not_left_out():
    images = keras.Input((4, 6))
    layer = keras.layers.Embedding(5, 7, name="table")
    model = keras.Model(images, layer(images))
    with pytest.raises(
        ValueError, match=r"table must define multiply_adds.*embeddings"
    ):
        multiply_adds.multiply_adds(model, input_shape=(4, 6))


def test_a_layer_that_can_not_be_counted_is_named():
    images = keras.Input((8, 8, 3))
    halves = keras.Model(images, Halves(name="halves")(images)[0])
    mute = keras.Model(images, Mute(name="mute")(images))
    bare = keras.Model(images, keras.layers.ReLU(name="after")(images[:, ::2]))
    with pytest.raises(ValueError, match=r"mute must define compute_output_shape"):
        multiply_adds.multiply_adds(mute, input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match="after has an input that is not the output"):
        multiply_adds.multiply_adds(bare, input_shape=(8, 8, 3))
    with pytest.raises(ValueError, match="halves must have one output"):
        multiply_adds.multiply_adds(halves, input_shape=(8, 8, 3))
