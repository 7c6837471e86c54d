"""Removes redundant functions and nodes from a SavedModel, so that it loads faster.

Loading creates a Python graph for every function in the file. TensorFlow always writes
two kinds of functions that nothing needs: one behind each signature that only forwards
the results of another function, and one that saves all variables. Programs that load
the file with the TensorFlow 1 API (TensorFlow Serving, saved_model_cli) only restore
variables and never save them.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

# No node has this name: a program that saves variables gets an error that shows it.
_NO_SAVING = "this_model_has_no_op_that_saves:0"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def clean_up(folder: pathlib.Path) -> None:
    """Rewrites the SavedModel in `folder`, and its fingerprint."""
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (meta_graph,) = saved.meta_graphs
    meta_graph.saver_def.save_tensor_name = _NO_SAVING
    _inline(meta_graph)
    for body in meta_graph.graph_def.library.function:
        _share_constants(body)
        _skip_identities(body)
    file.write_bytes(saved.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))


def _inline(meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Inlines functions that are called once, by another function."""
    functions = meta_graph.graph_def.library.function
    bodies = {body.signature.name: body for body in functions}
    uses = collections.Counter(
        function.name
        for nodes in (meta_graph.graph_def.node, *(body.node_def for body in functions))
        for node in nodes
        for value in node.attr.values()
        for function in (value.func, *value.list.func)
    )
    exported = meta_graph.object_graph_def.concrete_functions
    single_use = {name for name in bodies if uses[name] == 1 and name not in exported}
    for caller in bodies.values():
        while call := next(
            (n for n in caller.node_def if _called_function(n) in single_use), None
        ):
            name = _called_function(call)
            single_use.remove(name)
            _inline_call(caller, call, bodies[name])
            functions.remove(bodies[name])


def _called_function(node: node_def_pb2.NodeDef) -> str:
    """Returns the name of the function that a node calls, or an empty string."""
    return node.attr["f"].func.name if node.op in _CALLS else ""


def _inline_call(
    caller: function_pb2.FunctionDef,
    call: node_def_pb2.NodeDef,
    body: function_pb2.FunctionDef,
) -> None:
    """Replaces a call by the nodes of the called function."""
    arguments = [argument.name for argument in body.signature.input_arg]
    inputs = dict(zip(arguments, call.input, strict=False))
    control_inputs = [name for name in call.input if name.startswith("^")]
    results = [body.ret[result.name] for result in body.signature.output_arg]
    effects = sorted(body.control_ret.values())  # the order of a protobuf map varies

    def rename_in_body(name: str) -> str:
        """Returns the name in the caller of an input of a node of the body."""
        if name.startswith("^"):
            return f"^{call.name}/{name[1:]}"
        return inputs.get(name) or f"{call.name}/{name}"

    def rename_in_caller(name: str) -> list[str]:
        """Returns the new names of a caller's input, which may be the call's output."""
        if name == f"^{call.name}":
            return [f"^{call.name}/{node}" for node in effects]
        node, _, index = name.partition(":output:")
        if node == call.name and index:
            return [rename_in_body(results[int(index)])]
        return [name]

    nodes = []
    for node in body.node_def:
        copy = node_def_pb2.NodeDef.FromString(node.SerializeToString())
        copy.name = f"{call.name}/{node.name}"
        copy.input[:] = [*map(rename_in_body, node.input), *control_inputs]
        nodes.append(copy)
    for node in caller.node_def:
        node.input[:] = [new for name in node.input for new in rename_in_caller(name)]
    for name, value in caller.ret.items():
        (caller.ret[name],) = rename_in_caller(value)
    ends = sorted(end for end, node in caller.control_ret.items() if node == call.name)
    for end in ends:
        del caller.control_ret[end]
        caller.signature.control_output.remove(end)
        for node in effects:
            caller.control_ret[f"{call.name}/{node}"] = f"{call.name}/{node}"
            caller.signature.control_output.append(f"{call.name}/{node}")
    caller.node_def.remove(call)
    caller.node_def.extend(nodes)


def _share_constants(body: function_pb2.FunctionDef) -> None:
    """Merges the nodes of a function that have the same constant value."""
    first_nodes: dict[bytes, str] = {}
    shared: dict[str, str] = {}
    for node in body.node_def:
        if node.op != "Const" or node.input:
            continue
        anonymous = node_def_pb2.NodeDef.FromString(node.SerializeToString())
        anonymous.ClearField("name")
        anonymous.ClearField("experimental_debug_info")
        key = anonymous.SerializeToString(deterministic=True)
        if first_nodes.setdefault(key, node.name) != node.name:
            shared[f"{node.name}:output:0"] = f"{first_nodes[key]}:output:0"
    _replace(body, shared)


def _skip_identities(body: function_pb2.FunctionDef) -> None:
    """Connects the consumers of an Identity node directly to its input."""
    sources = {
        f"{node.name}:output:0": node.input[0]
        for node in body.node_def
        if node.op == "Identity" and len(node.input) == 1
    }
    for name, source in sources.items():
        while source in sources:
            source = sources[source]
        sources[name] = source
    # Nodes of results and of control dependencies are kept.
    results = set(body.ret.values())
    control_nodes = {
        name[1:] for node in body.node_def for name in node.input if name[0] == "^"
    }
    control_nodes |= set(body.control_ret.values())
    _replace(
        body,
        {
            name: source
            for name, source in sources.items()
            if name not in results and name.partition(":")[0] not in control_nodes
        },
    )


def _replace(body: function_pb2.FunctionDef, replacements: Mapping[str, str]) -> None:
    """Replaces tensors, and removes the nodes that computed them."""
    removed = {name.partition(":")[0] for name in replacements}
    nodes = [node for node in body.node_def if node.name not in removed]
    for node in nodes:
        node.input[:] = [replacements.get(name, name) for name in node.input]
    for name, value in body.ret.items():
        body.ret[name] = replacements.get(value, value)
    del body.node_def[:]
    body.node_def.extend(nodes)
