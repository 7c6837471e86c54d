"""Clause R12: callables by name on the root, such as a classifier's head.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

from typing import Any

from conformance import model_under_test, numeric, traces, verdict

_KERAS_RECORD = "keras_api"
_MEND = "Make the part a tf.Module with a traced __call__ and the lists variables and "
_MEND += "trainable_variables of what that call uses, and hang it on the root itself."


def r12_parts_are_whole(model: model_under_test.ModelUnderTest) -> str:
    """Looks at every attribute of the root that has a `__call__` of its own."""
    parts = _parts(model.obj)
    if not parts:
        raise verdict.NotApplicable("the root has no named callables")
    for name, part in parts.items():
        _check_part(name, part)
    return ", ".join(parts)


def _parts(obj: Any) -> dict[str, Any]:
    """What has a `__call__` that was saved, by the attribute's name.

    What one can't write as `obj.part` is no named callable: so tf_keras numbers the
    layers of a model (`layer-1`), beside its own record of it.
    """
    found = {}
    for name, value in sorted(vars(obj).items()):
        if not name.isidentifier() or name == _KERAS_RECORD:
            continue
        function = getattr(value, "__call__", None)  # noqa: B004 - the attribute
        is_saved = traces.is_restored_function(function)
        if is_saved and not traces.is_restored_function(value):
            found[name] = value
    return found


def _check_part(name: str, part: Any) -> None:
    lists: dict[str, Any] = {}
    for attribute in ("variables", "trainable_variables"):
        # One that would be empty may be left out, as on the root.
        value = lists[attribute] = getattr(part, attribute, ())
        if not isinstance(value, list | tuple):
            raise verdict.Violation(
                expected=f"obj.{name}.{attribute} to be a list",
                observed=f"a {type(value).__name__}",
                mend=_MEND,
            )
    listed = {id(variable.handle) for variable in lists["variables"]}
    captured = {
        id(variable.handle): variable
        for trace in traces.read(part.__call__)
        for variable in trace.concrete.variables
    }
    if missing := [v for handle, v in captured.items() if handle not in listed]:
        raise verdict.Violation(
            expected=f"all {len(captured)} variables that obj.{name} captures in its "
            "variables",
            observed=f"{len(missing)} missing: {numeric.names(missing)}",
            mend=_MEND,
        )
    strange = [v for v in lists["trainable_variables"] if id(v.handle) not in listed]
    if strange:
        raise verdict.Violation(
            expected=f"obj.{name}.trainable_variables to be a subset of its variables",
            observed=f"{len(strange)} others: {numeric.names(strange)}",
            mend=_MEND,
        )
    if deeper := _parts(part):
        raise verdict.Violation(
            expected=f"obj.{name} to have no named callables of its own",
            observed=", ".join(f"obj.{name}.{inner}" for inner in deeper),
            mend=_MEND,
        )
