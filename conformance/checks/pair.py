"""Clauses P01 and P02: a pair of a feature-vector model and a classifier."""

from __future__ import annotations

import collections
from typing import Any

import tensorflow as tf

from conformance import clauses, model_under_test, numeric, traces, verdict
from conformance.checks import reusable


def p01_backbones_are_equal(model: model_under_test.ModelUnderTest) -> str:
    """Compares the variables of the feature-vector model with the classifier's by name.

    If the names are not unique, or the classifier lacks one of them, the check looks
    for a variable with equal bits, shape and dtype instead.
    """
    feature_vector, classifier = _models(model)
    variables = feature_vector.all_variables
    by_name = {variable.name: variable for variable in variables}
    classifier_by_name = {v.name: v for v in classifier.all_variables}
    is_unique = len(by_name) == len(variables)
    if is_unique and by_name.keys() <= classifier_by_name.keys():
        different = [
            v for v in by_name.values() if _bits(v) != _bits(classifier_by_name[v.name])
        ]
    else:
        unmatched = collections.Counter(map(_bits, classifier.all_variables))
        different = [v for v in variables if not _take(unmatched, _bits(v))]
    if not variables:
        raise verdict.NotApplicable("the feature-vector model has no variables")
    if different:
        raise verdict.Violation(
            expected=f"all {len(variables)} variables of the feature-vector model to "
            "be bit-equal in the classifier",
            observed=f"{len(different)} that are not: {numeric.names(different)}",
            fix="Export both models from the same backbone at the same time.",
        )
    return f"{len(variables)} variables are bit-equal"


def p02_head_completes_features(model: model_under_test.ModelUnderTest) -> str:
    """Compares classifier(x) with classifier.head(feature_vector(x)) at inference.

    A head whose argument has the name of an endpoint reads that endpoint instead.
    """
    feature_vector, classifier = _models(model)
    head = getattr(classifier.obj, "head", None)
    function = getattr(head, "__call__", None)  # noqa: B004 - its value is needed
    fix = "Set classifier.head to a tf.Module with its own traced __call__."
    if not traces.is_restored_function(function):
        raise verdict.Violation(
            expected="classifier.head with a traced __call__",
            observed="no head" if head is None else "a head without one",
            fix=fix,
        )
    images = classifier.images(2)
    with verdict.expecting("classifier.head(feature_vector(x)) to work", fix=fix):
        name, features = _head_input(head, feature_vector, images)
        logits = _infer(head, features)
    difference = numeric.relative_difference(logits, classifier.infer(images))
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"classifier.head({name}(x)) to equal classifier(x)",
            observed=f"a relative difference of {difference:.1e}",
            fix=f"Build the classifier as the head on the {name} of the "
            "feature-vector model.",
        )
    return f"difference {difference:.1e}"


def _head_input(
    head: Any, feature_vector: model_under_test.ModelUnderTest, images: tf.Tensor
) -> tuple[str, Any]:
    """Returns name and value of what the head reads, at inference.

    It is the endpoint with the name of the head's first argument, such as
    `SqueezeNet/feature_map`, or else the feature vector.
    """
    argument = next(iter(traces.parameters(head.__call__))).name
    names = {parameter.name for parameter in traces.parameters(feature_vector.call)}
    if {"training", "return_endpoints"} <= names:
        endpoints = feature_vector.obj(images, training=False, return_endpoints=True)
        for name, endpoint in endpoints.items():
            _, slash, short_name = name.rpartition("/")
            if slash and short_name == argument:
                return argument, endpoint
    return "feature_vector", feature_vector.infer(images)


def _models(
    model: model_under_test.ModelUnderTest,
) -> tuple[model_under_test.ModelUnderTest, model_under_test.ModelUnderTest]:
    """Returns the feature-vector model and the classifier."""
    if model.other_model is None:
        raise verdict.NotApplicable("the other model of the pair was not given")
    reusable.r01_loads_alone(model.other_model)  # before any of its ops run
    if model.other_model.kind_by_signature == model.kind:
        raise verdict.Violation(
            expected="the other model of the pair",
            observed=f"another {model.kind} model",
            fix="Pair a feature-vector model with a classifier.",
        )
    if model.kind == clauses.FEATURE_VECTOR:
        return model, model.other_model
    return model.other_model, model


def _take(counter: collections.Counter[Any], item: Any) -> bool:
    """Removes one `item` from the counter; returns whether there was one."""
    counter[item] -= 1
    return counter[item] >= 0


def _bits(variable: Any) -> tuple[Any, ...]:
    value = variable.numpy()
    return value.dtype.str, value.shape, value.tobytes()


def _infer(head: Any, features: tf.Tensor) -> Any:
    names = {parameter.name for parameter in traces.parameters(head.__call__)}
    return head(features, **({"training": False} if "training" in names else {}))
