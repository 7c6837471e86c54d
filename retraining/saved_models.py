"""Writes a module and a new head as a pair of Reusable SavedModels.

The classifier takes the same hyperparameters and flags as the module, and with
`return_endpoints` it returns the module's endpoints.
"""

from __future__ import annotations

import inspect
import itertools
import pathlib
import typing

import keras
import numpy as np
import tensorflow as tf

from images import model_input

FEATURE_VECTOR, CLASSIFICATION = "feature_vector", "classification"
CLASS_INDEX = "class_index.tsv"
_ENDPOINTS = "return_endpoints"
# Unlike a `tf.Module`, this class saves an attribute `variables` that is a list.
_new_root = tf.__internal__.tracking.AutoTrackable


def check(module: typing.Any, *, name: str) -> None:
    """Raises ValueError unless a model is a Reusable SavedModel for float32 images.

    Args:
      module: the result of `tf.saved_model.load`.
      name: name of the argument, for messages.
    """
    for attribute in ("variables", "trainable_variables"):
        if not hasattr(module, attribute):
            raise ValueError(
                f"{name} is not a Reusable SavedModel: it has no attribute {attribute}."
            )
    dtype = images_spec(module).dtype
    if dtype != tf.float32:
        raise ValueError(f"{name} must take float32 images, but takes {dtype.name}.")


def save(
    module: typing.Any,
    head: keras.layers.Dense,
    classes: str,
    folder: pathlib.Path,
    *,
    preprocessing: model_input.Preprocessing,
) -> dict[str, pathlib.Path]:
    """Writes both models with their current values.

    Both also take encoded images, in the signature `image_bytes`.

    Args:
      module: the result of `tf.saved_model.load`, possibly trained since then.
      head: layer from feature vectors [B, D] to logits [B, K].
      classes: text of the class index: a header `index id name`, then a line for each
        logit, all with tabs between the columns.
      folder: parent folder of the new folders `feature_vector` and `classification`.
      preprocessing: turns an encoded image into the module's input.

    Returns:
      The folder of each model, by kind.

    Raises:
      OSError: a file can't be written.
    """
    class_index = folder / CLASS_INDEX
    class_index.write_text(classes, encoding="utf-8")
    folders = {kind: folder / kind for kind in (FEATURE_VECTOR, CLASSIFICATION)}
    try:
        classifier, signatures = _classifier(module, head, class_index)
        inference = _inference(options(module))
        if hasattr(module, "preprocess"):  # not wanted inside the classifier
            del module.preprocess
        models: list[tuple[str, typing.Any, typing.Callable, dict]] = [
            (
                CLASSIFICATION,
                classifier,
                lambda images: signatures["serving_default"](images)["default"],
                signatures,
            ),
            (
                FEATURE_VECTOR,
                module,
                lambda images: module(images, **inference),
                dict(module.signatures),
            ),
        ]
        for kind, root, function, named in models:
            root.preprocess = preprocessing.named_callable()
            named["image_bytes"] = model_input.bytes_signature(
                root.preprocess.__call__, function
            )
            tf.saved_model.save(root, str(folders[kind]), named)
    except tf.errors.OpError as error:
        raise OSError(f"Can't write to {folder}: {error.message}") from error
    class_index.unlink()
    return folders


