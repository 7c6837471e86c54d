"""Random draws that depend on a seed and nothing else, for layers that know of none.

keras-cv's layers draw from TensorFlow's state, which differs from run to run, with the
number of threads, and can't be put back to where it was. While they are traced within
`drawn_from`, each of their draws is a function of a seed tensor instead.
"""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator
from unittest import mock

import tensorflow as tf


@contextlib.contextmanager
def drawn_from(seed: tf.Tensor) -> Iterator[None]:
    """Within it, what `tf.random` draws comes from `seed` [2] int32.

    Layers with generators of their own have to be made within it, too.

    Raises:
      ValueError: at the end, where a draw went another way.
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
    if others := _stateful()[before:]:
        raise ValueError(f"{', '.join(others)} would draw other numbers in each run.")


def _stateful() -> list[str]:
    """The kinds of operations so far in the graph that is being made, that draw."""
    operations = [*tf.compat.v1.get_default_graph().get_operations()]
    return [o.type for o in operations if o._is_stateful and "andom" in o.type]


class _Draws:
    """The functions of `tf.random` that keras-cv calls, each call with its own seed."""

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
        """As `tf.random.uniform`."""
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
        """As `tf.random.normal`."""
        return tf.random.stateless_normal(shape, self._next(), mean, stddev, dtype)

    def gamma(
        self,
        shape: typing.Any,
        alpha: typing.Any,
        dtype: typing.Any = tf.float32,
        **_: typing.Any,
    ) -> tf.Tensor:
        """As `tf.random.gamma`, of scale 1."""
        return tf.random.stateless_gamma(shape, self._next(), alpha, dtype=dtype)

    def shuffle(self, value: tf.Tensor, **_: typing.Any) -> tf.Tensor:
        """As `tf.random.shuffle`."""
        return tf.random.experimental.stateless_shuffle(value, self._next())
