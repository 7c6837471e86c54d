"""Builds the model of an export request, for all formats."""

from __future__ import annotations

import keras
import tensorflow as tf

from exporters import request as requests
from foundation import progress
from zoo import built_facts, facts
from zoo import model as zoo_model

_LOG = progress.logger(__name__)


def build(request: requests.Request) -> zoo_model.ImageModel:
    """Builds the model that the request describes.

    Raises:
      ValueError: the request is invalid.
    """
    # These override the user's keras.json, so that an export is the same everywhere.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    with zoo_model.bind(request.definition) as builder:
        model = builder.build(seed=request.seed)
    accepted = facts.ranges(request.definition.facts, only_size=model.spec.only_size)
    facts.check_image_size(accepted, request.arch, model.spec.image_size)
    if "matched" in model.weights:
        _LOG.info(f"weights: {model.weights['matched']}")
        for change in model.weights["overruled"]:
            _LOG.info(f"weights: {change}")
        if model.weights["assumed"]:
            _LOG.info(f"weights: {model.weights['assumed']}")
    _use_random_ops(model.classifier)
    _average_statistics_across_replicas(model.classifier)
    return model


def build_without_values(request: requests.Request) -> zoo_model.ImageModel:
    """Builds the model for its manifest: its variables have shapes, but no values."""
    with built_facts.without_values():
        return build(request)


def _average_statistics_across_replicas(model: keras.Model) -> None:
    """Marks moving statistics to be averaged across replicas when they are read.

    The SavedModel stores this, so a consumer's MirroredStrategy averages them when it
    loads the model. The code sets private attributes, since Keras' `add_weight` has no
    argument for it and TensorFlow has no public way to change a variable's.
    """
    for variable in model.non_trainable_weights:
        variable.value._synchronization = tf.VariableSynchronization.ON_READ
        variable.value._aggregation = tf.VariableAggregation.MEAN


def _use_random_ops(model: keras.Model) -> None:
    """Makes dropout layers draw their seeds from an op instead of a variable.

    Keras keeps the random state in a variable. It would be saved and listed in
    `variables`, and every training step of a consumer would write it.
    """

    def next_seed(ordered: bool = True) -> tf.Tensor:  # Keras passes `ordered`
        # With seeds of 0, the op seeds itself and ignores the process' global seed.
        draw = tf.raw_ops.RandomUniformInt(
            shape=[2], minval=0, maxval=2**31 - 1, seed=0, seed2=0
        )
        return tf.cast(draw, tf.uint32)

    for layer in model._flatten_layers():
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.next = next_seed
