"""Group S: the signatures, for clients that know no more than their names.

Source of the names: the TF1 Hub format,
https://www.tensorflow.org/hub/common_signatures/images
"""

from __future__ import annotations

import tensorflow as tf

from conformance import clauses, model_under_test, numeric, verdict
from conformance.checks import reusable

_INPUT = "images"
_OUTPUT = "default"


def s01_has_serving_default(model: model_under_test.ModelUnderTest) -> str:
    """Reads the signature's input."""
    spec = _input_spec(model, "serving_default")
    if spec.shape.rank is not None and (not spec.shape.rank or spec.shape[0]):
        raise verdict.Violation(
            expected="serving_default with an undefined batch",
            observed=f"an input of shape {spec.shape}",
            mend="Trace the signature with None as its first dimension.",
        )
    return f"{_INPUT}: {spec.dtype.name} {spec.shape}"


def s02_has_named_signatures(model: model_under_test.ModelUnderTest) -> str:
    """Reads the named signatures' keys, and calls the one for the model's own task.

    Its result must equal what `__call__` gives at inference, if that can be called with
    images. Of the classifier's image_feature_vector only the keys are judged.
    """
    names = [f"image_{clauses.FEATURE_VECTOR}"]
    if model.kind == clauses.CLASSIFICATION:
        names.append(f"image_{clauses.CLASSIFICATION}")
    for name in names:
        _input_spec(model, name)
        keys = model.signatures[name].structured_outputs
        if _OUTPUT not in keys:
            raise verdict.Violation(
                expected=f"signature {name} with the output key {_OUTPUT}",
                observed=f"the output keys {', '.join(sorted(keys))}",
                mend=f"Let the signature's function give a dict with {_OUTPUT!r}.",
            )
    try:
        reusable.r03_takes_one_tensor(model)
    except (verdict.Violation, TypeError):
        return f"{', '.join(names)}; without a call to compare them with, see R03"
    difference = _difference(model, f"image_{model.kind}")
    if difference is None:
        return f"{', '.join(names)}; the call's result is not one Tensor to compare"
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"signature image_{model.kind} to equal obj(x, training=False)",
            observed=f"a relative difference of {difference:.1e}",
            mend="Trace the signature from the function that __call__ runs.",
        )
    return f"{', '.join(names)}; difference {difference:.1e}"


def _difference(model: model_under_test.ModelUnderTest, name: str) -> float | None:
    spec = _input_spec(model, name)
    height, width = spec.shape[1:3] if spec.shape.rank == 4 else (None, None)
    size = (height or model.size[0], width or model.size[1])
    images = model.images(2, size=size, spec=spec)
    called = model.infer(images)
    if len(numeric.leaves(called)) != 1:
        return None
    result = model.signatures[name](**{_INPUT: images})[_OUTPUT]
    return numeric.relative_difference(result, called)


def _input_spec(model: model_under_test.ModelUnderTest, name: str) -> tf.TensorSpec:
    """The spec of the one input of a signature, which must be there."""
    if name not in model.signatures:
        raise verdict.Violation(
            expected=f"a signature {name}",
            observed=f"the signatures {', '.join(sorted(model.signatures)) or 'none'}",
            mend="Pass it to tf.saved_model.save under signatures=.",
        )
    _, inputs = model.signatures[name].structured_input_signature
    if set(inputs) != {_INPUT}:
        raise verdict.Violation(
            expected=f"signature {name} with the one input key {_INPUT}",
            observed=f"the input keys {', '.join(sorted(inputs))}",
            mend=f"Name the argument of the signature's function {_INPUT}.",
        )
    return inputs[_INPUT]


def s03_names_endpoints(model: model_under_test.ModelUnderTest) -> str:
    """Reads the output keys of the signatures for images that give a result.

    Keys beside the result's must have one common first part, the architecture's name,
    then a slash and the endpoint's own name.
    """
    names = [name for name in model.signatures if name.startswith("image_")]
    outputs = [set(model.signatures[name].structured_outputs) for name in names]
    further = sorted(set().union(*(o for o in outputs if _OUTPUT in o)) - {_OUTPUT})
    if not further:
        raise verdict.NotApplicable("no signature has outputs beside default")
    parts = [key.partition("/") for key in further]
    architectures = {architecture for architecture, _, _ in parts}
    if len(architectures) != 1 or not all(a and name for a, _, name in parts):
        raise verdict.Violation(
            expected="keys that begin with the architecture's name and a slash",
            observed=f"the keys {', '.join(further[:4])}",
            mend="Call the outputs ARCHITECTURE/ENDPOINT, as in InceptionV3/Mixed_5c.",
        )
    return f"{len(further)} endpoints of {architectures.pop()}"
