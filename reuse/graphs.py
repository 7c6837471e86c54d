"""Reads from a model's graph how it scales its input and which op computes its output.

The graph of a model without a manifest may still show that the model divides its input
by 255, or that its outputs are probabilities.
"""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

RELU, SIGMOID, SOFTMAX = "Relu", "Sigmoid", "Softmax"  # op types

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Ops that change only the form of the values in their first input.
_SAME_VALUES = {
    *("Identity", "IdentityN", "StopGradient", "EnsureShape", "Cast", "Reshape"),
    *("Squeeze", "ExpandDims", "PreventGradient", "CheckNumerics", "Snapshot"),
}
# Between the images and the first layer, also ops that reorder channels, pad, crop or
# resize: they keep the scale.
_SAME_SCALE = {
    *(*_SAME_VALUES, "Transpose", "ReverseV2", "Pad", "PadV2", "StridedSlice"),
    *("ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor", "ResizeArea"),
    *("ScaleAndTranslate", "CropAndResize"),
}
_BINARY: Mapping[str, Callable[..., typing.Any]] = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd"), np.add),
    **dict.fromkeys(("RealDiv", "Div", "DivNoNan"), np.divide),
    "Mul": np.multiply,
    "Sub": np.subtract,
    "Maximum": np.maximum,
}
_UNARY: Mapping[str, Callable[..., typing.Any]] = {
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Neg": np.negative,
    "Square": np.square,
}


