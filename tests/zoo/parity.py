"""Helpers to compare a model with an independent implementation."""

import contextlib

import keras
import numpy as np


def randomise(model, seed=0):
    """Gives all variables random values, so that a mistake in any of them shows.

    Batch-norm statistics are random too: with their initial values (0 and 1), a wrong
    epsilon or a swapped mean and variance would not show.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = variable.shape, variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.2, shape))
        else:
            depthwise = len(shape) == 4 and shape[-1] == 1
            fan_in = np.prod(shape[:-2] if depthwise else shape[:-1])
            variable.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))


def relative(ours, theirs):
    """Returns the largest difference, relative to the largest magnitude in `theirs`."""
    ours, theirs = map(keras.ops.convert_to_numpy, (ours, theirs))
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@contextlib.contextmanager
def double_precision():
    """Returns a context in which Keras builds models that take and compute float64."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_floatx(before[1])
