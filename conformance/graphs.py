"""Reads TensorFlow graphs: the nodes a model runs and the inputs of its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import variable_pb2

# Ops that combine elements: random noise before them is not noise on the output.
_MIXING = re.compile(
    r"Conv|MatMul|Einsum|Pool|^Mean$|^Sum$|^Max$|^Min$|^Prod$|Norm|Softmax|Cumsum"
    r"|SegmentSum|TensorDot"
)
_SUMS = {"Add", "AddV2"}
# Ops that read only the shape of their input.
_SHAPE_OPS = {"Shape", "ShapeN", "Rank", "Size"}
_RANDOM = re.compile(r"Random|TruncatedNormal|Multinomial|NonDeterministicInts")
# Ops that call functions, and their attributes that name these functions. The first
# input of an If is its condition.
_CALLS = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}


def random_ops_on_output(function: Any) -> set[str]:
    """Returns the types of random ops that act elementwise on an output.

    No op between the random op and the output combines elements. This includes dropout
    on the output, which multiplies it by a random mask, and excludes dropout or drop
    path in earlier layers, which a pooling, convolution or matrix product follows, or
    the sum of a residual connection.

    Args:
      function: a concrete function. The functions that it calls are searched too.
    """
    # Differentiating a function appends outputs to its graph: skip these.
    outputs = function.outputs[: len(tf.nest.flatten(function.structured_outputs))]
    return random_ops_on(
        [tensor.name for tensor in outputs], function.graph.as_graph_def()
    )


def random_ops_on(tensors: Iterable[str], graph: Any) -> set[str]:
    """Same as `random_ops_on_output`, for named tensors of a GraphDef."""
    library = {body.signature.name: body for body in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    return set().union(*(_sources(name, nodes, library)[0] for name in tensors))


def _sources(
    tensor: str, nodes: Mapping[str, Any], library: Mapping[str, Any]
) -> tuple[set[str], set[str]]:
    """Returns the random ops and function arguments that reach a tensor elementwise.

    A tensor's name is "node" or "node:0" in a graph and "node:output:0" in a function's
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
        elif _RANDOM.search(node.op):
            random_ops.add(node.op)
        elif node.op in _CALLS:
            index = int(output.split(":")[-1] or 0)
            ops_in_call, operands = _sources_in_call(node, index, library)
            random_ops |= ops_in_call
            open_tensors.extend(operands)
        elif not (
            _MIXING.search(node.op)
            or node.op in _SHAPE_OPS
            or _is_residual(node, nodes)
        ):
            open_tensors.extend(_data_inputs(node))
    return random_ops, arguments


def _is_residual(node: Any, nodes: Mapping[str, Any]) -> bool:
    """Whether a node adds two tensors that both depend on its graph's inputs.

    That excludes noise, and the offset of a normalisation, which is a variable.
    """
    if node.op not in _SUMS:
        return False
    return all(_depends_on_inputs(tensor, nodes) for tensor in _data_inputs(node))


def _depends_on_inputs(tensor: str, nodes: Mapping[str, Any]) -> bool:
    """Whether an input of the graph, other than a variable, reaches a tensor."""
    seen, open_names = set(), [tensor.partition(":")[0]]
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        node = nodes.get(name)
        if node is None or node.op == "Placeholder":
            return True
        if node.op not in _SHAPE_OPS | {"ReadVariableOp"} and not _RANDOM.search(
            node.op
        ):
            open_names.extend(name.partition(":")[0] for name in _data_inputs(node))
    return False


def _sources_in_call(
    node: Any, index: int, library: Mapping[str, Any]
) -> tuple[set[str], list[str]]:
    """Returns the random ops and the inputs of a call that reach one of its outputs."""
    random_ops, reached = set(), []
    inputs = _data_inputs(node)
    operands = inputs[1:] if node.op.endswith("If") else inputs
    for attribute in _CALLS[node.op]:
        body = library[node.attr[attribute].func.name]
        output = body.ret[body.signature.output_arg[index].name]
        nodes = {inner.name: inner for inner in body.node_def}
        ops_in_body, arguments = _sources(output, nodes, library)
        random_ops |= ops_in_body
        reached += [
            operand
            for operand, argument in zip(
                operands, body.signature.input_arg, strict=True
            )
            if argument.name in arguments
        ]
    return random_ops, reached


def nodes_that_run(meta_graph: Any) -> Iterator[Any]:
    """Yields the nodes that loading, initialising or calling a model can run.

    Args:
      meta_graph: a MetaGraphDef of a TF1 or TF2 SavedModel.
    """
    roots = [
        tensor.name
        for signature in meta_graph.signature_def.values()
        for tensor in signature.outputs.values()
    ]
    for name, collection in meta_graph.collection_def.items():
        roots += collection.node_list.value
        if name.endswith("variables"):
            for content in collection.bytes_list.value:
                variable = variable_pb2.VariableDef.FromString(content)
                roots += [variable.initializer_name, variable.snapshot_name]
    yield from _run_for(
        roots, meta_graph, meta_graph.object_graph_def.concrete_functions
    )


def nodes_of_saver(meta_graph: Any) -> Iterator[Any]:
    """Yields the nodes that saving and restoring variables runs."""
    saver = meta_graph.saver_def
    yield from _run_for((saver.save_tensor_name, saver.restore_op_name), meta_graph)


def _run_for(
    roots: Iterable[str], meta_graph: Any, functions: Iterable[str] = ()
) -> Iterator[Any]:
    """Yields the nodes that `roots` need, and those of all functions called.

    Args:
      roots: names of nodes or tensors of the graph.
      meta_graph: the MetaGraphDef.
      functions: names of further functions to include.
    """
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    bodies = {
        body.signature.name: body.node_def
        for body in meta_graph.graph_def.library.function
    }
    graph_nodes = [nodes[name] for name in sorted(upstream(roots, nodes))]
    called = {name for name in functions if name in bodies}
    called |= _called(graph_nodes, bodies)
    for name in tuple(called):
        called |= _called(bodies[name], bodies)
    yield from graph_nodes
    for name in sorted(called):
        yield from bodies[name]


def upstream(names: Iterable[str], nodes: Mapping[str, Any]) -> set[str]:
    """Returns the named nodes and all nodes that they are computed from."""
    reached: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in reached:
            reached.add(name)
            open_names.extend(nodes[name].input)
    return reached


def _called(nodes: Iterable[Any], bodies: Mapping[str, Any]) -> set[str]:
    """Returns the names of the functions that nodes call, directly or indirectly."""
    called: set[str] = set()
    open_nodes = list(nodes)
    while open_nodes:
        for value in open_nodes.pop().attr.values():
            for function in (value.func, *value.list.func):
                if function.name in bodies and function.name not in called:
                    called.add(function.name)
                    open_nodes.extend(bodies[function.name])
    return called


def _data_inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]
