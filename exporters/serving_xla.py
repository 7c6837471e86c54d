"""Writes SavedModels for serving like `serving`, which XLA compiles when they run.

XLA compiles for each size of a batch and of the images. The requests that warm a model
up have `_BATCHES` images of the default size, so that TensorFlow Serving compiles for
these when it loads the model. It is meant for GPUs: on CPUs, depthwise convolutions
are slower.
"""

from __future__ import annotations

import pathlib

from exporters import comparison, serving
from zoo import model as zoo_model

_BATCHES = (1, 8, 32)


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both models, see `serving.save`."""
    serving.save(model, folder, compiled_batches=_BATCHES)


def load(folder: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the model in the folder of one kind."""
    return serving.load(folder)
