"""Every kernel begins with values of its own."""

import itertools

import keras
import numpy as np

import zoo


def test_kernels_of_one_shape_begin_different():
    by_shape = {}
    for variable in zoo.build("efficientnet_b1", seed=0).backbone.weights:
        if variable.path.endswith("/kernel"):
            value = keras.ops.convert_to_numpy(variable)
            by_shape.setdefault(value.shape, []).append(value)
    pairs = [
        pair for same in by_shape.values() for pair in itertools.combinations(same, 2)
    ]
    assert len(pairs) > 50
    assert not any(np.array_equal(*pair) for pair in pairs)
