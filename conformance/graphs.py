"""Follows an output of a graph back to what it was computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

# What works on each element for itself, or only moves the elements as a whole.
_ELEMENTWISE = frozenset(
    "Add AddV2 BiasAdd Cast Div DivNoNan Elu Floor Greater GreaterEqual Identity "
    "IdentityN LeakyRelu Less LessEqual LogicalAnd LogicalNot Maximum Minimum Mul "
    "MulNoNan RealDiv Reciprocal Relu Relu6 Reshape Select SelectV2 Sigmoid Snapshot "
    "Squeeze Sub Tanh".split()
)
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
    found: set[str] = set()
    for output in function.outputs:
        found |= set(_walk(output.name, nodes, library))
    return found


def _walk(
    tensor: str, nodes: Mapping[str, Any], library: Mapping[str, Any]
) -> Iterator[str]:
    """Yields the random ops behind one tensor.

    Within a graph or a function body, a tensor is named "node", "node:0" or
    "node:output:0"; a function's argument is a name without a node.
    """
    open_tensors, seen = [tensor], set()
    while open_tensors:
        tensor = open_tensors.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        name, *output = tensor.split(":")
        node = nodes.get(name)
        if node is None:
            continue
        inputs = [i for i in node.input if not i.startswith("^")]
        if "Random" in node.op:
            yield node.op
        elif node.op in _ELEMENTWISE:
            open_tensors.extend(inputs)
        elif node.op in _CALLS:
            index = int(output[-1]) if output else 0
            operands = inputs[1:] if "If" in node.op else inputs
            for attribute in _CALLS[node.op]:
                body = library[node.attr[attribute].func.name]
                yield from _walk_body(body, index, library)
                open_tensors.extend(_passed_through(body, index, operands))


def _walk_body(
    body: Any, index: int, library: Mapping[str, Any]
) -> Iterator[str]:
    output = body.signature.output_arg[index].name
    nodes = {node.name: node for node in body.node_def}
    yield from _walk(body.ret[output], nodes, library)
