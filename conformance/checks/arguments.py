"""Clause R09: the keyword arguments of `__call__` other than `training`.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from conformance import clauses, model_under_test, numeric, traces, verdict

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_RATES = ("dropout_rate", "drop_path_rate")
_SMALL_SCALE = 0.01  # below which a scale has not been trained, only set
_FIX = "Trace __call__ with one scalar tf.TensorSpec for the argument, or with Python "
_FIX += "values; declare its default; document its dtype, shape, default and effect."


def r09_arguments_work_as_documented(model: model_under_test.ModelUnderTest) -> str:
    """Checks each argument's default, dtype and shape, then its documented effect.

    The check tests the effects of batch_norm_momentum, dropout_rate, drop_path_rate and
    return_endpoints, if the documentation lists these arguments.
    """
    parameters = {
        parameter.name: parameter
        for parameter in traces.parameters(model.call)[1:]
        if parameter.name != "training" and parameter.kind not in _VARIADIC
    }
    for name in set(model.arguments) - set(parameters):
        raise verdict.Violation(
            expected=f"the argument {name}, which is documented",
            observed=(
                f"the arguments {', '.join(parameters)}"
                if parameters
                else "no argument other than training"
            ),
            fix=_FIX,
        )
    if not parameters:
        raise verdict.NotApplicable(
            "__call__ has no keyword argument other than training"
        )
    for name, parameter in parameters.items():
        specs = _tensor_specs(model, name)
        _check_default(model, name, parameter.default)
        if name in model.arguments:
            _check_documented(model.arguments[name], name, parameter.default, specs)
            effect = _EFFECTS.get(name)
            if effect and (name == "return_endpoints" or model.has_training_trace):
                with model.variables_kept():
                    effect(model)
    undocumented = set(parameters) - set(model.arguments)
    hint = f"; not documented: {', '.join(sorted(undocumented))}" * bool(undocumented)
    return f"{', '.join(parameters)}{hint}"


def _tensor_specs(
    model: model_under_test.ModelUnderTest, name: str
) -> set[tuple[str, tuple[int, ...]]]:
    """Returns the (dtype, shape) with which traces take a Tensor for an argument.

    Returns:
      A set with one element, or an empty set if no trace takes a Tensor.

    Raises:
      verdict.Violation: the traces differ in it, or leave a dimension open.
    """
    specs = [trace.arguments.get(name) for trace in model.general_traces]
    tensors = [spec for spec in specs if isinstance(spec, tf.TensorSpec)]
    forms = {(spec.dtype.name, str(spec.shape)) for spec in tensors}
    if len(forms) > 1 or not all(spec.shape.is_fully_defined() for spec in tensors):
        shown = ", ".join(" ".join(form) for form in sorted(forms))
        raise verdict.Violation(
            expected=f"{name} to have one dtype and one static shape in all traces",
            observed=shown,
            fix=_FIX,
        )
    return {(spec.dtype.name, tuple(spec.shape)) for spec in tensors}


def _check_default(
    model: model_under_test.ModelUnderTest, name: str, default: Any
) -> None:
    images = model.images(1)
    with verdict.expecting(
        f"obj(x, {name}={default!r}) to work: it is the default", fix=_FIX
    ):
        explicit = model.obj(images, **{name: default})
    difference = numeric.relative_difference(explicit, model.obj(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"obj(x) to equal obj(x, {name}={default!r})",
            observed=f"a relative difference of {difference:.1e}",
            fix=_FIX,
        )


def _check_documented(
    documented: Mapping[str, Any],
    name: str,
    default: Any,
    specs: set[tuple[str, tuple[int, ...]]],
) -> None:
    form = documented.get("dtype"), tuple(documented.get("shape") or ())
    if specs and "dtype" in documented and form not in specs:
        ((dtype, shape),) = specs
        raise verdict.Violation(
            expected=f"{name} to be {form[0]} {list(form[1])}, as documented",
            observed=f"{dtype} {list(shape)}",
            fix=_FIX,
        )
    if "default" in documented and documented["default"] != default:
        raise verdict.Violation(
            expected=f"the default {name}={documented['default']!r}, as documented",
            observed=f"{name}={default!r}",
            fix=_FIX,
        )


def _check_momentum(model: model_under_test.ModelUnderTest) -> None:
    """Checks that momentum 1 keeps the moving statistics and 0 replaces them.

    `_train` turns dropout and drop path off, so the statistics depend on the momentum
    and the batch only.
    """
    trainable = {id(v) for v in model.trainable_variables}
    statistics = [v for v in model.all_variables if id(v) not in trainable]
    before = numeric.values(statistics)
    _train(model, batch_norm_momentum=1.0)
    if numeric.changed(statistics, before, numeric.values(statistics)):
        raise verdict.Violation(
            expected="batch_norm_momentum=1 to leave the moving statistics unchanged",
            observed="changed moving statistics",
            fix="Compute momentum · old + (1 − momentum) · new.",
        )
    replaced = []
    for shift in (0.0, 1.0):
        for variable, value in zip(statistics, before, strict=True):
            array = np.asarray(value)
            variable.assign(array + array.dtype.type(shift))
        _train(model, batch_norm_momentum=0.0)
        replaced.append(numeric.values(statistics))
    difference = numeric.relative_difference(*replaced)
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="batch_norm_momentum=0 to replace the moving statistics by those "
            "of the batch",
            observed="moving statistics that still depend on their old values, by a "
            f"relative difference of {difference:.1e}",
            fix="Compute momentum · old + (1 − momentum) · new.",
        )


def _check_rate(name: str) -> Callable[[model_under_test.ModelUnderTest], None]:
    """Returns a check that rate 0 is deterministic and rate 0.5 is random.

    The number of calls makes a false alarm improbable in the worst case: drop path in a
    single block, which drops whole images. With rate 0.5 and four images, two calls
    drop the same images with a probability of 1/16, and all six calls with a
    probability of about 1e-6. Dropout drops single values, and so repeats itself less.
    """

    def check(model: model_under_test.ModelUnderTest) -> None:
        _raise_small_scales(model)
        for rate, calls in ((0.0, 2), (0.5, 6)):
            first, *rest = (_train(model, **{name: rate}) for _ in range(calls))
            differences = [numeric.relative_difference(o, first) for o in rest]
            if (max(differences) > clauses.TOLERANCE) != bool(rate):
                behaviour = "random" if rate else "deterministic"
                raise verdict.Violation(
                    expected=f"training=True with {name}={rate} to be {behaviour}",
                    observed=f"a relative difference of {max(differences):.1e} between "
                    "calls",
                    fix="Use the argument as the drop rate of the layers.",
                )

    return check


def _raise_small_scales(model: model_under_test.ModelUnderTest) -> None:
    """Sets trainable variables of one small number to 1; the caller restores them.

    The scale of a block's output begins at 1e-6 in ConvNeXt (arXiv:2201.03545, Table 5)
    and other networks with LayerScale (arXiv:2103.17239), and hides what is dropped.
    """
    for variable in model.trainable_variables:
        value = variable.numpy()
        is_constant = value.size and (value == value.flat[0]).all()
        if is_constant and 0 < abs(float(value.flat[0])) < _SMALL_SCALE:
            variable.assign(np.ones_like(value))


def _check_endpoints(model: model_under_test.ModelUnderTest) -> None:
    images = model.images(1)
    endpoints = model.obj(images, return_endpoints=True)
    if not isinstance(endpoints, Mapping) or "default" not in endpoints:
        raise verdict.Violation(
            expected="return_endpoints=True to return a dict with the key 'default'",
            observed=f"a {type(endpoints).__name__}",
            fix="Return a dict of endpoints by name, with the output as 'default'.",
        )
    difference = numeric.relative_difference(endpoints["default"], model.obj(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="the endpoint 'default' to equal the output",
            observed=f"a relative difference of {difference:.1e}",
            fix="Return a dict of endpoints by name, with the output as 'default'.",
        )


def _train(model: model_under_test.ModelUnderTest, **arguments: float) -> Any:
    """Calls the model in training mode; drop rates not in `arguments` are 0."""
    names = {parameter.name for parameter in traces.parameters(model.call)}
    rates = {rate: 0.0 for rate in _RATES if rate in names}
    keywords = {name: tf.constant(v) for name, v in {**rates, **arguments}.items()}
    return model.obj(model.images(4), training=True, **keywords)


_EFFECTS: dict[str, Callable[[model_under_test.ModelUnderTest], None]] = {
    "batch_norm_momentum": _check_momentum,
    "return_endpoints": _check_endpoints,
    **{rate: _check_rate(rate) for rate in _RATES},
}
