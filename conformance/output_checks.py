"""What a call gives back, judged alike for feature vectors and for logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from conformance import model_under_test, verdict


def check_matrix(model: model_under_test.ModelUnderTest, *, columns: str) -> int:
    """Calls the model and checks for one float32 Tensor [batch, columns].

    Args:
      model: the model.
      columns: what the second dimension counts, for messages.

    Returns:
      The number of columns.
    """
    mend = f"Give back one float32 Tensor [batch, {columns}] and nothing beside it; "
    mend += "further outputs are for a flag of their own."
    output = model.infer(model.images(2))
    if not tf.is_tensor(output):
        observed = f"a {type(output).__name__}"
        if isinstance(output, Mapping):
            observed += f" with the keys {', '.join(sorted(output))}"
        raise verdict.Violation(
            expected=f"one Tensor [batch, {columns}]", observed=observed, mend=mend
        )
    if output.dtype != tf.float32 or output.shape.rank != 2 or output.shape[0] != 2:
        raise verdict.Violation(
            expected=f"float32 [2, {columns}] for a batch of 2",
            observed=f"{output.dtype.name} {output.shape}",
            mend=mend,
        )
    return output.shape[1]


def check_static_columns(
    model: model_under_test.ModelUnderTest, *, columns: str
) -> int:
    """Reads the number of columns of every trace.

    Judged are traces that give one Tensor, or a dict with one under `default` or with
    no other. What is the same in each of them is the same for every input size.
    """
    counts: set[Any] = set()
    for trace in model.all_traces:
        spec = trace.concrete.structured_outputs
        if isinstance(spec, Mapping):
            (only, *others) = spec.values()
            spec = spec.get("default") if others else only
        if hasattr(spec, "shape"):
            counts.add(spec.shape[-1] if spec.shape.rank else None)
    if len(counts) != 1 or None in counts:
        found = ", ".join("unknown" if n is None else str(n) for n in counts)
        raise verdict.Violation(
            expected=f"one {columns}, known statically in every trace",
            observed=found or "no trace with such an output",
            mend=f"Pool over height and width, so that {columns} does not depend on "
            "them, or fix the shape with tf.ensure_shape.",
        )
    return counts.pop()
