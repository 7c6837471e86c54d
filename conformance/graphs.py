"""Follows an output of a graph back to what it was computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

# What works on each element for itself, or leaves the elements as they are.
_ELEMENTWISE = {
    *("Cast", "Identity", "IdentityN", "Reshape", "Squeeze"),
    *("Add", "AddV2", "BiasAdd", "Mul", "MulNoNan", "RealDiv", "Sub"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "LogicalNot"),
    *("Floor", "Maximum", "Minimum", "Relu", "Relu6", "Select", "SelectV2"),
}
# Calls, and which of their attributes name functions; an If's first input is its
# condition.
_CALLS = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}


def random_ops_on_output(function: Any) -> set[str]:
    """The types of random ops that reach an output through elementwise ops alone.

    Dropout on the output is such a path: a random mask, compared, multiplied. Dropout
    or drop path further up is not: pooling, a convolution or a matrix product comes
    between.

    Args:
      function: a concrete function; the functions that it calls are followed too.
    """
    graph = function.graph.as_graph_def()
    library = {body.signature.name: body for body in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    # Differentiating a function appends outputs to its graph: only the first count.
    outputs = function.outputs[: len(tf.nest.flatten(function.structured_outputs))]
    return set().union(*(_reached(out.name, nodes, library)[0] for out in outputs))


def _reached(
    tensor: str, nodes: Mapping[str, Any], library: Mapping[str, Any]
) -> tuple[set[str], set[str]]:
    """The random ops, and the arguments of the function body, behind one tensor.

    Tensors are named "node" or "node:0" in a graph, "node:output:0" in a function's
    body, where a name without a node is an argument.
    """
    random_ops, arguments, seen = set(), set(), set()
    open_tensors = [tensor]
    while open_tensors:
        tensor = open_tensors.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        name, _, output = tensor.partition(":")
        node = nodes.get(name)
        if node is None:
            arguments.add(name)
        elif "Random" in node.op:
            random_ops.add(node.op)
        elif node.op in _ELEMENTWISE:
            open_tensors.extend(_data_inputs(node))
        elif node.op in _CALLS:
            index = int(output.split(":")[-1] or 0)
            found, operands = _reached_in_call(node, index, library)
            random_ops |= found
            open_tensors.extend(operands)
    return random_ops, arguments


def _reached_in_call(
    node: Any, index: int, library: Mapping[str, Any]
) -> tuple[set[str], list[str]]:
    """The random ops behind one output of a call, and the call's inputs behind it."""
    random_ops, reached = set(), []
    inputs = _data_inputs(node)
    operands = inputs[1:] if node.op.endswith("If") else inputs
    for attribute in _CALLS[node.op]:
        body = library[node.attr[attribute].func.name]
        output = body.ret[body.signature.output_arg[index].name]
        nodes = {inner.name: inner for inner in body.node_def}
        found, arguments = _reached(output, nodes, library)
        random_ops |= found
        reached += [
            operand
            for operand, argument in zip(
                operands, body.signature.input_arg, strict=True
            )
            if argument.name in arguments
        ]
    return random_ops, reached


def _data_inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]
