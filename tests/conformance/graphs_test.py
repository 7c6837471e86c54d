"""Random ops on the output of a graph, and before it."""

import pytest
import tensorflow as tf

from conformance import graphs


def drop(x):
    return x * tf.cast(tf.random.uniform([tf.shape(x)[0], 1]) < 0.5, tf.float32)


def normalised(x):
    """Layer norm by elementwise ops and means, with an offset that is a variable."""
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    return centred * tf.math.rsqrt(variance + 1e-6) + OFFSET


OFFSET = tf.Variable(tf.ones([4]))
WEIGHTS = tf.Variable(tf.ones([4, 4]))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: normalised(x + drop(x @ WEIGHTS)), set()),  # drop path
        (lambda x: drop(x) + OFFSET, {"RandomUniform"}),
        (lambda x: normalised(drop(x)), {"RandomUniform"}),
        (lambda x: x + tf.random.normal(tf.shape(x)), {"RandomStandardNormal"}),
        (lambda x: drop(x + x @ WEIGHTS), {"RandomUniform"}),
    ],
    ids=["residual", "offset", "norm", "noise", "after"],
)
def test_sums_of_residual_connections_separate(function, found):
    spec = tf.TensorSpec([None, 4], tf.float32)
    inner = tf.function(function, input_signature=[spec])
    outer = tf.function(lambda x: tf.identity(inner(x)), input_signature=[spec])
    for traced in (inner, outer):
        assert graphs.random_ops_on_output(traced.get_concrete_function()) == found
