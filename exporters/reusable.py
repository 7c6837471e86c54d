"""Objects that `tf.saved_model.save` writes as Reusable SavedModels.

Source: TensorFlow Hub's Reusable SavedModel interface, and its common SavedModel
APIs for image tasks.
"""

from __future__ import annotations

import dataclasses
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

IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
FLAGS = {"training": False, "return_endpoints": False}
Function = Callable[..., typing.Any]
Graph: typing.TypeAlias = tf.types.experimental.GenericFunction
# What a plain `tf.Module` can't be: a root whose `variables` is a list that is saved.
_new_root = tf.__internal__.tracking.AutoTrackable
Savable = tuple[typing.Any, dict[str, Graph]]


def pair(
    model: zoo_model.ImageModel, *, class_index: pathlib.Path, record: pathlib.Path
) -> dict[str, Savable]:
    """Makes both halves of one model, with the backbone traced once for each mode.

    Args:
      model: whose variables become the roots'.
      class_index: a file that the classifier carries as `assets/NAME`.
      record: one that both carry, on into copies that consumers save.

    Returns:
      The root object and the signatures of each kind of model.
    """
    features_spec = tf.TensorSpec([None, model.num_features], tf.float32, "features")
    for_backbone = hyperparameters.defaults(model.backbone)
    for_head = hyperparameters.defaults(model.head)
    backbone = _traced(model.backbone, model.endpoints, IMAGES, for_backbone)
    head = _traced(model.head, model.head, features_spec, for_head)
    architecture = type(model.spec).__name__
    size = model.spec.image_size
    preprocessing = model_input.Preprocessing(
        height=size, width=size, **dataclasses.asdict(model.preprocessing)
    )
    preprocess = preprocessing.named_callable()

    def vector(
        images: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        return output_names.of_features(
            architecture, backbone(images, training, **values)
        )

    def scores(
        features: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        return {"default": head(features, training, **values)}

    def logits(
        images: tf.Tensor, training: bool, **values: tf.Tensor
    ) -> output_names.Outputs:
        of_head = {name: values.pop(name) for name in for_head if name in values}
        endpoints = backbone(images, training, **values)
        found = head(endpoints["feature_vector"], training, **of_head)
        return output_names.of_scores(architecture, endpoints, found)

    features = _root(model, model.feature_vector)
    features.__call__ = _call(vector, IMAGES, {**FLAGS, **for_backbone})
    classifier = _root(model, model.classifier)
    classifier.__call__ = _call(logits, IMAGES, {**FLAGS, **for_backbone, **for_head})
    classifier.head = _root(model, model.head)
    classifier.head.__call__ = _call(
        scores, features_spec, {"training": False, **for_head}
    )
    classifier.class_index = tf.saved_model.Asset(str(class_index))
    for root in (features, classifier):
        root.record = tf.saved_model.Asset(str(record))
        root.preprocess = preprocess

    def from_bytes(function: Function) -> Graph:
        return model_input.bytes_signature(
            preprocess.__call__, lambda images: function(images, False)["default"]
        )

    features_signature = {"image_feature_vector": _signature(vector)}
    return {
        "feature_vector": (
            features,
            {
                "serving_default": _signature(vector, "default"),
                "image_bytes": from_bytes(vector),
                **features_signature,
            },
        ),
        "classification": (
            classifier,
            {
                "serving_default": _signature(logits, "default"),
                "image_bytes": from_bytes(logits),
                "image_classification": _signature(logits),
                **features_signature,
            },
        ),
    }


def _traced(
    part: keras.Model,
    function: Function,
    spec: tf.TensorSpec,
    names: Iterable[str],
) -> Function:
    """`function`, which calls `part`, as one concrete function for each mode.

    All that call it share these, nested; a tf.function would be traced anew for each
    SavedModel. Hyperparameters, by their names, are inputs of training alone.
    """

    def traced(training: bool) -> Graph:
        @tf.function(autograph=False)
        def function_in_mode(inputs: tf.Tensor, **values: tf.Tensor) -> typing.Any:
            with (
                hyperparameters.replaced(part, values),
                fused.replaced(part, training=training),
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
    return {name: tf.TensorSpec([], tf.float32, name) for name in names}


def _call(
    function: Function, spec: tf.TensorSpec, options: Mapping[str, bool | float]
) -> Graph:
    """A `__call__` that gives what `function` gives under `default`, or all of it.

    Args:
      function: of inputs, training and hyperparameters.
      spec: of the one required argument.
      options: the further arguments and their defaults. Flags are traced for both
        values and each combination, numbers as scalar Tensors.
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
        found = function(inputs, training, **values)
        return found if return_endpoints else found["default"]

    # The names of the arguments are what consumers may write.
    call.__signature__ = signature  # type: ignore[attr-defined]
    graph = tf.function(call, autograph=False)
    flags = [name for name, value in options.items() if isinstance(value, bool)]
    numbers = _scalars(name for name in options if name not in flags)
    # Traced elsewhere, tf.saved_model.save would trace them anew.
    with save_context.save_context(tf.saved_model.SaveOptions()):
        for values in itertools.product((False, True), repeat=len(flags)):
            graph.get_concrete_function(
                spec, **dict(zip(flags, values, strict=True)), **numbers
            )
    return graph


def _root(model: zoo_model.ImageModel, part: keras.Model) -> typing.Any:
    """The lists of the interface, for what computes `part` of the model."""
    root = _new_root()
    root.variables = [variable.value for variable in part.weights]
    root.trainable_variables = [v.value for v in part.trainable_weights]
    root.regularization_losses = regularization_losses(model, part)
    return root


def regularization_losses(
    model: zoo_model.ImageModel, part: keras.Model
) -> list[Graph]:
    """Weight decay · sum(w²) / 2 over the decayed variables, as functions of no inputs.

    One at most: none where there is nothing to decay.
    """
    decayed = [variable.value for variable in model.decayed(part)]

    @tf.function(input_signature=[], autograph=False)
    def loss() -> tf.Tensor:
        return model.weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in decayed])

    return [loss] if decayed else []


def _signature(function: Function, *keys: str) -> Graph:
    """A named signature: `images` to what `function` gives under `keys`, or to all."""

    @tf.function(input_signature=[IMAGES], autograph=False)
    def signature(images: tf.Tensor) -> output_names.Outputs:
        found = function(images, False)
        return {key: found[key] for key in keys or found}

    return signature.get_concrete_function()
