"""Multiply-adds are counted from layers, and say which layer can't be counted."""

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
