"""Writes ONNX models: `images` of any batch and size to `features` or `logits`.

Channels are last, as in the SavedModels; what runs it transposes them once.
"""

from __future__ import annotations

import os
import pathlib

from exporters import comparing, formats, frozen, manifest
from zoo import model as zoo_model

_FILE = "model.onnx"
_OPSET = 17
_LIMIT = 1e-4
# Else tf2onnx copies the whole model before each of its steps, to go on if one fails.
_NO_COPIES = {"TF2ONNX_CATCH_ERRORS": "FALSE"}


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both halves into folders below `folder`."""
    import onnx
    import tf2onnx

    os.environ.update(_NO_COPIES)
    for kind in manifest.KINDS:
        shape = formats.FORMATS["onnx"].input_shape(model.spec.image_size)
        function = frozen.freeze(model, kind, shape)
        names = {function.inputs[0].name: "images"}
        names[function.outputs[0].name] = frozen.OUTPUTS[kind]
        converted, _ = tf2onnx.convert.from_graph_def(
            function.graph.as_graph_def(),
            name=f"{model.arch} {kind}",
            input_names=[function.inputs[0].name],
            output_names=[function.outputs[0].name],
            tensors_to_rename=names,
            opset=_OPSET,
        )
        if kind == "classification":
            entry = converted.metadata_props.add()
            entry.key, entry.value = manifest.CLASS_INDEX, model.taxonomy.to_tsv()
        onnx.checker.check_model(converted)
        (folder / kind).mkdir()
        (folder / kind / _FILE).write_bytes(
            converted.SerializeToString(deterministic=True)
        )


def runs(folder: pathlib.Path) -> list[comparing.Run]:
    """What was written into the folder of one half, as functions."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / _FILE), providers=["CPUExecutionProvider"]
    )
    return [
        comparing.Run(
            file=_FILE,
            call=lambda images: session.run(None, {"images": images})[0],
            limit=_LIMIT,
        )
    ]
