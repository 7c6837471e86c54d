"""Clauses S01 to S03: signatures, for clients that know only their names.

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
    """Checks the input of serving_default."""
    spec = _input_spec(model, "serving_default")
    if spec.shape.rank is not None and (not spec.shape.rank or spec.shape[0]):
        raise verdict.Violation(
            expected="serving_default with a free batch dimension (None)",
            observed=f"an input of shape {spec.shape}",
            fix="Trace the signature with None as the first dimension of its input.",
        )
    return f"{_INPUT}: {spec.dtype.name} {spec.shape}"


def s02_has_named_signatures(model: model_under_test.ModelUnderTest) -> str:
    """Checks the keys of the named signatures and calls the one for the model's task.

    Its result must equal the output of `__call__` at inference, if `__call__` takes
    images. For the image_feature_vector of a classifier the check covers the keys only.
    """
    names = [f"image_{clauses.FEATURE_VECTOR}"]
    if model.kind == clauses.CLASSIFICATION:
        names.append(f"image_{clauses.CLASSIFICATION}")
    for name in names:
        check_keys(model, name)
    try:
        reusable.r03_takes_one_tensor(model)
    except (verdict.Violation, TypeError):
        return f"{', '.join(names)}; no __call__ that takes the same images, see R03"
    difference = _difference(model, f"image_{model.kind}")
    if difference is None:
        return f"{', '.join(names)}; no single Tensor from __call__ to compare with"
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"signature image_{model.kind} to equal obj(x, training=False)",
            observed=f"a relative difference of {difference:.1e}",
            fix="Trace the signature from the function of __call__.",
        )
    return f"{', '.join(names)}; difference {difference:.1e}"


def check_keys(model: model_under_test.ModelUnderTest, name: str) -> None:
    """Checks the one input and the output `default` of a signature for images."""
    _input_spec(model, name)
    keys = model.signatures[name].structured_outputs
    if _OUTPUT not in keys:
        raise verdict.Violation(
            expected=f"signature {name} with the output key {_OUTPUT}",
            observed=f"the output keys {', '.join(sorted(keys))}",
            fix=f"Return a dict with the key {_OUTPUT!r} from its function.",
        )


def _difference(model: model_under_test.ModelUnderTest, name: str) -> float | None:
    """Returns the difference between the outputs of a signature and of `__call__`.

    None means that `__call__` does not return a single Tensor.
    """
    spec = _input_spec(model, name)
    height, width = spec.shape[1:3] if spec.shape.rank == 4 else (None, None)
    size = (height or model.size[0], width or model.size[1])
    images = model.images(2, size=size, spec=spec)
    output = model.infer(images)
    if len(numeric.leaves(output)) != 1:
        return None
    result = model.signatures[name](**{_INPUT: images})[_OUTPUT]
    return numeric.relative_difference(result, output)


def _input_spec(model: model_under_test.ModelUnderTest, name: str) -> tf.TensorSpec:
    """Returns the spec of a signature's one input; checks signature and input key."""
    if name not in model.signatures:
        raise verdict.Violation(
            expected=f"a signature {name}",
            observed=f"the signatures {', '.join(sorted(model.signatures)) or 'none'}",
            fix="Add it to the signatures= argument of tf.saved_model.save.",
        )
    _, inputs = model.signatures[name].structured_input_signature
    if set(inputs) != {_INPUT}:
        raise verdict.Violation(
            expected=f"signature {name} with the one input key {_INPUT}",
            observed=f"the input keys {', '.join(sorted(inputs))}",
            fix=f"Name the argument of the signature's function {_INPUT}.",
        )
    return inputs[_INPUT]


def s03_names_endpoints(model: model_under_test.ModelUnderTest) -> str:
    """Checks the names of further outputs of the image signatures.

    Every output key other than `default` must be the name of the architecture, which is
    the same for all keys, a slash, and the name of the endpoint.
    """
    names = [name for name in model.signatures if name.startswith("image_")]
    outputs = [set(model.signatures[name].structured_outputs) for name in names]
    keys = sorted(set().union(*(o for o in outputs if _OUTPUT in o)) - {_OUTPUT})
    if not keys:
        raise verdict.NotApplicable(
            "no image_* signature has outputs other than default"
        )
    parts = [key.partition("/") for key in keys]
    architectures = {architecture for architecture, _, _ in parts}
    if len(architectures) != 1 or not all(a and name for a, _, name in parts):
        raise verdict.Violation(
            expected="keys that begin with the same architecture name and a slash",
            observed=f"the keys {', '.join(keys[:4])}",
            fix="Name the outputs ARCHITECTURE/ENDPOINT, as in InceptionV3/Mixed_5c.",
        )
    return f"{len(keys)} endpoints of {architectures.pop()}"
