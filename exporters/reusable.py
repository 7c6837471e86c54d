"""Objects that `tf.saved_model.save` writes as Reusable SavedModels.

Source: TensorFlow Hub's Reusable SavedModel interface, and its common SavedModel
APIs for image tasks.
"""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from zoo import model as zoo_model

IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
Function = Callable[..., tf.Tensor]
# What a plain `tf.Module` can't be: a root whose `variables` is a list that is saved.
_new_root = tf.__internal__.tracking.AutoTrackable
Savable = tuple[typing.Any, dict[str, tf.types.experimental.GenericFunction]]


def pair(
    model: zoo_model.ImageModel, *, class_index: pathlib.Path, record: pathlib.Path
) -> dict[str, Savable]:
    """Makes both halves of one model, with the backbone traced once for each mode.

    Args:
      model: whose variables become the roots'. Its random layers draw their seeds
        from an op from now on.
      class_index: a file that the classifier carries as `assets/NAME`.
      record: one that both carry, on into copies that consumers save.

    Returns:
      The root object and the signatures of each kind of model.
    """
    _use_random_ops(model.classifier)
    _use_means_of_replicas(model.classifier)
    features_spec = tf.TensorSpec([None, model.num_features], tf.float32)
    features_of = _traced(model.feature_vector, IMAGES)
    logits_of = _traced(model.head, features_spec)

    # The names of the arguments are what consumers may write.
    def vector(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return features_of(images, training=training)

    def head(features: tf.Tensor, training: bool = False) -> tf.Tensor:
        return logits_of(features, training=training)

    def logits(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return head(vector(images, training=training), training=training)

    features = _root(model, model.feature_vector, vector, IMAGES)
    classifier = _root(model, model.classifier, logits, IMAGES)
    classifier.head = _root(model, model.head, head, features_spec)
    classifier.class_index = tf.saved_model.Asset(str(class_index))
    for root in (features, classifier):
        root.record = tf.saved_model.Asset(str(record))
    features_signature = {"image_feature_vector": _signature(vector)}
    return {
        "feature_vector": (
            features,
            {"serving_default": _signature(vector), **features_signature},
        ),
        "classification": (
            classifier,
            {
                "serving_default": _signature(logits),
                "image_classification": _signature(logits),
                **features_signature,
            },
        ),
    }


def _traced(
    model: keras.Model, spec: tf.TensorSpec
) -> tf.types.experimental.GenericFunction:
    """`model` as a function with one trace for each mode, shared by all callers."""

    @tf.function(autograph=False)
    def function(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return model(inputs, training=training)

    for training in (False, True):
        function.get_concrete_function(spec, training=training)
    return function


def _root(
    model: zoo_model.ImageModel,
    part: keras.Model,
    function: Function,
    spec: tf.TensorSpec,
) -> typing.Any:
    """The interface around `function`, which computes `part` of the model."""
    call = tf.function(function, autograph=False)
    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    root = _new_root()
    root.__call__ = call
    root.variables = [variable.value for variable in part.weights]
    root.trainable_variables = [v.value for v in part.trainable_weights]
    decayed = [variable.value for variable in model.decayed(part)]
    losses = [_l2_loss(decayed, model.weight_decay)] if decayed else []
    root.regularization_losses = losses
    return root


def _l2_loss(
    variables: Sequence[tf.Variable], scale: float
) -> tf.types.experimental.GenericFunction:
    """Scale · sum(w²) / 2 over all variables, as a function of no inputs."""

    @tf.function(input_signature=[], autograph=False)
    def loss() -> tf.Tensor:
        return scale * tf.add_n([tf.nn.l2_loss(variable) for variable in variables])

    return loss


def _signature(function: Function) -> tf.types.experimental.GenericFunction:
    """A named signature: `images` to `default`, inference only."""

    @tf.function(input_signature=[IMAGES], autograph=False)
    def signature(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(images, training=False)}

    return signature


def _use_means_of_replicas(model: keras.Model) -> None:
    """Lets batch statistics be read across replicas as the mean of theirs.

    So a consumer's MirroredStrategy makes them. Keras' `add_weight` takes no
    `synchronization`, and TensorFlow none after a variable is made.
    """
    for variable in model.non_trainable_weights:
        variable.value._synchronization = tf.VariableSynchronization.ON_READ
        variable.value._aggregation = tf.VariableAggregation.MEAN


def _use_random_ops(model: keras.Model) -> None:
    """Lets dropout and its kin draw their seeds from an op instead of a variable.

    Keras keeps a random state in a variable, which would be saved, listed, and
    written by every training step of a consumer.
    """

    def next_seed(ordered: bool = True) -> tf.Tensor:
        # Seeds of 0 tell the op to seed itself, whatever the process set globally.
        draw = tf.raw_ops.RandomUniformInt(
            shape=[2], minval=0, maxval=2**31 - 1, seed=0, seed2=0
        )
        return tf.cast(draw, tf.uint32)

    for layer in model._flatten_layers():
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.next = next_seed
