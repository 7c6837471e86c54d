"""Counts a model's multiply-adds and reads the shapes of its endpoints.

Counting from the graph is independent of `zoo.multiply_adds`, which counts from layers,
so that clause D05 can find errors there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from conformance import model_under_test

_SHAPE_OPS = ("Shape", "ShapeN", "Size", "Rank")  # of any values


def multiply_adds(model: model_under_test.ModelUnderTest, *, side: int) -> int:
    """Counts the multiply-adds of inference on one image.

    One multiplication with its addition counts as one. Convolutions and matrix
    products count, at every position of their output, including products with padding.
    Those that do not depend on the pixels, such as the interpolation of a position
    embedding, are left out: they are the same for all images of a batch.

    Args:
      model: a model that can be called with images.
      side: height and width of the image in pixels.
    """
    graph = _static_graph(model, side)
    return sum(_multiply_adds_of_op(op) for op in _ops_on_pixels(graph))


def endpoints(
    model: model_under_test.ModelUnderTest, *, side: int
) -> dict[str, list[int]]:
    """Returns the shape of each endpoint without its batch dimension, by name.

    The result is empty if a call with `return_endpoints=True` does not work.

    Args:
      model: a model that can be called with images.
      side: height and width of the image in pixels.
    """
    images = model.images(1, size=(side, side))
    try:
        tensors = model.obj(images, training=False, return_endpoints=True)
    except (TypeError, ValueError):
        return {}
    return {name: value.shape[1:].as_list() for name, value in tensors.items()}


def _static_graph(model: model_under_test.ModelUnderTest, side: int) -> tf.Graph:
    """Returns the graph of a call with one image: functions inlined, static shapes."""
    spec = tf.TensorSpec(model.images(1, size=(side, side)).shape, tf.float32)
    call = tf.function(lambda x: model.call_eagerly(x, training=False))
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        call.get_concrete_function(spec)
    )
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
    return graph


def _ops_on_pixels(graph: tf.Graph) -> Iterator[Any]:
    """Yields the ops whose outputs depend on the values of the images."""
    reached: set[Any] = set()
    for op in graph.get_operations():  # in an order in which inputs come first
        depends = any(tensor.ref() in reached for tensor in op.inputs)
        if op.type == "Placeholder" or (depends and op.type not in _SHAPE_OPS):
            reached.update(tensor.ref() for tensor in op.outputs)
            yield op


def _multiply_adds_of_op(op: Any) -> int:
    if op.type == "Conv2D":
        return _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:3])
    if op.type == "DepthwiseConv2dNative":
        return _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:2])
    if op.type == "MatMul":
        return _size(op.outputs[0]) * op.inputs[0].shape[not op.get_attr("transpose_a")]
    if op.type.startswith("BatchMatMul"):
        return _size(op.outputs[0]) * op.inputs[0].shape[-1 - op.get_attr("adj_x")]
    if op.type == "Einsum":
        return _multiply_adds_of_einsum(op)
    return 0


def _multiply_adds_of_einsum(op: Any) -> int:
    """Returns the product of the sizes of all indices in the equation."""
    inputs, _ = op.get_attr("equation").decode().split("->")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(inputs.split(","), op.inputs, strict=True):
        sizes.update(zip(letters, tensor.shape.as_list(), strict=True))
    return math.prod(sizes.values())


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape.as_list())
