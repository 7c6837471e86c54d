"""Multiply-adds, counted from the layers."""

from __future__ import annotations

import math
import typing

import keras

Shape = tuple[int, ...]


def multiply_adds(model: keras.Model, *, input_shape: Shape) -> int:
    """Multiplications and additions, as one each, for one image.

    Every value of a kernel counts once at every place of its layer's output, padding
    included; biases, batch norm, activations and pooling count nothing. A layer for
    which that is not so has a method `multiply_adds(input_shape)`.

    Args:
      model: functional, with one input, of layers with one output each.
      input_shape: of the model without the batch, such as (224, 224, 3).

    Raises:
      ValueError: there are more than layers in it, or a layer has more than one
        output, or says no output shape.
    """
    shapes: dict[int, Shape] = {id(model.input): (1, *input_shape)}
    total = 0
    for layer in model.layers:
        if layer.output is model.input:
            continue
        inputs = _input_shapes(layer, shapes)
        output = _output_shape(layer, inputs)
        shapes[id(layer.output)] = output
        total += _of_layer(layer, inputs, output)
    return total


def _input_shapes(layer: keras.layers.Layer, shapes: dict[int, Shape]) -> typing.Any:
    try:
        if isinstance(layer.input, list):
            return [shapes[id(tensor)] for tensor in layer.input]
        return shapes[id(layer.input)]
    except KeyError as error:
        raise ValueError(
            f"{layer.name} takes what no layer puts out: write layers where there are "
            "bare keras.ops."
        ) from error


def _output_shape(layer: keras.layers.Layer, inputs: typing.Any) -> Shape:
    try:
        shape = layer.compute_output_shape(inputs)
    except NotImplementedError as error:
        raise ValueError(f"{layer.name} needs a compute_output_shape().") from error
    if not isinstance(layer.output, keras.KerasTensor):
        raise ValueError(f"{layer.name} must have one output, not {layer.output}.")
    return shape


def _of_layer(layer: keras.layers.Layer, inputs: typing.Any, output: Shape) -> int:
    if hasattr(layer, "multiply_adds"):
        return layer.multiply_adds(inputs)
    kernels = [w for w in layer.weights if w.path.endswith("/kernel")]
    return sum(math.prod((*output[:-1], *kernel.shape)) for kernel in kernels)
