"""Group V: SavedModels for serving alone, which have signatures and no variables."""

from __future__ import annotations

import pathlib
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from conformance import clauses, model_under_test, numeric, verdict
from conformance.checks import encoded_images, manifest_record, signatures
from foundation import warmup_requests
from reuse import predict

_FEATURES = f"image_{clauses.FEATURE_VECTOR}"
_BYTES, _CLASSIFY, _NUMBER = "image_bytes", "classify", "k"
_VARIABLE_OPS = {"VarHandleOp", "ReadVariableOp", "AssignVariableOp", "VariableV2"}
_FREEZE = (
    "Save signatures alone, of a function without variables, such as "
    "convert_variables_to_constants_v2 makes it."
)
_ONE_FUNCTION = "Let all signatures call one function of the images."
_CLASSIFY_FIX = (
    "Write it as a tf.function of image_bytes and k, whose default is a tf.constant. "
    "Servers fill the default in; without it, each client has to send k."
)
_RAISE = (
    "Let the ops that decode, and tf.debugging.Assert in the graph, raise the error; "
    "do not replace the image or k."
)
_WARMUP_FIX = (
    "Write a TFRecord file of PredictionLog messages, one for each signature, with "
    "tensorflow-serving-api."
)


def v01_holds_constants(model: model_under_test.ModelUnderTest) -> str:
    """Checks the objects and the ops of the SavedModel."""
    meta_graphs = model.proto.meta_graphs
    variables = [
        node.variable.name
        for meta_graph in meta_graphs
        for node in meta_graph.object_graph_def.nodes
        if node.WhichOneof("kind") == "variable"
    ]
    if variables:
        _fail("no variables", f"{len(variables)}, such as {variables[0]}", _FREEZE)
    ops = [
        node.op
        for meta_graph in meta_graphs
        for function in meta_graph.graph_def.library.function
        for node in function.node_def
    ]
    if found := sorted(_VARIABLE_OPS & {*ops}):
        _fail("no op that reads or writes variables", ", ".join(found), _FREEZE)
    if model.call is not None:
        _fail("signatures only", "a __call__", _FREEZE)
    return f"no variables; {ops.count('Const')} constants in functions"


def v02_has_features(model: model_under_test.ModelUnderTest) -> str:
    """Compares the features with the output of a feature-vector model."""
    signatures.check_keys(model, _FEATURES)
    images = model.images(2)
    features = model.signatures[_FEATURES](images=images)["default"]
    if features.dtype != tf.float32 or features.shape.rank != 2:
        seen = f"{features.dtype.name} {features.shape}"
        _fail(f"float32 [2, num_features] from {_FEATURES}", seen, _ONE_FUNCTION)
    shape = f"float32 [batch, {features.shape[1]}]"
    other = model.other_model if model.kind == clauses.CLASSIFICATION else model
    if other is None:
        return f"{shape}; the other model of the pair was not given"
    output = other.signatures["serving_default"](images=images)["default"]
    difference = numeric.relative_difference(features, output)
    if difference > clauses.TOLERANCE:
        _fail(
            f"{_FEATURES} to equal serving_default of the feature-vector model",
            f"a relative difference of {difference:.1e}",
            _ONE_FUNCTION,
        )
    return f"{shape}; difference {difference:.1e}"


def v03_names_classes(model: model_under_test.ModelUnderTest) -> str:
    """Compares the answers of `classify` with the output of `image_bytes`.

    The names are compared with those of the class index, if the model has that file.
    """
    _check_classify(model)
    default = _default_number(model)
    if default is None:
        _fail(f"a default of {_NUMBER} in the signature", "none", _CLASSIFY_FIX)
    files = encoded_images.files()
    with verdict.expecting("signature image_bytes to work", fix=_CLASSIFY_FIX):
        logits = _ask(model, _BYTES, files, 0)["default"].numpy().astype(np.float64)
    number = logits.shape[1]
    names = _names(model, number)
    for k in sorted({1, default, number}):
        with verdict.expecting(
            f"signature {_CLASSIFY} to work with k={k}", fix=_CLASSIFY_FIX
        ):
            answer = _ask(model, _CLASSIFY, files, k)
        shapes = {key: tuple(answer[key].shape) for key in ("classes", "scores")}
        if {*shapes.values()} != {(len(files), k)}:
            _fail(
                f"classes and scores [2, {k}] for two images and k={k}",
                f"{shapes}",
                _CLASSIFY_FIX,
            )
        _check_scores(answer["scores"].numpy(), logits)
        if len(names):
            order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
            _check_names(answer["classes"].numpy(), logits, order, names)
    known = "named as in the class index" if len(names) else "no file with their names"
    return f"{number} classes, {known}; k is {default} by default"


