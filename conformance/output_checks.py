"""Checks of a model's output that feature vectors and logits share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from conformance import model_under_test, verdict


def check_matrix(model: model_under_test.ModelUnderTest, *, dimension: str) -> int:
    """Calls the model and checks that it returns one float32 Tensor [batch, columns].

    Args:
      model: the model.
      dimension: name of the second dimension in messages, for example num_classes.

    Returns:
      The number of columns.

    Raises:
      Violation: the output has another type, dtype or shape.
    """
    fix = f"Return one float32 Tensor [batch, {dimension}] and nothing else; return "
    fix += "other outputs only if an additional argument asks for them."
    output = model.infer(model.images(2))
    if not tf.is_tensor(output):
        observed = f"a {type(output).__name__}"
        if isinstance(output, Mapping):
            observed += f" with the keys {', '.join(sorted(output))}"
        raise verdict.Violation(
            expected=f"one Tensor [batch, {dimension}]", observed=observed, fix=fix
        )
    if output.dtype != tf.float32 or output.shape.rank != 2 or output.shape[0] != 2:
        raise verdict.Violation(
            expected=f"float32 [2, {dimension}] for a batch of 2",
            observed=f"{output.dtype.name} {output.shape}",
            fix=fix,
        )
    return output.shape[1]


def check_static_columns(
    model: model_under_test.ModelUnderTest, *, dimension: str
) -> int:
    """Checks that all traces have the same static number of columns.

    A static number is the same for every input size. The check reads the traces whose
    output is one Tensor, a dict with one entry, or a dict with the key `default`.

    Args:
      model: the model.
      dimension: name of the second dimension in messages, for example num_classes.

    Returns:
      The number of columns.

    Raises:
      Violation: the number differs between traces or is not static.
    """
    counts: set[Any] = set()
    for trace in model.all_traces:
        spec = trace.concrete.structured_outputs
        if isinstance(spec, Mapping):
            (first, *others) = spec.values()
            spec = spec.get("default") if others else first
        if hasattr(spec, "shape"):
            counts.add(spec.shape[-1] if spec.shape.rank else None)
    if len(counts) != 1 or None in counts:
        numbers = ", ".join("unknown" if n is None else str(n) for n in counts)
        raise verdict.Violation(
            expected=f"the same static {dimension} in every trace",
            observed=numbers or "no trace that returns a single Tensor",
            fix=f"Pool over height and width so that {dimension} does not depend on "
            "them, or set the shape with tf.ensure_shape.",
        )
    return counts.pop()
