"""Clause R12: named callables of the root, such as the head of a classifier.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

from typing import Any

from conformance import model_under_test, numeric, traces, verdict

_KERAS_RECORD = "keras_api"
_FIX = "Attach a tf.train.Checkpoint directly to the root. Set its __call__ to a "
_FIX += "traced tf.function, and its variables and trainable_variables to lists."


def r12_named_callables_are_complete(model: model_under_test.ModelUnderTest) -> str:
    """Checks every attribute of the root that has its own `__call__`."""
    parts = _parts(model.obj)
    if not parts:
        raise verdict.NotApplicable("the root has no named callables")
    for name, part in parts.items():
        _check_part(name, part)
    return ", ".join(parts)


def _parts(obj: Any) -> dict[str, Any]:
    """Returns the attributes of `obj` that have a restored `__call__`, by name.

    A named callable has a name that is valid in `obj.part`. This excludes the layers
    that tf_keras attaches to a model as `layer-1` and so on. The attribute `keras_api`,
    the metadata of tf_keras, is excluded too.
    """
    parts = {}
    for name, value in sorted(vars(obj).items()):
        if not name.isidentifier() or name == _KERAS_RECORD:
            continue
        function = getattr(value, "__call__", None)  # noqa: B004 - its value is needed
        is_saved = traces.is_restored_function(function)
        if is_saved and not traces.is_restored_function(value):
            parts[name] = value
    return parts


def _check_part(name: str, part: Any) -> None:
    lists: dict[str, Any] = {}
    for attribute in ("variables", "trainable_variables"):
        # An empty list may be omitted, as on the root.
        value = lists[attribute] = getattr(part, attribute, ())
        if not isinstance(value, list | tuple):
            raise verdict.Violation(
                expected=f"obj.{name}.{attribute} to be a list",
                observed=f"a {type(value).__name__}",
                fix=_FIX,
            )
    listed = {id(variable.handle) for variable in lists["variables"]}
    captured = {
        id(variable.handle): variable
        for trace in traces.read(part.__call__)
        for variable in trace.concrete.variables
    }
    if missing := [v for handle, v in captured.items() if handle not in listed]:
        raise verdict.Violation(
            expected=f"obj.{name}.variables to list all {len(captured)} variables that "
            f"obj.{name} captures",
            observed=f"{len(missing)} missing: {numeric.names(missing)}",
            fix=_FIX,
        )
    unlisted = [v for v in lists["trainable_variables"] if id(v.handle) not in listed]
    if unlisted:
        raise verdict.Violation(
            expected=f"obj.{name}.trainable_variables to be a subset of "
            f"obj.{name}.variables",
            observed=f"{len(unlisted)} not listed: {numeric.names(unlisted)}",
            fix=_FIX,
        )
    if nested := _parts(part):
        raise verdict.Violation(
            expected=f"obj.{name} to have no named callables of its own",
            observed=", ".join(f"obj.{name}.{inner}" for inner in nested),
            fix=_FIX,
        )