def _check_scores(scores: np.ndarray, logits: np.ndarray) -> None:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    highest = [
        -np.sort(-values, axis=1)[:, : scores.shape[1]]
        for values in (softmax, 1 / (1 + np.exp(-logits)))
    ]
    difference = min(numeric.relative_difference(scores, each) for each in highest)
    if not difference <= clauses.TOLERANCE:
        _fail(
            "scores that are the highest softmax or sigmoid of the output of "
            "image_bytes, in descending order",
            f"a relative difference of {difference:.1e}",
            _CLASSIFY_FIX,
        )


def _check_names(
    answered: np.ndarray, logits: np.ndarray, order: np.ndarray, names: np.ndarray
) -> None:
    """Checks names; classes whose logits are equal may change places."""
    for row, column in np.argwhere(answered != names[order]):
        expected, name = order[row, column], answered[row, column]
        if name not in names:
            _fail(
                "names of the class index", f"{name!r}, which it has not", _CLASSIFY_FIX
            )
        others = logits[row, names == name]
        gaps = np.abs(others - logits[row, expected])
        if not gaps.min(initial=np.inf) <= clauses.TOLERANCE:
            _fail(
                f"{names[expected]!r}, the name of class {expected} in the class index",
                repr(name),
                _CLASSIFY_FIX,
            )


def v04_refuses_bad_requests(model: model_under_test.ModelUnderTest) -> str:
    """Checks the exceptions for bad requests, and good requests after them."""
    good = encoded_images.files()
    requests: dict[str, tuple[str, list[bytes], int]] = {}
    names = [name for name in (_BYTES, _CLASSIFY) if name in model.signatures]
    if _BYTES not in names:
        _fail(
            f"a signature {_BYTES}",
            ", ".join(sorted(model.signatures)) or "none",
            _RAISE,
        )
    for name in names:
        for described, data in encoded_images.damaged_files().items():
            requests[f"{described} for {name}"] = name, [data], 1
            requests[f"{described} among others for {name}"] = name, [*good, data], 1
        requests[f"a batch without images for {name}"] = name, [], 1
    before = {name: _ask(model, name, good, 1) for name in names}
    if _CLASSIFY in names and _NUMBER in _inputs(model, _CLASSIFY):
        number = before[_BYTES]["default"].shape[1]
        requests["k = -1"] = _CLASSIFY, good, -1
        requests["a k above the number of classes"] = _CLASSIFY, good, number + 1
    for described, (name, files, k) in requests.items():
        try:
            answer = _ask(model, name, files, k)
        except tf.errors.InvalidArgumentError:
            continue
        except Exception as error:
            seen = verdict.one_line(error)
        else:
            seen = ", ".join(f"{key} {a.shape}" for key, a in sorted(answer.items()))
        _fail(f"InvalidArgumentError for {described}", seen, _RAISE)
    for name in names:
        after = _ask(model, name, good, 1)
        key = "default" if name == _BYTES else "scores"
        difference = numeric.relative_difference(after[key], before[name][key])
        if difference > clauses.TOLERANCE:
            _fail(
                f"the same answer of {name} after bad requests", "another one", _RAISE
            )
    return f"{len(requests)} bad requests"


