"""Clause R13: what is loaded can be saved again.

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

_MEND = "Hang all that the model needs on its root: assets, lists, named callables."
# Those that a copy could break, and that are judged by looking, or by one call.
_JUDGED_AGAIN: tuple[Callable[[model_under_test.ModelUnderTest], str], ...] = (
    reusable.r02_root_is_callable,
    reusable.r03_takes_one_tensor,
    reusable.r04_lists_variables,
    reusable.r05_lists_trainable_variables,
    reusable.r06_regularization_losses,
    reusable.r08_traces_every_combination,
    parts.r12_parts_are_whole,
    feature_vector.f02_num_features_is_static,
    classification.c03_carries_class_index,
    signatures.s01_has_serving_default,
)


def r13_saves_again(model: model_under_test.ModelUnderTest) -> str:
    """Saves the loaded object with its signatures, loads the copy, and compares.

    The copy must give equal outputs, have the same lists, and break no clause of its
    form that the model itself meets.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "copy")
        with verdict.expecting("tf.saved_model.save(obj) to work", mend=_MEND):
            tf.saved_model.save(model.obj, str(path), dict(model.signatures) or None)
        copy = model_under_test.ModelUnderTest(
            path, kind=model.kind, full=False, pair=None, documented=model.documented
        )
        with verdict.expecting("the copy to load and to predict", mend=_MEND):
            images = model.images(2)
            copied = copy.infer(images)
        difference = numeric.relative_difference(copied, model.infer(images))
        if difference > clauses.TOLERANCE:
            raise verdict.Violation(
                expected="the copy's outputs to equal the model's",
                observed=f"a relative difference of {difference:.1e}",
                mend=_MEND,
            )
        for check in _JUDGED_AGAIN:
            _check_again(check, model, copy)
    return f"a copy passes {len(_JUDGED_AGAIN)} clauses; difference {difference:.1e}"


def _check_again(
    check: Callable[[model_under_test.ModelUnderTest], str],
    model: model_under_test.ModelUnderTest,
    copy: model_under_test.ModelUnderTest,
) -> None:
    problem = _problem(check, copy)
    if problem and not _problem(check, model):
        raise verdict.Violation(
            expected=f"the copy to meet {check.__name__[:3].upper()} as the model does",
            observed=problem,
            mend=_MEND,
        )


def _problem(
    check: Callable[[model_under_test.ModelUnderTest], str],
    model: model_under_test.ModelUnderTest,
) -> str:
    """Why a clause does not hold, or can't be judged; nothing where it holds."""
    try:
        check(model)
    except Exception as error:
        return verdict.one_line(error)
    return ""
