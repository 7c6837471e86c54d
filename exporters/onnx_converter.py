"""Runs tf2onnx in a separate process, so that its output depends only on the graph.

tf2onnx iterates over sets of names and sets of nodes. The order of names depends on
Python's string hash seed, which can only be fixed when a process starts. The order of
nodes depends on their memory addresses, unless their hash is replaced.

tf2onnx copies all kernels when it freezes a model and after each of its optimizers:
ResNet-50 would take 3.2 GiB instead of 2.0. This program calls the steps that are
needed and keeps constants from being copied.

The program reads a job as JSON from standard input, with `opset` and `models`. Each
model has:

* `graph`: path of a GraphDef.
* `model`: path of the ONNX file to write.
* `names`: tensor name -> new name, of the input and then the output.
* `metadata`: texts to store in the ONNX file, by key.
"""

import functools
import gc
import json
import pathlib
import sys
import typing
import zlib
from collections.abc import Callable

import numpy as np


def main(job: dict) -> None:
    """Converts all models of a job."""
    import onnx
    import tf2onnx
    from tf2onnx.optimizer import transpose_optimizer

    node = tf2onnx.graph.Node
    node.__hash__ = lambda node: zlib.crc32(node.name.encode())
    node.update_proto = _except_for_constants(node.update_proto)
    transposes = transpose_optimizer.TransposeOptimizer
    transposes._add_handler = _except_for_scalars(transposes._add_handler)
    for entry in job["models"]:
        gc.collect()  # graphs have reference cycles
        converted = _convert(entry["graph"], entry["names"], job["opset"])
        for value in (*converted.graph.input, *converted.graph.output):
            shape = value.type.tensor_type.shape.dim
            for dimension, name in zip(
                shape, ("batch", "height", "width"), strict=False
            ):
                if dimension.dim_param:
                    dimension.dim_param = name
        _keep_zero_padding(converted.graph)
        for key, text in entry["metadata"].items():
            converted.metadata_props.add(key=key, value=text)
        onnx.checker.check_model(converted)
        content = converted.SerializeToString(deterministic=True)
        pathlib.Path(entry["model"]).write_bytes(content)


def _convert(path: str, names: dict[str, str], opset: int) -> typing.Any:
    """Converts the GraphDef in a file, with one input and one output, to ONNX."""
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(pathlib.Path(path).read_bytes())
    inputs, outputs = ([name] for name in names)
    with tf.Graph().as_default():
        graph = tf_loader.tf_optimize(inputs, outputs, graph)
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph, name="")
        converted = tfonnx.process_tf_graph(
            imported,
            opset=opset,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename=names,
        )
    # `catch_errors` would keep a copy of the graph for an optimizer that fails.
    converted = optimizer.optimize_graph(converted, catch_errors=False)
    return converted.make_model("converted from unknown")


def _except_for_constants(function: Callable) -> Callable:
    """Returns a method of nodes that leaves constants as they are."""

    @functools.wraps(function)
    def call(node: typing.Any, *args: object) -> None:
        if not node.is_const():
            function(node, *args)

    return call


def _except_for_scalars(function: Callable) -> Callable:
    """Returns a method that merges sums with biases, for constants that may be one.

    tf2onnx 1.17 fails on a scalar, such as the 3 that a hard swish adds to the output
    of a convolution without bias.
    """

    @functools.wraps(function)
    def call(self: typing.Any, transpose: typing.Any, node: typing.Any) -> bool:
        term = node.inputs[1]
        if term.is_const() and not term.get_tensor_value(as_list=False).shape:
            return self._handle_node_having_branches(transpose, node)
        return function(self, transpose, node)

    return call


def _keep_zero_padding(graph: typing.Any) -> None:
    """Replaces zeros before max pools by the smallest positive normal number.

    onnxruntime 1.31 fuses zero padding into the max pool, which then has no padding
    that could be the maximum (microsoft/onnxruntime, pull request 18136). Other values
    are not fused. After a ReLU, both kinds of padding give the same results.
    """
    import onnx

    producers = {output: node for node in graph.node for output in node.output}
    smallest = np.asarray(np.finfo(np.float32).tiny)
    value = onnx.numpy_helper.from_array(smallest, "padding_value")
    for pool in graph.node:
        pad = producers.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        if pad is None or pad.op_type != "Pad":
            continue
        source = producers.get(pad.input[0])
        while source is not None and source.op_type == "Transpose":
            source = producers.get(source.input[0])
        if source is None or source.op_type != "Relu":
            pad.input[:] = [*pad.input[:2], value.name]
    if any(value.name in node.input for node in graph.node):
        graph.initializer.append(value)


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
