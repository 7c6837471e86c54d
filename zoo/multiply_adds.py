"""Counts the multiply-adds of a model from its layers."""

from __future__ import annotations

import math
import typing

import keras

Shape = tuple[int, ...]


def multiply_adds(model: keras.Model, *, input_shape: Shape) -> int:
    """Counts the multiply-adds of a model for one image.

    A multiplication and the addition after it count as one. Every kernel value counts
    once at every position of its layer's output, padding included; biases, batch norm,
    activations and pooling are not counted. A layer with other costs defines a method
    `multiply_adds(input_shape)`.

    Args:
      model: functional model with one input; each of its layers has one output.
      input_shape: input shape without the batch, such as (224, 224, 3).

    Raises:
      ValueError: the graph has ops outside layers, or a layer has several outputs, does
        not compute its output shape, or has matrices that are not called `kernel`.
    """
    shapes: dict[int, Shape] = {id(model.input): (1, *input_shape)}
    total = 0
    for layer in model.layers:
        if layer.output is model.input:
            continue
        inputs = _input_shapes(layer, shapes)
        output = _output_shape(layer, inputs)
        shapes[id(layer.output)] = output
        total += _layer_multiply_adds(layer, inputs, output)
    return total


def _input_shapes(layer: keras.layers.Layer, shapes: dict[int, Shape]) -> typing.Any:
    try:
        if isinstance(layer.input, list):
            return [shapes[id(tensor)] for tensor in layer.input]
        return shapes[id(layer.input)]
    except KeyError as error:
        raise ValueError(
            f"{layer.name} has an input that is not the output of a layer: replace "
            "bare keras.ops with layers."
        ) from error


def _output_shape(layer: keras.layers.Layer, inputs: typing.Any) -> Shape:
    try:
        shape = layer.compute_output_shape(inputs)
    except NotImplementedError as error:
        raise ValueError(f"{layer.name} must define compute_output_shape().") from error
    if not isinstance(layer.output, keras.KerasTensor):
        raise ValueError(f"{layer.name} must have one output, not {layer.output}.")
    return shape


def _layer_multiply_adds(
    layer: keras.layers.Layer, inputs: typing.Any, output: Shape
) -> int:
    if hasattr(layer, "multiply_adds"):
        return layer.multiply_adds(inputs)
    kernels = [w for w in layer.weights if len(w.shape) > 1]
    others = [w.path for w in kernels if not w.path.endswith("/kernel")]
    if others:
        raise ValueError(
            f"{layer.name} must define multiply_adds(input_shape): {others[0]} is not "
            "called kernel."
        )
    return sum(math.prod((*output[:-1], *kernel.shape)) for kernel in kernels)
