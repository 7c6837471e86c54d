"""Makes the random draws of keras-cv's layers depend on a seed alone.

These layers draw from TensorFlow's global random state, which differs from run to run
and with the number of threads, and can't be restored. If they are traced inside the
context `drawn_from`, each of their draws is a function of a seed tensor instead.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator
from unittest import mock

import tensorflow as tf


@contextlib.contextmanager
def drawn_from(seed: tf.Tensor) -> Iterator[None]:
    """Context in which all draws of `tf.random` are derived from `seed` [2] int32.

    Layers that create their own random generators must be created inside it, too.

    Raises:
      ValueError: on exit, if an op drew random numbers without the seed.
    """
    draws = _Draws(seed)
    before = len(_stateful())
    with mock.patch.multiple(
        tf.random,
        uniform=draws.uniform,
        normal=draws.normal,
        gamma=draws.gamma,
        shuffle=draws.shuffle,
        get_global_generator=lambda: draws,
    ):
        yield
    if ops := _stateful()[before:]:
        raise ValueError(f"{', '.join(ops)} would draw different numbers in each run.")


def _stateful() -> list[str]:
    """Returns the types of the stateful random ops in the current graph."""
    ops = [*tf.compat.v1.get_default_graph().get_operations()]
    return [op.type for op in ops if op._is_stateful and "andom" in op.type]


class _Draws:
    """Stateless versions of the `tf.random` functions that keras-cv calls."""

    def __init__(self, seed: tf.Tensor) -> None:
        self._seed = seed
        self._count = 0

    def _next(self) -> tf.Tensor:
        self._count += 1
        return tf.random.fold_in(self._seed, self._count)

    def uniform(
        self,
        shape: typing.Any,
        minval: typing.Any = 0,
        maxval: typing.Any = None,
        dtype: typing.Any = tf.float32,
        **_: typing.Any,
    ) -> tf.Tensor:
        """Same as `tf.random.uniform`, but stateless."""
        maxval = 1 if maxval is None else maxval
        return tf.random.stateless_uniform(shape, self._next(), minval, maxval, dtype)

    def normal(
        self,
        shape: typing.Any,
        mean: typing.Any = 0.0,
        stddev: typing.Any = 1.0,
        dtype: typing.Any = tf.float32,
        **_: typing.Any,
    ) -> tf.Tensor:
        """Same as `tf.random.normal`, but stateless."""
        return tf.random.stateless_normal(shape, self._next(), mean, stddev, dtype)

    def gamma(
        self,
        shape: typing.Any,
        alpha: typing.Any,
        dtype: typing.Any = tf.float32,
        **_: typing.Any,
    ) -> tf.Tensor:
        """Same as `tf.random.gamma` with beta 1, but stateless."""
        return tf.random.stateless_gamma(shape, self._next(), alpha, dtype=dtype)

    def shuffle(self, value: tf.Tensor, **_: typing.Any) -> tf.Tensor:
        """Same as `tf.random.shuffle`, but stateless."""
        return tf.random.experimental.stateless_shuffle(value, self._next())
