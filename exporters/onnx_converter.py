"""Runs tf2onnx as a program of its own, so that the bytes depend on the graph alone.

tf2onnx goes through sets of names, which Python orders by a hash that differs from
process to process if it is not told otherwise when it starts, and of nodes, which are
ordered by where they are in memory.

Takes a job as JSON on standard input: `opset`, and `models`, each with the path of a
GraphDef under `graph`, that of what to write under `model`, what its input and its
output, in this order, are to be called under `names`, and texts to carry as `metadata`.
"""

import json
import os
import pathlib
import sys
import zlib


def main(job: dict) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    tf2onnx.graph.Node.__hash__ = lambda node: zlib.crc32(node.name.encode())
    for entry in job["models"]:
        graph = tf.compat.v1.GraphDef()
        graph.ParseFromString(pathlib.Path(entry["graph"]).read_bytes())
        first, second = entry["names"]
        converted, _ = tf2onnx.convert.from_graph_def(
            graph,
            input_names=[first],
            output_names=[second],
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
        for key, text in entry["metadata"].items():
            converted.metadata_props.add(key=key, value=text)
        onnx.checker.check_model(converted)
        content = converted.SerializeToString(deterministic=True)
        pathlib.Path(entry["model"]).write_bytes(content)


def environment() -> dict[str, str]:
    """What has to be set when this program is started."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
