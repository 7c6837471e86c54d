"""Clause R09: what further arguments do to a call.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from conformance import clauses, model_under_test, numeric, traces, verdict

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_RATES = ("dropout_rate", "drop_path_rate")
_MEND = "Trace __call__ with one scalar tf.TensorSpec for it, or with Python values, "
_MEND += "declare the default, and document dtype, shape, default and effect."


def r09_arguments_do_what_they_say(model: model_under_test.ModelUnderTest) -> str:
    """Reads each argument's default and specs, then tries the documented effects.

    Known are the effects of batch_norm_momentum, dropout_rate, drop_path_rate and
    return_endpoints, where the documentation lists them.
    """
    found = {
        parameter.name: parameter
        for parameter in traces.parameters(model.call)[1:]
        if parameter.name != "training" and parameter.kind not in _VARIADIC
    }
    for name in set(model.arguments) - set(found):
        raise verdict.Violation(
            expected=f"the argument {name}, which is documented",
            observed=f"the arguments {', '.join(found) or 'training alone'}",
            mend=_MEND,
        )
    if not found:
        raise verdict.NotApplicable("__call__ takes no further argument")
    for name, parameter in found.items():
        specs = _specs(model, name)
        _check_default(model, name, parameter.default)
        if name in model.arguments:
            _check_documented(model.arguments[name], name, parameter.default, specs)
            effect = _EFFECTS.get(name)
            if effect and (name == "return_endpoints" or model.takes_training_true):
                with model.variables_kept():
                    effect(model)
    undocumented = set(found) - set(model.arguments)
    hint = f"; not documented: {', '.join(sorted(undocumented))}" * bool(undocumented)
    return f"{', '.join(found)}{hint}"


def _specs(
    model: model_under_test.ModelUnderTest, name: str
) -> set[tuple[str, tuple[int, ...]]]:
    """The dtypes and shapes that the traces take as a Tensor."""
    specs = [trace.arguments.get(name) for trace in model.general_traces]
    tensors = [spec for spec in specs if isinstance(spec, tf.TensorSpec)]
    found = {(spec.dtype.name, str(spec.shape)) for spec in tensors}
    if len(found) > 1 or not all(spec.shape.is_fully_defined() for spec in tensors):
        shown = ", ".join(" ".join(spec) for spec in sorted(found))
        raise verdict.Violation(
            expected=f"{name} to be of one dtype and static shape",
            observed=shown,
            mend=_MEND,
        )
    return {(spec.dtype.name, tuple(spec.shape)) for spec in tensors}


def _check_default(
    model: model_under_test.ModelUnderTest, name: str, default: Any
) -> None:
    images = model.images(1)
    with verdict.expecting(
        f"obj(x, {name}={default!r}) to work, as its default", mend=_MEND
    ):
        given = model.obj(images, **{name: default})
    difference = numeric.relative_difference(given, model.obj(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"obj(x) to equal obj(x, {name}={default!r})",
            observed=f"a relative difference of {difference:.1e}",
            mend=_MEND,
        )


def _check_documented(
    documented: Mapping[str, Any],
    name: str,
    default: Any,
    specs: set[tuple[str, tuple[int, ...]]],
) -> None:
    wanted = documented.get("dtype"), tuple(documented.get("shape") or ())
    if specs and "dtype" in documented and wanted not in specs:
        ((dtype, shape),) = specs
        raise verdict.Violation(
            expected=f"{name} to be {wanted[0]} {list(wanted[1])}, as documented",
            observed=f"{dtype} {list(shape)}",
            mend=_MEND,
        )
    if "default" in documented and documented["default"] != default:
        raise verdict.Violation(
            expected=f"{name}={documented['default']!r} as documented",
            observed=f"{name}={default!r}",
            mend=_MEND,
        )


def _check_momentum(model: model_under_test.ModelUnderTest) -> None:
    """1 must leave the statistics as they are; 0 must replace them, whatever they were.

    Their own momentum is nothing that drop path should play into.
    """
    trainable = {id(v) for v in model.trainable_variables}
    statistics = [v for v in model.all_variables if id(v) not in trainable]
    before = numeric.values(statistics)
    _train(model, batch_norm_momentum=1.0)
    if numeric.changed(statistics, before, numeric.values(statistics)):
        raise verdict.Violation(
            expected="batch_norm_momentum=1 to leave the statistics as they are",
            observed="they change",
            mend="Compute momentum · old + (1 − momentum) · new.",
        )
    replaced = []
    for shift in (0.0, 1.0):
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value + value.dtype.type(shift))
        _train(model, batch_norm_momentum=0.0)
        replaced.append(numeric.values(statistics))
    difference = numeric.relative_difference(*replaced)
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="batch_norm_momentum=0 to replace the statistics by the batch's",
            observed=f"what they were before still shows, by {difference:.1e}",
            mend="Compute momentum · old + (1 − momentum) · new.",
        )


def _check_rate(name: str) -> Callable[[model_under_test.ModelUnderTest], None]:
    """A rate of 0 must leave nothing to chance, and one of a half something.

    Four images share their fate in two calls by chance once in 16 times; in all of six
    calls, once in a million.
    """

    def check(model: model_under_test.ModelUnderTest) -> None:
        for rate, calls in ((0.0, 2), (0.5, 6)):
            first, *others = (_train(model, **{name: rate}) for _ in range(calls))
            differences = [numeric.relative_difference(o, first) for o in others]
            if (max(differences) > clauses.TOLERANCE) != bool(rate):
                word = "random" if rate else "deterministic"
                raise verdict.Violation(
                    expected=f"training=True with {name}={rate} to be {word}",
                    observed=f"a relative difference of {max(differences):.1e} from "
                    "call to call",
                    mend="Let the argument be the rate that the layers draw with.",
                )

    return check


def _check_endpoints(model: model_under_test.ModelUnderTest) -> None:
    images = model.images(1)
    endpoints = model.obj(images, return_endpoints=True)
    if not isinstance(endpoints, Mapping) or "default" not in endpoints:
        raise verdict.Violation(
            expected="return_endpoints=True to give a dict with the key default",
            observed=f"a {type(endpoints).__name__}",
            mend="Give the output under default, beside the endpoints by name.",
        )
    difference = numeric.relative_difference(endpoints["default"], model.obj(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="the endpoint default to be the output",
            observed=f"a relative difference of {difference:.1e}",
            mend="Give the output under default, beside the endpoints by name.",
        )


def _train(model: model_under_test.ModelUnderTest, **given: float) -> Any:
    """A call in training mode, with nothing random but what is asked for."""
    takes = {parameter.name for parameter in traces.parameters(model.call)}
    calm = {rate: 0.0 for rate in _RATES if rate in takes}
    keywords = {name: tf.constant(v) for name, v in {**calm, **given}.items()}
    return model.obj(model.images(4), training=True, **keywords)


_EFFECTS: dict[str, Callable[[model_under_test.ModelUnderTest], None]] = {
    "batch_norm_momentum": _check_momentum,
    "return_endpoints": _check_endpoints,
    **{rate: _check_rate(rate) for rate in _RATES},
}
