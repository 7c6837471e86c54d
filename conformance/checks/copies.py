"""Clause R13: a loaded model can be saved again.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable

import tensorflow as tf

from conformance import clauses, model_under_test, numeric, verdict
from conformance.checks import (
    classification,
    feature_vector,
    parts,
    reusable,
    signatures,
)

_FIX = "Make everything that the model needs reachable from its root: assets, lists of "
_FIX += "variables and losses, named callables."
# Checks of what a copy can lose: a copy may fail them although the model passes. Other
# checks would take too long to repeat: each of these calls the model once at most.
_CHECKS_OF_COPY: tuple[Callable[[model_under_test.ModelUnderTest], str], ...] = (
    reusable.r02_root_is_callable,
    reusable.r03_takes_one_tensor,
    reusable.r04_lists_variables,
    reusable.r05_lists_trainable_variables,
    reusable.r06_regularization_losses,
    reusable.r08_traces_every_combination,
    parts.r12_named_callables_are_complete,
    feature_vector.f02_num_features_is_static,
    classification.c03_carries_class_index,
    signatures.s01_has_serving_default,
)


def r13_can_be_saved_again(model: model_under_test.ModelUnderTest) -> str:
    """Saves the loaded object with its signatures, loads the copy, and compares them.

    The outputs of the copy must equal those of the model. Each of `_CHECKS_OF_COPY`
    that passes for the model must pass for the copy.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "copy")
        with verdict.expecting("tf.saved_model.save(obj) to work", fix=_FIX):
            tf.saved_model.save(model.obj, str(path), dict(model.signatures) or None)
        copy = model_under_test.ModelUnderTest(
            path, kind=model.kind, full=False, pair=None, documented=model.documented
        )
        with verdict.expecting("the copy to load and predict", fix=_FIX):
            images = model.images(2)
            output = copy.infer(images)
        difference = numeric.relative_difference(output, model.infer(images))
        if difference > clauses.TOLERANCE:
            raise verdict.Violation(
                expected="the outputs of the copy to equal those of the model",
                observed=f"a relative difference of {difference:.1e}",
                fix=_FIX,
            )
        passed = sum(_check_copy(check, model, copy) for check in _CHECKS_OF_COPY)
    return (
        f"a copy passes the {passed} repeated checks that the model passes; difference "
        f"{difference:.1e}"
    )


def _check_copy(
    check: Callable[[model_under_test.ModelUnderTest], str],
    model: model_under_test.ModelUnderTest,
    copy: model_under_test.ModelUnderTest,
) -> bool:
    """Returns whether the copy passes a check.

    Raises:
      verdict.Violation: the copy does not pass, but the model does.
    """
    problem = _problem(check, copy)
    if problem and not _problem(check, model):
        clause_id = check.__name__[:3].upper()
        raise verdict.Violation(
            expected=f"the copy to pass {clause_id}, as the model does",
            observed=problem,
            fix=_FIX,
        )
    return not problem


def _problem(
    check: Callable[[model_under_test.ModelUnderTest], str],
    model: model_under_test.ModelUnderTest,
) -> str:
    """Returns why a check fails or does not apply; an empty string if it passes."""
    try:
        check(model)
    except Exception as error:
        return verdict.one_line(error)
    return ""
