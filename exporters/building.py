"""Builds the model that a request describes, as every format of export writes it."""

from __future__ import annotations

import keras
import tensorflow as tf

from common import progress
from exporters import request as requests
from zoo import facts
from zoo import model as zoo_model

_LOG = progress.logger(__name__)


def build(request: requests.Request) -> zoo_model.ImageModel:
    """The model that the request describes, as every format writes it.

    Raises:
      ValueError: it can't be built.
    """
    # Whatever the user's keras.json says: an export is the same everywhere.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    model = zoo_model.build(
        request.arch,
        weights=request.weights,
        seed=request.seed,
        gin_files=request.gin_files,
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    known = facts.load(request.arch)
    for name in ("height_range", "width_range"):
        low, high = facts.value(known, name)
        if not low <= model.spec.image_size <= high:
            raise ValueError(
                f"image_size must be in the {name} of {request.arch}, {low} to {high}, "
                f"not {model.spec.image_size}."
            )
    if "matched" in model.weights:
        _LOG.info(f"weights: {model.weights['matched']}")
        for change in model.weights["overruled"]:
            _LOG.info(f"weights: {change}")
        if model.weights["assumed"]:
            _LOG.info(f"weights: {model.weights['assumed']}")
    _use_random_ops(model.classifier)
    _use_means_of_replicas(model.classifier)
    return model


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