def _classifier(
    module: typing.Any, dense: keras.layers.Dense, class_index: pathlib.Path
) -> tuple[typing.Any, dict[str, typing.Any]]:
    """Returns the root object of the classifier, and its signatures."""
    weights = [
        tf.Variable(np.asarray(variable), name=f"logits/{name}")
        for name, variable in (("kernel", dense.kernel), ("bias", dense.bias))
    ]
    module_options = options(module)
    images = images_spec(module)
    width = weights[0].shape[0]

    @tf.function(input_signature=[tf.TensorSpec([None, width], tf.float32, "features")])
    def scores(features: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.linalg.matmul(features, weights[0]), weights[1])

    def forward(
        images: tf.Tensor, **values: typing.Any
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the feature vector, and the endpoints with `return_endpoints`."""
        outputs = module(images, **values)
        if not isinstance(outputs, dict):
            return outputs, {}
        endpoints = dict(outputs)
        features = endpoints.pop("default")
        architecture = next(iter(endpoints), "").rpartition("/")[0]
        if architecture:
            endpoints[f"{architecture}/feature_vector"] = features
        return features, endpoints

    def call(images: tf.Tensor, **values: typing.Any) -> typing.Any:
        features, endpoints = forward(images, **values)
        logits = scores(features)
        return {"default": logits, **endpoints} if values.get(_ENDPOINTS) else logits

    @tf.function(input_signature=[images], autograph=False)
    def logits(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": call(images, **_inference(module_options))}

    @tf.function(input_signature=[images], autograph=False)
    def logits_and_endpoints(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = _inference(module_options, endpoints=True)
        features, endpoints = forward(images, **values)
        return {"default": scores(features), **endpoints}

    @tf.function(input_signature=[images], autograph=False)
    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": forward(images, **_inference(module_options))[0]}

    root = _new_root()
    root.feature_vector = module
    root.variables = [*module.variables, *weights]
    root.trainable_variables = [*module.trainable_variables, *weights]
    root.regularization_losses = list(getattr(module, "regularization_losses", ()))
    root.__call__ = _traced(call, images, module_options)
    root.head = _new_root()
    root.head.variables = weights
    root.head.trainable_variables = weights
    root.head.regularization_losses = []
    root.head.__call__ = _traced(
        lambda features, training: scores(features),
        scores.input_signature[0],
        {"training": False},
    )
    root.class_index = tf.saved_model.Asset(str(class_index))
    return root, {
        "serving_default": logits,
        "image_classification": logits_and_endpoints,
        "image_feature_vector": features,
    }


def images_spec(module: typing.Any) -> tf.TensorSpec:
    """Returns the spec of a module's input, with the name `images`."""
    function = module.__call__.concrete_functions[0]
    spec = function.structured_input_signature[0][0]
    return tf.TensorSpec(spec.shape, spec.dtype, "images")


def options(module: typing.Any) -> dict[str, bool | float]:
    """Returns the defaults of the flags and hyperparameters of a module's call."""
    signature = module.__call__.function_spec.fullargspec
    defaults = dict(signature.kwonlydefaults or {})
    if signature.defaults:
        names = signature.args[-len(signature.defaults) :]
        defaults |= dict(zip(names, signature.defaults, strict=True))
    return {
        name: defaults[name]
        for name in [*signature.args, *signature.kwonlyargs]
        if isinstance(defaults.get(name), bool | float)
    }


def _inference(
    options: dict[str, bool | float], *, endpoints: bool = False
) -> dict[str, typing.Any]:
    """Returns the keyword arguments of a call for inference."""
    values = dict(options)
    if _ENDPOINTS in options:
        values[_ENDPOINTS] = endpoints
    return {
        name: tf.constant(value) if isinstance(value, float) else value
        for name, value in values.items()
    }


def _traced(
    function: typing.Callable, spec: tf.TensorSpec, options: dict[str, bool | float]
) -> typing.Any:
    """Returns a `__call__` with a trace for each combination of flags.

    Options that are numbers become scalar float32 tensors.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter(spec.name, kind),
            *(inspect.Parameter(n, kind, default=v) for n, v in options.items()),
        ]
    )

    def call(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return function(**{**bound.arguments})

    call.__signature__ = signature  # type: ignore[attr-defined]
    graph = tf.function(call, autograph=False)
    flags = [name for name, value in options.items() if isinstance(value, bool)]
    numbers = {n: tf.TensorSpec([], tf.float32, n) for n in options if n not in flags}
    for values in itertools.product((False, True), repeat=len(flags)):
        graph.get_concrete_function(
            spec, **dict(zip(flags, values, strict=True)), **numbers
        )
    return graph
