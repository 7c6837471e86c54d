"""Writes int8 ONNX models, quantized after training from the float32 ones.

Activations are calibrated on synthetic images. Input, output and metadata are those of
`onnx`.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np

from exporters import (
    comparison,
    manifest,
    onnx,
    onnx_quantizer,
    synthetic_images,
)
from zoo import model as zoo_model

_CALIBRATION_IMAGES, _SEED = 32, 0


def save(
    model: zoo_model.ImageModel,
    folder: pathlib.Path,
    source: Mapping[str, pathlib.Path],
) -> None:
    """Writes both models into subfolders of `folder`, named by kind.

    Args:
      model: model that `source` was exported from.
      folder: folder of the pair.
      source: folders of the float32 ONNX models by kind.

    Raises:
      ChildProcessError: the quantizer failed.
    """
    images = synthetic_images.draw(_CALIBRATION_IMAGES, model.spec.image_size, _SEED)
    entries = []
    for kind in manifest.KINDS:
        (folder / kind).mkdir()
        paths = {"source": source[kind] / onnx.FILE, "model": folder / kind / onnx.FILE}
        entries.append({key: str(path) for key, path in paths.items()})
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        file = pathlib.Path(scratch, "images.npy")
        np.save(file, images)
        onnx.run_program(
            onnx_quantizer.__file__,
            {"images": str(file), "models": entries},
            scratch=scratch,
            tool="ONNX Runtime's quantizer",
            memory="several times the size of the model",
        )


def load(folder: pathlib.Path, source: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the model in the folder of one kind, and the one it was quantized from."""
    return [
        comparison.ConvertedModel(
            file=onnx.FILE,
            call=onnx.function(folder),
            limit=None,
            baseline=("onnx", onnx.function(source)),
        )
    ]
