"""Tests what counts as multiply-adds of an image."""

import numpy as np
import tensorflow as tf

from conformance import graph_counts, model_under_test


class Network(tf.Module):
    """A convolution of images, with a kernel and an offset that are computed."""

    def __init__(self):
        super().__init__()
        self.matrix = tf.Variable(np.ones((3, 3), np.float32))
        self.positions = tf.Variable(np.ones((2, 3), np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    def __call__(self, images):
        kernel = tf.matmul(self.matrix, self.matrix)
        count = tf.cast(tf.shape(images)[1] * tf.shape(images)[2], tf.float32)
        offset = tf.matmul(tf.fill([1, 2], count), self.positions)
        x = tf.nn.conv2d(images, kernel[None, None], 1, "SAME") + offset
        x = tf.reduce_mean(x, [1, 2])
        return tf.matmul(x, self.matrix)


def test_products_that_do_not_depend_on_pixels_do_not_count(tmp_path):
    """Not the kernel, which is the same for all images, nor what only sizes need."""
    tf.saved_model.save(Network(), str(tmp_path))
    model = model_under_test.ModelUnderTest(
        tmp_path, kind="auto", full=False, pair=None, documented={}
    )
    assert graph_counts.multiply_adds(model, side=5) == 5 * 5 * 3 * 3 + 3 * 3
