"""Runs tf2onnx in a separate process, so that its output depends only on the graph.

tf2onnx iterates over sets of names and sets of nodes. The order of names depends on
Python's string hash seed, which can only be fixed when a process starts. The order of
nodes depends on their memory addresses, unless their hash is replaced.

Each of tf2onnx's optimizers works on a copy of the graph with all its kernels. The
copies have reference cycles, so they are collected after each optimizer: a model of 60
million parameters would take over 14 GB otherwise.

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
import os
import pathlib
import sys
import typing
import zlib
from collections.abc import Callable

import numpy as np


def main(job: dict) -> None:
    """Converts all models of a job."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    # Otherwise each of the collections below visits all objects of the imports.
    gc.collect()
    gc.freeze()
    tf2onnx.graph.Node.__hash__ = lambda node: zlib.crc32(node.name.encode())
    optimizer = tf2onnx.optimizer.optimizer_base.GraphOptimizerBase
    optimizer.optimize = _then_collect(optimizer.optimize)
    for entry in job["models"]:
        graph = tf.compat.v1.GraphDef()
        graph.ParseFromString(pathlib.Path(entry["graph"]).read_bytes())
        input_name, output_name = entry["names"]
        converted, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=[input_name],
            output_names=[output_name],
            tensors_to_rename=entry["names"],
            opset=job["opset"],
        )
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


def _then_collect(function: Callable) -> Callable:
    """Returns `function` with a garbage collection after each call."""

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        result = function(*args, **kwargs)
        gc.collect()
        return result

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


def environment() -> dict[str, str]:
    """Returns the environment variables for starting this program."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
