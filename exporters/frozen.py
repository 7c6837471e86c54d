"""Frozen inference functions, the input of format converters."""

from __future__ import annotations

import gc
import typing
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from exporters import fused
from zoo import model as zoo_model

OUTPUTS = {"feature_vector": "features", "classification": "logits"}


def freeze(
    model: zoo_model.ImageModel, kind: str, shape: Sequence[int | None]
) -> typing.Any:
    """Returns a concrete function of `images` with constants instead of variables.

    It has one output. Batch normalisation is folded into the kernels.
    """
    part = model.parts[kind]
    return fold(model, lambda images: part(images, training=False), shape)


def fold(
    model: zoo_model.ImageModel,
    function: Callable[[tf.Tensor], typing.Any],
    shape: Sequence[int | None],
) -> typing.Any:
    """Returns a concrete function like `freeze`, of any function of the model's parts.

    It returns the list of the function's flattened outputs.
    """
    gc.collect()  # graphs of earlier calls, which have reference cycles

    @tf.function(autograph=False)
    def infer(images: tf.Tensor) -> typing.Any:
        with fused.use_fused_ops(model.classifier, training=False, constant=True):
            return function(images)

    traced = infer.get_concrete_function(tf.TensorSpec(shape, tf.float32, "images"))
    return convert_to_constants.convert_variables_to_constants_v2(traced)
