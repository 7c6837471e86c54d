"""Writes ONNX models: `images` of any batch to `features` or `logits`.

The images may have any size that the SavedModels take. Channels are last, as there. A
classifier also has its class index as metadata.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np

from exporters import comparison, formats, frozen, manifest, onnx_converter
from zoo import model as zoo_model

FILE = "model.onnx"
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
                    "model": str(folder / kind / FILE),
                    "names": names,
                    "metadata": class_index if kind == "classification" else {},
                }
            )
        run_program(
            onnx_converter.__file__,
            {"opset": _OPSET, "models": entries},
            scratch=scratch,
            tool="tf2onnx",
            memory="up to 20 times the size of the model",
        )


def run_program(
    program: str, job: manifest.JsonObject, *, scratch: str, tool: str, memory: str
) -> None:
    """Runs a Python file with a job on its standard input, in a reproducible process.

    Args:
      program: path of the Python file.
      job: JSON object that the program reads.
      scratch: folder for temporary files, which the caller deletes.
      tool: what the program runs, for messages.
      memory: how much memory it needs, for messages.

    Raises:
      ChildProcessError: the program failed, or was killed.
    """
    process = subprocess.run(
        # -P: else `import onnx` would import this file from the program's folder.
        [sys.executable, "-P", program],
        input=json.dumps(job),
        # The hash seed determines the order of sets.
        env={**os.environ, "PYTHONHASHSEED": "0", "TMPDIR": scratch},
        capture_output=True,
        text=True,
    )
    if process.returncode == -signal.SIGKILL:
        raise ChildProcessError(
            f"{tool} was killed, most likely because it ran out of memory: it needs "
            f"{memory}."
        )
    if process.returncode:
        last = "".join(process.stderr.strip().splitlines()[-1:])
        raise ChildProcessError(
            f"{tool} failed with exit code {process.returncode}: {last}"
        )


def load(folder: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the model in the folder of one kind."""
    return [comparison.ConvertedModel(file=FILE, call=function(folder), limit=_LIMIT)]


def function(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function of the model in a folder, from images to its output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / FILE), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(None, {"images": images})[0]
