"""Builds the objects that `tf.saved_model.save` writes as Reusable SavedModels.

Source: TensorFlow Hub's Reusable SavedModel interface, and its common SavedModel
APIs for image tasks.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import pathlib
import typing
from collections.abc import Callable, Iterable, Mapping

import keras
import tensorflow as tf
from tensorflow.python.saved_model import save_context

from exporters import fused, hyperparameters, output_names
from images import model_input
from zoo import model as zoo_model

FLAGS = {"training": False, "return_endpoints": False}
Function = Callable[..., typing.Any]
Graph: typing.TypeAlias = tf.types.experimental.GenericFunction
# Unlike `tf.Module`, this class can have a saved list `variables` as an attribute.
_new_root = tf.__internal__.tracking.AutoTrackable
Savable = tuple[typing.Any, dict[str, Graph]]


def build_pair(
    model: zoo_model.ImageModel, *, class_index: pathlib.Path, record: pathlib.Path
) -> dict[str, Savable]:
    """Builds the feature-vector model and the classifier as objects to save.

    The backbone is traced once for each mode, and both share the traces.

    Args:
      model: model whose variables the root objects use.
      class_index: file that the classifier stores as `assets/NAME`.
      record: weights record that both models store as an asset. Copies that consumers
        save contain it, too.

    Returns:
      The root object and the signatures, by kind.
    """
    backbone_defaults = hyperparameters.defaults(model.backbone)
    head_defaults = hyperparameters.defaults(model.head)
    images_spec = tf.TensorSpec([None, *model.spec.input_shape], tf.float32, "images")

    def endpoints(images: tf.Tensor, training: bool) -> typing.Any:
        if model.spec.only_size:  # signatures don't check the shapes of their inputs
            images = tf.ensure_shape(images, images_spec.shape)
        return model.endpoints(images, training=training)

    backbone = _traced(model.backbone, endpoints, images_spec, backbone_defaults)
    head_input = _head_input(model)
    head = _traced(model.head, model.head, head_input, head_defaults)
    architecture = type(model.spec).__name__
    size = model.spec.image_size
    preprocessing = model_input.Preprocessing(
        height=size, width=size, **dataclasses.asdict(model.preprocessing)
    )
    preprocess = preprocessing.named_callable()

    def vector(
        images: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        return output_names.feature_vector_outputs(
            architecture, backbone(images, training, **values)
        )

    def scores(
        features: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        return {"default": head(features, training, **values)}

    def logits(
        images: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        head_values = {n: values[n] for n in head_defaults if n in values}
        backbone_values = {n: values[n] for n in backbone_defaults if n in values}
        endpoints = backbone(images, training, **backbone_values)
        head_output = head(endpoints[model.head_input], training, **head_values)
        return output_names.classifier_outputs(architecture, endpoints, head_output)

    features = _root(model, model.feature_vector)
    features.__call__ = _call(vector, images_spec, {**FLAGS, **backbone_defaults})
    classifier = _root(model, model.classifier)
    classifier.__call__ = _call(
        logits, images_spec, {**FLAGS, **backbone_defaults, **head_defaults}
    )
    classifier.head = _root(model, model.head)
    classifier.head.__call__ = _call(
        scores, head_input, {"training": False, **head_defaults}
    )
    classifier.class_index = tf.saved_model.Asset(str(class_index))
    for root in (features, classifier):
        root.record = tf.saved_model.Asset(str(record))
        root.preprocess = preprocess

    def from_bytes(function: Function) -> Graph:
        return model_input.bytes_signature(
            preprocess.__call__, lambda images: function(images, False)["default"]
        )

    signature = functools.partial(_signature, images_spec)
    features_signature = {"image_feature_vector": signature(vector)}
    return {
        "feature_vector": (
            features,
            {
                "serving_default": signature(vector, "default"),
                "image_bytes": from_bytes(vector),
                **features_signature,
            },
        ),
        "classification": (
            classifier,
            {
                "serving_default": signature(logits, "default"),
                "image_bytes": from_bytes(logits),
                "image_classification": signature(logits),
                **features_signature,
            },
        ),
    }


def _head_input(model: zoo_model.ImageModel) -> tf.TensorSpec:
    """Returns the head's argument: `features`, or the name of another endpoint."""
    endpoint = model.head_input
    name = "features" if endpoint == "feature_vector" else endpoint
    return tf.TensorSpec(model.head.input.shape, tf.float32, name)


