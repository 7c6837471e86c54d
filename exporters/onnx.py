"""Writes ONNX models: `images` of any batch to `features` or `logits`.

The images may have any size that the SavedModels take. Channels are last, as there. A
classifier also has its class index as metadata.
"""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import tempfile

from exporters import comparison, formats, frozen, manifest, onnx_converter
from zoo import model as zoo_model

_FILE = "model.onnx"
_OPSET = 17  # of ONNX 1.12 (2022): onnxruntime runs it since 1.12, also in 2022
_LIMIT = 1e-4  # see `comparison.ConvertedModel`; float32 ops add up in another order


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both models into subfolders of `folder`, named by kind.

    Raises:
      ChildProcessError: tf2onnx failed.
    """
    shape = formats.FORMATS["onnx"].input_shape(model.spec)
    entries = []
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for kind in manifest.KINDS:
            (folder / kind).mkdir()
            function = frozen.freeze(model, kind, shape)
            graph = pathlib.Path(scratch, kind)
            graph.write_bytes(function.graph.as_graph_def().SerializeToString())
            names = {
                function.inputs[0].name: "images",
                function.outputs[0].name: frozen.OUTPUTS[kind],
            }
            class_index = {manifest.CLASS_INDEX: model.taxonomy.to_tsv()}
            entries.append(
                {
                    "graph": str(graph),
                    "model": str(folder / kind / _FILE),
                    "names": names,
                    "metadata": class_index if kind == "classification" else {},
                }
            )
        _convert({"opset": _OPSET, "models": entries})


def _convert(job: manifest.JsonObject) -> None:
    """Runs `onnx_converter` in a separate process."""
    process = subprocess.run(
        # -P: else `import onnx` would import this file from the converter's folder.
        [sys.executable, "-P", onnx_converter.__file__],
        input=json.dumps(job),
        env=onnx_converter.environment(),
        capture_output=True,
        text=True,
    )
    if process.returncode == -signal.SIGKILL:
        raise ChildProcessError(
            "tf2onnx was killed, most likely because it ran out of memory: it needs "
            "up to 20 times the size of the model."
        )
    if process.returncode:
        last = "".join(process.stderr.strip().splitlines()[-1:])
        raise ChildProcessError(
            f"tf2onnx failed with exit code {process.returncode}: {last}"
        )


def load(folder: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the model in the folder of one kind."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / _FILE), providers=["CPUExecutionProvider"]
    )
    return [
        comparison.ConvertedModel(
            file=_FILE,
            call=lambda images: session.run(None, {"images": images})[0],
            limit=_LIMIT,
        )
    ]
