"""Compares outputs and variables as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def leaves(outputs: Any) -> list[np.ndarray]:
    """Returns the tensors of a nested structure as arrays, in `tf.nest` order."""
    return [np.asarray(tensor) for tensor in tf.nest.flatten(outputs)]


def relative_difference(left: Any, right: Any) -> float:
    """Returns the largest difference between outputs, relative to the largest value.

    Returns:
      0.0 for equal outputs (NaN equals NaN); infinity if structures or shapes differ,
      or if a value is finite in only one of them.
    """
    lefts, rights = leaves(left), leaves(right)
    if [a.shape for a in lefts] != [b.shape for b in rights]:
        return float("inf")
    return max((_relative(a, b) for a, b in zip(lefts, rights, strict=True)), default=0)


def _relative(left: np.ndarray, right: np.ndarray) -> float:
    if np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
        return 0.0
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(finite, np.isfinite(right)):
        return float("inf")
    left, right = left[finite], right[finite]
    largest = max(np.abs(left).max(initial=0), np.abs(right).max(initial=0))
    return float(np.abs(left - right).max(initial=0) / (largest or 1.0))


def is_finite(outputs: Any) -> bool:
    """Returns whether all floating-point values of the outputs are finite."""
    return all(
        bool(np.isfinite(value).all())
        for value in leaves(outputs)
        if value.dtype.kind == "f"
    )


def values(variables: Sequence[Any]) -> list[tf.Tensor]:
    """Returns the variables' values of now; takes no memory until they change.

    TensorFlow copies a variable's buffer before it changes it if another tensor shares
    the buffer.
    """
    return [variable.read_value() for variable in variables]


def changed(
    variables: Sequence[Any], before: Sequence[tf.Tensor], after: Sequence[tf.Tensor]
) -> list[Any]:
    """Returns the variables whose values, from `values`, differ in any bit."""
    return [
        variable
        for variable, old, new in zip(variables, before, after, strict=True)
        if not _is_same(np.asarray(old), np.asarray(new))
    ]


def _is_same(old: np.ndarray, new: np.ndarray) -> bool:
    """Compares two arrays bit by bit, unless they share their memory."""
    if (old.ctypes.data, old.shape) == (new.ctypes.data, new.shape):
        return True
    if old.dtype.kind == "O":  # strings
        return np.array_equal(old, new)
    return old.tobytes() == new.tobytes()


def names(variables: Sequence[Any], *, at_most: int = 3) -> str:
    """Returns the first names of variables and a count of the rest, for a message."""
    shown = ", ".join(variable.name for variable in variables[:at_most])
    rest = len(variables) - at_most
    return f"{shown} and {rest} more" if rest > 0 else shown
