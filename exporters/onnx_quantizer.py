"""Runs ONNX Runtime's quantizer in a separate process.

It prints, needs several times the memory of the model, and writes temporary files: all
of this ends with the process.

Convolutions and matrix products are computed from uint8 activations and int8 weights,
with a scale for each output channel. Activation functions that only clip (ReLU, ReLU6)
become part of the convolution before them. All other ops stay float32.

The program reads a job as JSON from standard input:

* `images`: path of the calibration images, a NumPy array [N, H, W, 3].
* `models`: for each model `source`, the float32 ONNX file, and `model`, the file to
  write. Each takes `images`.
"""

import json
import pathlib
import sys
import typing
from collections.abc import Iterable

import numpy as np

# Sums, products and sigmoids stay float32: transformers would be less accurate.
_OPS = ("Conv", "Gemm", "MatMul", "Clip", "Relu")
# Matrix products have float32 results, such as logits and transformers' tokens.
_FLOAT_OUTPUTS = ("Gemm", "MatMul")
# The first convolutions stay float32: their errors spread through the whole network.
_MAX_FLOAT_CONVOLUTIONS = 3


def main(job: dict) -> None:
    """Quantizes all models of a job."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    images = np.load(job["images"])
    for entry in job["models"]:
        # It makes a Gemm of a matrix product and its bias. Otherwise ONNX Runtime does,
        # and then converts the int8 kernel to float32 at each call.
        shape_inference.quant_pre_process(
            entry["source"], entry["model"], skip_symbolic_shape=True
        )
        source = onnx.load(entry["model"])
        quantization.quantize_static(
            source,
            entry["model"],
            _Images(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_OPS),
            nodes_to_exclude=_first_layers(source.graph.node),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(_FLOAT_OUTPUTS)},
        )
        quantized = onnx.load(entry["model"])
        _remove_traces(quantized)
        onnx.checker.check_model(quantized)
        content = quantized.SerializeToString(deterministic=True)
        pathlib.Path(entry["model"]).write_bytes(content)


def _first_layers(nodes: Iterable) -> list[str]:
    """Returns the names of all nodes before the first convolution that is quantized.

    A tenth of the convolutions are before it, and three at most.
    """
    nodes = list(nodes)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    count = min(_MAX_FLOAT_CONVOLUTIONS, len(convolutions) // 10)
    return [node.name for node in nodes[: convolutions[count]]] if count else []


def _remove_traces(model: typing.Any) -> None:
    """Removes metadata of the quantizer, and op sets of which the model has no op.

    Other runtimes would refuse op sets of ONNX Runtime.
    """
    for entry in list(model.metadata_props):
        if entry.key.startswith("onnx."):
            model.metadata_props.remove(entry)
    domains = {node.domain for node in model.graph.node}
    for entry in list(model.opset_import):
        if entry.domain not in domains:
            model.opset_import.remove(entry)


class _Images:
    """Calibration data in the form that the quantizer reads: one image at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the inputs of the next call, or None after the last."""
        image = next(self._images, None)
        return None if image is None else {"images": image[None]}


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
