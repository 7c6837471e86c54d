"""Computes the feature vectors of images that are looked for."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from bulk import vectors
from exporters import manifest
from images import reader
from reuse import features, output_names


def vectors_of(
    folder: pathlib.Path, record: dict[str, typing.Any], paths: Sequence[str]
) -> np.ndarray:
    """Returns the feature vectors of image files, [Q, D] float32 of length 1.

    Args:
      folder: the model's folder.
      record: of the vectors; the model must be the one that made them.
      paths: image files.

    Raises:
      ValueError: the model is another one, or a file is not a readable image.
    """
    check_model(folder, record)
    model = features.FeatureExtractor(
        folder, input_range=record["input_range"], precision=record["precision"]
    )
    image_reader = reader.Reader(model.preprocessing)
    images = [image_reader.read(pathlib.Path(path)) for path in paths]
    found = [
        model.extract(image[np.newaxis])[output_names.FEATURES] for image in images
    ]
    return vectors.normalised(np.concatenate(found), len(found))


def check_model(folder: pathlib.Path, record: dict[str, typing.Any]) -> None:
    """Raises ValueError if a model is not the one that computed the vectors."""
    if manifest.content_hash(manifest.file_hashes(folder)) != record["model"]:
        raise ValueError(
            f"{folder} is not the model that computed these vectors: give that one by "
            "--module."
        )