def _traced(
    part: keras.Model,
    function: Function,
    spec: tf.TensorSpec,
    names: Iterable[str],
) -> Function:
    """Traces `function`, which calls `part`, as one concrete function for each mode.

    All callers share these traces as nested functions; a tf.function would be traced
    again for each SavedModel. The hyperparameters `names` are inputs in training mode
    only.
    """

    def traced(training: bool) -> Graph:
        @tf.function(autograph=False)
        def function_in_mode(inputs: tf.Tensor, **values: tf.Tensor) -> typing.Any:
            with (
                hyperparameters.override(part, values),
                fused.use_fused_ops(part, training=training),
            ):
                return function(inputs, training=training)

        return function_in_mode.get_concrete_function(
            spec, **(_scalars(names) if training else {})
        )

    modes = {training: traced(training) for training in (False, True)}

    def call(inputs: tf.Tensor, training: bool, **values: tf.Tensor) -> typing.Any:
        return modes[training](inputs, **(values if training else {}))

    return call


def _scalars(names: Iterable[str]) -> dict[str, tf.TensorSpec]:
    """Returns specs of scalar float32 arguments, by name."""
    return {name: tf.TensorSpec([], tf.float32, name) for name in names}


def _call(
    function: Function, spec: tf.TensorSpec, options: Mapping[str, bool | float]
) -> Graph:
    """Builds a `__call__` that returns the `default` output of `function`.

    With `return_endpoints=True` it returns all outputs.

    Args:
      function: function of inputs, training and hyperparameters.
      spec: spec of the only required argument.
      options: optional arguments with their defaults. Every combination of the bools is
        traced; numbers become scalar Tensors.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter(spec.name, kind),
            *(
                inspect.Parameter(n, kind, default=value)
                for n, value in options.items()
            ),
        ]
    )

    def call(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        inputs, training = values.pop(spec.name), values.pop("training")
        return_endpoints = values.pop("return_endpoints", False)
        outputs = function(inputs, training, **values)
        return outputs if return_endpoints else outputs["default"]

    # Consumers can pass arguments by these names.
    call.__signature__ = signature  # type: ignore[attr-defined]
    graph = tf.function(call, autograph=False)
    flags = [name for name, value in options.items() if isinstance(value, bool)]
    numbers = _scalars(name for name in options if name not in flags)
    # Outside of this context, tf.saved_model.save would trace the function again.
    with save_context.save_context(tf.saved_model.SaveOptions()):
        for values in itertools.product((False, True), repeat=len(flags)):
            graph.get_concrete_function(
                spec, **dict(zip(flags, values, strict=True)), **numbers
            )
    return graph


def _root(model: zoo_model.ImageModel, part: keras.Model) -> typing.Any:
    """Builds a root object with the lists of the interface for a part of the model."""
    root = _new_root()
    root.variables = [variable.value for variable in part.weights]
    root.trainable_variables = [v.value for v in part.trainable_weights]
    root.regularization_losses = regularization_losses(model, part)
    return root


def regularization_losses(
    model: zoo_model.ImageModel, part: keras.Model
) -> list[Graph]:
    """Returns the regularization losses as functions without inputs.

    There is one function, weight decay · sum(w²) / 2 over the decayed variables, or
    none if `part` has no decayed variables.
    """
    decayed = [variable.value for variable in model.decayed(part)]

    @tf.function(input_signature=[], autograph=False)
    def loss() -> tf.Tensor:
        return model.weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in decayed])

    return [loss] if decayed else []


def _signature(spec: tf.TensorSpec, function: Function, *keys: str) -> Graph:
    """Builds a signature of `images` that returns the outputs `keys`, or all."""

    @tf.function(input_signature=[spec], autograph=False)
    def signature(images: tf.Tensor) -> output_names.Outputs:
        outputs = function(images, False)
        return {key: outputs[key] for key in keys or outputs}

    return signature.get_concrete_function()
