"""Group P: a feature-vector model and a classifier that belong together."""

from __future__ import annotations

import collections
from typing import Any

import tensorflow as tf

from conformance import clauses, model_under_test, numeric, traces, verdict
from conformance.checks import reusable


def p01_backbones_are_equal(model: model_under_test.ModelUnderTest) -> str:
    """Looks for each of the feature vector's variables, by name, in the classifier.

    Where names occur twice or are not the same in both, variables of equal bits, shape
    and dtype are paired up instead.
    """
    features, classifier = _halves(model)
    theirs = {variable.name: variable for variable in classifier.all_variables}
    own = {variable.name: variable for variable in features.all_variables}
    unique = len(own) == len(features.all_variables) and own.keys() <= theirs.keys()
    if unique:
        different = [v for v in own.values() if _bits(v) != _bits(theirs[v.name])]
    else:
        left = collections.Counter(map(_bits, classifier.all_variables))
        different = [v for v in features.all_variables if not _take(left, _bits(v))]
    if not features.all_variables:
        raise verdict.NotApplicable("the feature vector holds no variables")
    if different:
        raise verdict.Violation(
            expected=f"all {len(features.all_variables)} variables of the feature "
            "vector bit-equal in the classifier",
            observed=f"{len(different)} that are not: {numeric.names(different)}",
            mend="Write both halves from one backbone in one go.",
        )
    return f"{len(features.all_variables)} variables are bit-equal"


def p02_head_completes_features(model: model_under_test.ModelUnderTest) -> str:
    """Compares classifier(x) with classifier.head(feature_vector(x)) at inference."""
    features, classifier = _halves(model)
    head = getattr(classifier.obj, "head", None)
    function = getattr(head, "__call__", None)  # noqa: B004 - the attribute
    mend = "Hang the head on the classifier as a tf.Module with a __call__ of its own."
    if not traces.is_restored_function(function):
        raise verdict.Violation(
            expected="classifier.head with a __call__",
            observed="no head" if head is None else f"a {type(head).__name__}",
            mend=mend,
        )
    images = classifier.images(2)
    with verdict.expecting("classifier.head(feature_vector(x)) to work", mend=mend):
        logits = _infer(head, features.infer(images))
    difference = numeric.relative_difference(logits, classifier.infer(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="classifier.head(feature_vector(x)) to equal classifier(x)",
            observed=f"a relative difference of {difference:.1e}",
            mend="Build the classifier as the head on the very feature vector that "
            "the other half gives.",
        )
    return f"difference {difference:.1e}"


def _halves(
    model: model_under_test.ModelUnderTest,
) -> tuple[model_under_test.ModelUnderTest, model_under_test.ModelUnderTest]:
    """The feature-vector model and the classifier."""
    if model.pair is None:
        raise verdict.NotApplicable("the other half of the pair was not given")
    reusable.r01_loads_alone(model.pair)  # before anything of it runs
    if model.pair.looks_like == model.kind:
        raise verdict.Violation(
            expected="the other half of the pair",
            observed=f"another {model.kind}",
            mend="Give the feature vector for a classifier, and the other way round.",
        )
    if model.kind == clauses.FEATURE_VECTOR:
        return model, model.pair
    return model.pair, model


def _take(counter: collections.Counter[Any], item: Any) -> bool:
    """Takes one `item` out of the counter; whether there was one."""
    counter[item] -= 1
    return counter[item] >= 0


def _bits(variable: Any) -> tuple[Any, ...]:
    value = variable.numpy()
    return value.dtype.str, value.shape, value.tobytes()


def _infer(head: Any, features: tf.Tensor) -> Any:
    takes = {parameter.name for parameter in traces.parameters(head.__call__)}
    return head(features, **({"training": False} if "training" in takes else {}))
