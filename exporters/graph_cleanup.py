"""Takes out of a SavedModel what loading it reads and nothing needs.

Loading makes a Python graph of every function in the file. Some are there since
TensorFlow writes them for everybody: behind each signature one that passes on what
another computes; and one that saves all variables, which nobody calls. Programs that
load it as TensorFlow 1 did (TensorFlow Serving, saved_model_cli) restore them only.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

# Who calls it all the same is told so: there is no node of this name.
_NO_SAVING = "this_model_has_no_op_that_saves:0"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def slim(folder: pathlib.Path) -> None:
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
    """Puts functions that are called once, by another function, into that one."""
    functions = meta_graph.graph_def.library.function
    bodies = {body.signature.name: body for body in functions}
    named = collections.Counter(
        function.name
        for nodes in (meta_graph.graph_def.node, *(body.node_def for body in functions))
        for node in nodes
        for value in node.attr.values()
        for function in (value.func, *value.list.func)
    )
    exported = meta_graph.object_graph_def.concrete_functions
    once = {name for name in bodies if named[name] == 1 and name not in exported}
    for caller in bodies.values():
        while call := next((n for n in caller.node_def if _calls(n) in once), None):
            name = _calls(call)
            once.remove(name)
            _inline_call(caller, call, bodies[name])
            functions.remove(bodies[name])


def _calls(node: node_def_pb2.NodeDef) -> str:
    """The function that a node calls, if it does."""
    return node.attr["f"].func.name if node.op in _CALLS else ""


def _inline_call(
    caller: function_pb2.FunctionDef,
    call: node_def_pb2.NodeDef,
    body: function_pb2.FunctionDef,
) -> None:
    """Replaces a call by the nodes of what it calls."""
    arguments = [argument.name for argument in body.signature.input_arg]
    given = dict(zip(arguments, call.input, strict=False))
    waits = [name for name in call.input if name.startswith("^")]
    results = [body.ret[result.name] for result in body.signature.output_arg]
    effects = sorted(body.control_ret.values())  # a map has another order every time

    def inside(name: str) -> str:
        """What an input of the body is called in the caller."""
        if name.startswith("^"):
            return f"^{call.name}/{name[1:]}"
        return given.get(name) or f"{call.name}/{name}"

    def outside(name: str) -> list[str]:
        """What an input of the caller, which may be the call, becomes."""
        if name == f"^{call.name}":
            return [f"^{call.name}/{node}" for node in effects]
        node, _, index = name.partition(":output:")
        return [inside(results[int(index)])] if node == call.name and index else [name]

    nodes = []
    for node in body.node_def:
        copy = node_def_pb2.NodeDef.FromString(node.SerializeToString())
        copy.name = f"{call.name}/{node.name}"
        copy.input[:] = [*(inside(name) for name in node.input), *waits]
        nodes.append(copy)
    for node in caller.node_def:
        node.input[:] = [new for name in node.input for new in outside(name)]
    for name, value in caller.ret.items():
        (caller.ret[name],) = outside(value)
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
    """Leaves one node of those of a function that give the same constant."""
    kept: dict[bytes, str] = {}
    shared: dict[str, str] = {}
    for node in body.node_def:
        if node.op != "Const" or node.input:
            continue
        anonymous = node_def_pb2.NodeDef.FromString(node.SerializeToString())
        anonymous.ClearField("name")
        anonymous.ClearField("experimental_debug_info")
        key = anonymous.SerializeToString(deterministic=True)
        if kept.setdefault(key, node.name) != node.name:
            shared[f"{node.name}:output:0"] = f"{kept[key]}:output:0"
    _replace(body, shared)


def _skip_identities(body: function_pb2.FunctionDef) -> None:
    """Lets those that read an Identity read what it passes on."""
    passed_on = {
        f"{node.name}:output:0": node.input[0]
        for node in body.node_def
        if node.op == "Identity" and len(node.input) == 1
    }
    for name, source in passed_on.items():
        while source in passed_on:
            source = passed_on[source]
        passed_on[name] = source
    # What a function gives, and what others wait for, keeps its node.
    needed = set(body.ret.values())
    waited = {
        name[1:] for node in body.node_def for name in node.input if name[0] == "^"
    }
    waited |= set(body.control_ret.values())
    _replace(
        body,
        {
            name: source
            for name, source in passed_on.items()
            if name not in needed and name.partition(":")[0] not in waited
        },
    )


def _replace(body: function_pb2.FunctionDef, replacements: Mapping[str, str]) -> None:
    """Replaces tensors by others, and removes the nodes that gave them."""
    gone = {name.partition(":")[0] for name in replacements}
    nodes = [node for node in body.node_def if node.name not in gone]
    for node in nodes:
        node.input[:] = [replacements.get(name, name) for name in node.input]
    for name, value in body.ret.items():
        body.ret[name] = replacements.get(value, value)
    del body.node_def[:]
    body.node_def.extend(nodes)
