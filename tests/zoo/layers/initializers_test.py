"""Every kernel begins with values of its own."""

import itertools

import keras
import numpy as np

import zoo
from zoo.layers import truncated_normal


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


def test_truncated_normal_follows_its_distribution():
    import scipy.stats

    draw = truncated_normal.TruncatedNormal(mean=0.5, stddev=0.09, seed=3)((300, 400))
    values = keras.ops.convert_to_numpy(draw).astype(np.float64).ravel()
    assert np.abs(values - 0.5).max() <= 0.18 + 1e-6
    expected = scipy.stats.truncnorm(-2, 2, loc=0.5, scale=0.09)
    assert scipy.stats.kstest(values, expected.cdf).pvalue > 0.01
    assert scipy.stats.kstest(values, scipy.stats.norm(0.5, 0.09).cdf).pvalue < 1e-6