def final_op(function: typing.Any, output: str | None = None) -> str:
    """Returns the type of the op that computes an output, such as `Softmax`.

    Means are passed over: those of probabilities are probabilities.

    Args:
      function: a TensorFlow concrete function.
      output: key of the output; None for a function with a single output.
    """
    node, _, _ = _source(*_output(function, output), skipped={*_SAME_VALUES, "Mean"})
    return node.op if node is not None else ""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The scaling that a model applies to its images: scale * image + offset.

    Attributes:
      scale: the factor of each channel, or one for all channels.
      offset: the summand of each channel, or one for all channels.
    """

    scale: np.ndarray
    offset: np.ndarray

    @property
    def input_range(self) -> tuple[float, float] | None:
        """The range of pixel values that the scaling implies; None if it is unclear.

        The first layer of a network takes values of the order of 1, around 0.
        """
        scale = float(np.max(np.abs(self.scale)))
        zero = float(np.mean(-self.offset / self.scale))
        if scale < 1 / 32 or 16 < zero < 255:
            return 0.0, 255.0
        if scale > 1.5 or (zero and 0 <= zero <= 1):
            return 0.0, 1.0
        return None


def find_scaling(function: typing.Any, output: str | None = None) -> Scaling | None:
    """Returns how a model scales its images, or None if its graph does not show it.

    Args:
      function: a TensorFlow concrete function with one input besides its captures.
      output: as for `final_op`.
    """
    seen: set[tuple[int, str]] = set()
    pending = collections.deque([_output(function, output)])
    while pending:
        node, scope, _ = _source(*pending.popleft())
        if node is None or (id(scope), node.name) in seen:
            continue
        seen.add((id(scope), node.name))
        inputs = _data_inputs(node)
        pending.extend((scope, name) for name in inputs)
        if inputs and not _is_affine(node.op):
            value = _affine(scope, inputs[0])
            if isinstance(value, Scaling):
                return value
    return None


def _is_affine(op: str) -> bool:
    return op in _SAME_SCALE or op in _BINARY or op in ("Shape", "Size", "Rank")


class _Scope:
    """The nodes of a graph or of a function body, and the values of its arguments.

    Attributes:
      nodes: the nodes by name.
      library: the functions that nodes may call, by name.
      arguments: by name. For a function body, the caller's scope and tensor; for a
        graph, variables, constants and the images.
      affine: cached results of `_affine`, by the name of the tensor.
    """

    def __init__(
        self, nodes: typing.Any, library: Mapping[str, typing.Any], arguments: dict
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.library, self.arguments = library, arguments
        self.affine: dict[str, Scaling | np.ndarray | None] = {}
        self._inner: dict[str, _Scope] = {}

    def enter_call(self, node: typing.Any) -> tuple[_Scope, typing.Any]:
        """Returns the scope of the function that a node calls, and its definition."""
        body = self.library[node.attr["f"].func.name]
        if node.name not in self._inner:
            names = [argument.name for argument in body.signature.input_arg]
            inputs = [(self, name) for name in _data_inputs(node)]
            arguments = dict(zip(names, inputs, strict=True))
            self._inner[node.name] = _Scope(body.node_def, self.library, arguments)
        return self._inner[node.name], body


_IMAGES = object()
"""Placeholder for the images that a model takes."""


def _output(function: typing.Any, output: str | None) -> tuple[_Scope, str]:
    """Returns the outermost scope of a function, and the name of one of its outputs."""
    graph = function.graph.as_graph_def()
    library = {body.signature.name: body for body in graph.library.function}
    variables = {id(v.handle): v for v in function.variables}
    arguments: dict[str, typing.Any] = {}
    for outside, inside in function.graph.captures:
        arguments[inside.op.name] = variables.get(id(outside), outside)
    for tensor in function.graph.inputs:
        arguments.setdefault(tensor.op.name, _IMAGES)
    scope = _Scope(graph.node, library, arguments)
    structured = function.structured_outputs
    tensors = tf.nest.flatten(structured)
    if output is not None:
        index = sorted(structured).index(output)
        return scope, function.outputs[index].name
    return scope, function.outputs[: len(tensors)][0].name


def _source(
    scope: _Scope, tensor: str, *, skipped: typing.Container[str] = ()
) -> tuple[typing.Any, _Scope, str]:
    """Returns the node that computes a tensor, its scope and the tensor's name there.

    Follows tensors into the functions that nodes call, and through ops in `skipped`.
    The node is None for inputs and captures of the outermost function.
    """
    while True:
        name, _, suffix = tensor.partition(":")
        argument = scope.arguments.get(name)
        if isinstance(argument, tuple):
            scope, tensor = argument
            continue
        if name in scope.arguments:
            return None, scope, tensor
        node = scope.nodes[name]
        if node.op in _CALLS:
            scope, body = scope.enter_call(node)
            number = int(suffix.rpartition(":")[2] or 0)
            tensor = body.ret[body.signature.output_arg[number].name]
        elif node.op in skipped:
            tensor = _data_inputs(node)[0]
        else:
            return node, scope, tensor


def _affine(scope: _Scope, tensor: str) -> Scaling | np.ndarray | None:
    """Returns a tensor as an affine function of the images, or its constant value.

    Returns None if it is neither.
    """
    node, scope, tensor = _source(scope, tensor)
    if tensor not in scope.affine:
        scope.affine[tensor] = _compute_affine(node, scope, tensor)
    return scope.affine[tensor]


def _compute_affine(
    node: typing.Any, scope: _Scope, tensor: str
) -> Scaling | np.ndarray | None:
    """Computes the result of `_affine` for a tensor that is not in the cache."""
    if node is None:
        argument = scope.arguments[tensor.partition(":")[0]]
        if argument is _IMAGES:
            return Scaling(np.ones(()), np.zeros(()))
        is_value = argument.dtype.is_floating or argument.dtype.is_integer
        return argument.numpy() if is_value else None
    if node.op == "Const":
        return tf.make_ndarray(node.attr["value"].tensor)
    operands = []
    for name in _operands(node):
        operand = _affine(scope, name)
        if operand is None:
            return None
        operands.append(operand)
    if not operands:
        return None
    if node.op in _SAME_SCALE or node.op == "ReadVariableOp":
        return operands[0]
    if node.op in _BINARY:
        return _combine(node.op, *operands)
    if node.op in _UNARY and isinstance(operands[0], np.ndarray):
        return np.asarray(_UNARY[node.op](operands[0]))
    return None


def _operands(node: typing.Any) -> Iterator[str]:
    """Yields all inputs of a binary op, or the first input of any other op."""
    inputs = _data_inputs(node)
    yield from inputs if node.op in _BINARY else inputs[:1]


def _combine(
    op: str, left: Scaling | np.ndarray, right: Scaling | np.ndarray
) -> Scaling | np.ndarray | None:
    """Applies a binary op; returns None if the result is not affine."""
    function = _BINARY[op]
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.asarray(function(left, right))
    if isinstance(left, Scaling) and isinstance(right, Scaling):
        return None
    if isinstance(left, Scaling) and isinstance(right, np.ndarray):
        if function is np.maximum:
            return None
        scales = function in (np.multiply, np.divide)
        return Scaling(
            function(left.scale, right) if scales else left.scale,
            function(left.offset, right),
        )
    if function is np.add or function is np.multiply:
        return _combine(op, right, left)
    return None


def _data_inputs(node: typing.Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]
