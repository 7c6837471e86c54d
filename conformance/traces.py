"""Reads what a restored tf.function was traced for.

A trace is one concrete function of the restored `__call__`: for each argument it holds
either a TensorSpec, which takes any such Tensor, or the one Python value that it was
traced with.
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
    """One trace: its concrete function, and what it takes for each argument."""

    concrete: Any
    arguments: Mapping[str, Any]


def is_restored_function(value: Any) -> bool:
    """Whether `value` is a tf.function with at least one trace."""
    is_function = isinstance(value, tf.types.experimental.PolymorphicFunction)
    return is_function and bool(getattr(value, "concrete_functions", ()))


def parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    """The parameters of a restored function as its author declared them."""
    return tuple(inspect.signature(function).parameters.values())


def required(function: Any) -> tuple[inspect.Parameter, ...]:
    """Those parameters that have no default."""
    return tuple(
        parameter
        for parameter in parameters(function)
        if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
    )


def read(function: Any) -> tuple[Trace, ...]:
    """Every trace of a restored function, in the order in which it tries them."""
    names = [p.name for p in parameters(function) if p.kind in _POSITIONAL]
    traces = []
    for concrete in function.concrete_functions:
        positional, keywords = concrete.structured_input_signature
        further = (f"*args[{i}]" for i in itertools.count())
        named = dict(zip(itertools.chain(names, further), positional, strict=False))
        traces.append(Trace(concrete, {**named, **keywords}))
    return tuple(traces)


def is_tensor(argument: Any) -> bool:
    """Whether a trace's argument takes a Tensor, rather than one Python value."""
    return isinstance(argument, tf.TensorSpec)


def most_general(traces: Iterable[Trace]) -> tuple[Trace, ...]:
    """Without those traces whose every call another, more general one takes too.

    Calling a tf.function with a Python number where it is otherwise traced with a
    scalar Tensor leaves such a trace behind.
    """
    traces = tuple(traces)
    return tuple(
        trace
        for trace in traces
        if not any(_covers(o, trace) and not _covers(trace, o) for o in traces)
    )


def _covers(general: Trace, special: Trace) -> bool:
    return general.arguments.keys() == special.arguments.keys() and all(
        _takes(general.arguments[name], argument)
        for name, argument in special.arguments.items()
    )


def _takes(general: Any, special: Any) -> bool:
    if not is_tensor(general):
        return repr(general) == repr(special)
    if is_tensor(special):
        return general.dtype == special.dtype and _at_least_as_wide(
            general.shape, special.shape
        )
    if isinstance(special, bool):
        return general.dtype == tf.bool
    is_number = isinstance(special, int | float)
    return is_number and (general.dtype.is_floating or general.dtype.is_integer)


def _at_least_as_wide(general: tf.TensorShape, special: tf.TensorShape) -> bool:
    if general.rank is None:
        return True
    return general.rank == special.rank and all(
        mine is None or mine == other
        for mine, other in zip(general.as_list(), special.as_list(), strict=True)
    )