def v05_has_warmup_requests(model: model_under_test.ModelUnderTest) -> str:
    """Checks that each signature has a request, and answers it."""
    path = model.path / warmup_requests.FILE
    if not path.is_file():
        _fail(f"{warmup_requests.FILE}", "no such file", _WARMUP_FIX)
    seen = set()
    for name, inputs in _warmup_requests(path):
        if name not in model.signatures:
            _fail(
                "requests to signatures of the model", f"one to {name!r}", _WARMUP_FIX
            )
        if name == _CLASSIFY and (default := _default_number(model)) is not None:
            inputs.setdefault(_NUMBER, tf.constant(default))
        with verdict.expecting(
            f"signature {name} to answer its request", fix=_WARMUP_FIX
        ):
            model.signatures[name](**inputs)
        seen.add(name)
    if missing := sorted(model.signatures.keys() - seen):
        _fail(
            "a request for each signature",
            f"none for {', '.join(missing)}",
            _WARMUP_FIX,
        )
    return f"requests for {', '.join(sorted(seen))}"


def _warmup_requests(path: pathlib.Path) -> list[tuple[str, dict[str, tf.Tensor]]]:
    """Reads the signature and the inputs of each request in a file."""
    expected = f"records of messages PredictionLog in {warmup_requests.FILE}"
    with verdict.expecting(expected, fix=_WARMUP_FIX):
        records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
        return [
            (name, {key: _tensor(value) for key, value in inputs.items()})
            for name, inputs in map(warmup_requests.from_record, records)
        ]


def _tensor(data: bytes) -> tf.Tensor:
    return tf.constant(tf.make_ndarray(tensor_pb2.TensorProto.FromString(data)))


def _check_classify(model: model_under_test.ModelUnderTest) -> None:
    """Checks the inputs and outputs of the signature `classify`."""
    if _CLASSIFY not in model.signatures:
        names = ", ".join(sorted(model.signatures)) or "none"
        _fail(f"a signature {_CLASSIFY}", f"the signatures {names}", _CLASSIFY_FIX)
    inputs = _inputs(model, _CLASSIFY)
    specs = {key: (spec.dtype, spec.shape.rank) for key, spec in inputs.items()}
    if specs != {_BYTES: (tf.string, 1), _NUMBER: (tf.int32, 0)}:
        shown = ", ".join(f"{k} {s.dtype.name} {s.shape}" for k, s in inputs.items())
        _fail(
            f"{_CLASSIFY} of {_BYTES}, string [batch], and {_NUMBER}, int32 []",
            shown,
            _CLASSIFY_FIX,
        )
    outputs = model.signatures[_CLASSIFY].structured_outputs
    dtypes = {key: spec.dtype for key, spec in outputs.items()}
    if (dtypes.get("classes"), dtypes.get("scores")) != (tf.string, tf.float32):
        shown = ", ".join(f"{k} {dtype.name}" for k, dtype in sorted(dtypes.items()))
        _fail(
            f"{_CLASSIFY} to return classes, string, and scores, float32",
            shown,
            _CLASSIFY_FIX,
        )


def _inputs(model: model_under_test.ModelUnderTest, name: str) -> dict[str, Any]:
    """Returns the specs of a signature's inputs."""
    return model.signatures[name].structured_input_signature[1]


def _default_number(model: model_under_test.ModelUnderTest) -> int | None:
    """Returns the default of k, which servers fill in; None if there is none."""
    for meta_graph in model.proto.meta_graphs:
        defaults = meta_graph.signature_def[_CLASSIFY].defaults
        if _NUMBER in defaults:
            return int(tf.make_ndarray(defaults[_NUMBER]))
    return None


def _names(model: model_under_test.ModelUnderTest, number: int) -> np.ndarray:
    """Returns the names of the class index as bytes; empty if there is no file."""
    rows = predict.classes(model.path, manifest_record.read(model.path) or {})
    if rows and len(rows) != number:
        _fail(f"{number} classes in the class index", f"{len(rows)}", _CLASSIFY_FIX)
    return np.array([name.encode() for _, name in rows], object)


def _ask(
    model: model_under_test.ModelUnderTest, name: str, files: list[bytes], k: int
) -> dict[str, Any]:
    """Returns the answer of a signature that takes encoded images."""
    inputs = {_BYTES: tf.constant(files, tf.string)}
    if _NUMBER in _inputs(model, name):
        inputs[_NUMBER] = tf.constant(k)
    return model.signatures[name](**inputs)


def _fail(expected: str, observed: str, fix: str) -> NoReturn:
    raise verdict.Violation(expected=expected, observed=observed, fix=fix)
