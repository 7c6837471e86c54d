"""Reads the traces of a restored tf.function.

A trace is a concrete function of the restored `__call__`. For each argument it has
either a TensorSpec, which accepts any matching Tensor, or the one Python value that it
was traced with.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A concrete function with its spec or Python value for each argument."""

    concrete: Any
    arguments: Mapping[str, Any]


def is_restored_function(value: Any) -> bool:
    """Returns whether `value` is a tf.function with at least one trace."""
    is_function = isinstance(value, tf.types.experimental.PolymorphicFunction)
    return is_function and bool(getattr(value, "concrete_functions", ()))


def parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    """Returns the parameters of a restored function in its original signature."""
    return tuple(inspect.signature(function).parameters.values())


def required(function: Any) -> tuple[inspect.Parameter, ...]:
    """Returns the parameters without a default."""
    return tuple(
        parameter
        for parameter in parameters(function)
        if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
    )


def read(function: Any) -> tuple[Trace, ...]:
    """Returns all traces of a restored function, in the order of its dispatch."""
    names = [p.name for p in parameters(function) if p.kind in _POSITIONAL]
    traces = []
    for concrete in function.concrete_functions:
        positional, keywords = concrete.structured_input_signature
        variadic = (f"*args[{i}]" for i in itertools.count())
        by_name = dict(zip(itertools.chain(names, variadic), positional, strict=False))
        traces.append(Trace(concrete, {**by_name, **keywords}))
    return tuple(traces)


def is_tensor(argument: Any) -> bool:
    """Returns whether an argument of a trace takes a Tensor, not one Python value."""
    return isinstance(argument, tf.TensorSpec)


def most_general(traces: Iterable[Trace]) -> tuple[Trace, ...]:
    """Drops the traces that another, more general trace covers.

    For example, a tf.function that takes a scalar Tensor gets an extra trace if it is
    called with a Python number.
    """
    traces = tuple(traces)
    return tuple(
        trace
        for trace in traces
        if not any(
            _covers(other, trace) and not _covers(trace, other) for other in traces
        )
    )


def _covers(general: Trace, special: Trace) -> bool:
    return general.arguments.keys() == special.arguments.keys() and all(
        _argument_covers(general.arguments[name], argument)
        for name, argument in special.arguments.items()
    )


def _argument_covers(general: Any, special: Any) -> bool:
    if not is_tensor(general):
        return repr(general) == repr(special)
    if is_tensor(special):
        return general.dtype == special.dtype and _shape_covers(
            general.shape, special.shape
        )
    if isinstance(special, bool):
        return general.dtype == tf.bool
    is_number = isinstance(special, int | float)
    return is_number and (general.dtype.is_floating or general.dtype.is_integer)


def _shape_covers(general: tf.TensorShape, special: tf.TensorShape) -> bool:
    if general.rank is None:
        return True
    return general.rank == special.rank and all(
        side is None or side == special_side
        for side, special_side in zip(general.as_list(), special.as_list(), strict=True)
    )
