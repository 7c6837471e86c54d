"""Truncated normal initialiser that samples by the inverse of the distribution."""

from __future__ import annotations

import math
import typing

import keras

# Share of a normal distribution within two standard deviations of the mean.
WITHIN_TWO = math.erf(math.sqrt(2.0))


class TruncatedNormal(keras.initializers.TruncatedNormal):
    """N(mean, stddev²) truncated at two `stddev`, in half the time that Keras takes.

    With Keras' initialiser, a fifth of the time to build a MobileNet was spent here.
    """

    def __call__(self, shape: typing.Any, dtype: typing.Any = None) -> typing.Any:
        uniform = keras.random.uniform(
            shape, -WITHIN_TWO, WITHIN_TWO, dtype=dtype, seed=self.seed
        )
        values = keras.ops.erfinv(uniform) * (math.sqrt(2.0) * self.stddev)
        return values + self.mean if self.mean else values
