"""Counts what a model computes: multiply-adds, and the shapes of its endpoints."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from conformance import model_under_test


def multiply_adds(model: model_under_test.ModelUnderTest, *, side: int) -> int:
    """Multiplications and additions, as one each, for one image in inference.

    Counted are convolutions and matrix products, at every place of their output,
    padding included.

    Args:
      model: that can be called with images.
      side: height and width of the image in pixels.
    """
    graph = _static_graph(model, side)
    return sum(_of(op) for op in graph.get_operations())


def endpoints(
    model: model_under_test.ModelUnderTest, *, side: int
) -> dict[str, list[int]]:
    """Shapes of what `return_endpoints=True` gives, without the batch, by name.

    Empty where a call takes no such argument, or it does not work.
    """
    images = model.images(1, size=(side, side))
    try:
        found = model.obj(images, training=False, return_endpoints=True)
    except (TypeError, ValueError):
        return {}
    return {name: value.shape[1:].as_list() for name, value in found.items()}


def _static_graph(model: model_under_test.ModelUnderTest, side: int) -> tf.Graph:
    """One call for one image, its functions inlined, all shapes known."""
    spec = tf.TensorSpec(model.images(1, size=(side, side)).shape, tf.float32)
    call = tf.function(lambda x: model.call_eagerly(x, training=False))
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        call.get_concrete_function(spec)
    )
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
    return graph


def _of(op: Any) -> int:
    if op.type == "Conv2D":
        return _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:3])
    if op.type == "DepthwiseConv2dNative":
        return _size(op.outputs[0]) * math.prod(op.inputs[1].shape[:2])
    if op.type == "MatMul":
        return _size(op.outputs[0]) * op.inputs[0].shape[not op.get_attr("transpose_a")]
    if op.type.startswith("BatchMatMul"):
        return _size(op.outputs[0]) * op.inputs[0].shape[-1 - op.get_attr("adj_x")]
    if op.type == "Einsum":
        return _of_einsum(op)
    return 0


def _of_einsum(op: Any) -> int:
    """The product of the sizes of all its indices."""
    inputs, _ = op.get_attr("equation").decode().split("->")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(inputs.split(","), op.inputs, strict=True):
        sizes.update(zip(letters, tensor.shape.as_list(), strict=True))
    return math.prod(sizes.values())


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape.as_list())
