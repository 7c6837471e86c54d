"""Compares converted models with the SavedModels of the same build."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from exporters import formats, manifest, synthetic_images
from zoo import model as zoo_model
from zoo.weights import registry

_IMAGES, _IMAGES_FOR_VALUES, _SEED = 32, 4, 1
_MIN_AGREEMENT = 0.6  # of the top-1 class, for models without a limit on values


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A converted model, loaded from one file.

    Attributes:
      file: file name.
      call: images [B, H, W, 3] -> outputs [B, N].
      limit: largest allowed difference, relative to the largest output; None if only
        the top-1 classes have to agree.
    """

    file: str
    call: Callable[[np.ndarray], np.ndarray]
    limit: float | None


def compare(
    model: zoo_model.ImageModel,
    export_format: formats.Format,
    converted: Mapping[str, Sequence[ConvertedModel]],
    saved_models: Mapping[str, pathlib.Path],
    *,
    smallest_width: int,
) -> manifest.JsonObject:
    """Compares a converted pair with the SavedModels, on synthetic images.

    Args:
      model: model that all files were exported from.
      export_format: format of the converted models.
      converted: converted models by kind.
      saved_models: folders of the SavedModels by kind.
      smallest_width: smallest width of an image in pixels.

    Returns:
      The numbers of images; and by kind and file the largest difference, relative to
      the largest output. For a classifier without a limit, also the share of the images
      with the same top-1 class.
    """
    images = synthetic_images.draw(_IMAGES, model.spec.image_size, _SEED)
    batches = list(_batches(export_format, images[:_IMAGES_FOR_VALUES], smallest_width))
    report: manifest.JsonObject = {
        "images": {"drawn": _IMAGES, "of_them_for_values": _IMAGES_FOR_VALUES}
    }
    for kind, converted_models in converted.items():
        reference = tf.saved_model.load(str(saved_models[kind]))
        report[kind] = {}
        for other in converted_models:
            pairs = [(other.call(batch), reference(batch).numpy()) for batch in batches]
            result = {"relative_difference": max(_difference(*pair) for pair in pairs)}
            if other.limit is None and kind == "classification":
                logits = [(other.call(x[None]), reference(x[None])) for x in images]
                agreeing = sum(np.argmax(a) == np.argmax(b) for a, b in logits)
                result["top1_agreement"] = float(agreeing / len(logits))
            report[kind][other.file] = result
    return report


def check_limits(
    model: zoo_model.ImageModel,
    converted: Mapping[str, Sequence[ConvertedModel]],
    report: manifest.JsonObject,
) -> None:
    """Checks a report of `compare` against the limits.

    Raises:
      formats.ExportCheckError: outputs differ by more than the limit, or too few top-1
        classes agree. Classes are not checked for random weights.
    """
    is_trained = _is_trained(model)
    for kind, converted_models in converted.items():
        for other in converted_models:
            result = report[kind][other.file]
            difference = result["relative_difference"]
            if other.limit is not None and not difference <= other.limit:
                raise formats.ExportCheckError(
                    f"{kind}/{other.file}: outputs differ from the SavedModel's by "
                    f"{difference:.1e} of the largest output, more than {other.limit}"
                )
            agreement = result.get("top1_agreement", 1.0)
            if is_trained and agreement < _MIN_AGREEMENT:
                raise formats.ExportCheckError(
                    f"{kind}/{other.file}: predicts the SavedModel's class for "
                    f"{agreement:.0%} of {_IMAGES} images, less than "
                    f"{_MIN_AGREEMENT:.0%}"
                )


def summary_lines(
    model: zoo_model.ImageModel, report: manifest.JsonObject
) -> list[str]:
    """Returns a one-line message for each classifier whose top-1 classes may differ.

    There are none for random weights, whose classes mean nothing.
    """
    if not _is_trained(model):
        return []
    return [
        f"{file} predicts the SavedModel's class for {result['top1_agreement']:.0%} of "
        f"{_IMAGES} synthetic images"
        for file, result in report.get("classification", {}).items()
        if "top1_agreement" in result
    ]


def _is_trained(model: zoo_model.ImageModel) -> bool:
    return model.weights["name"] != registry.RANDOM


def _batches(
    export_format: formats.Format, images: np.ndarray, smallest_width: int
) -> Iterator[np.ndarray]:
    """Yields the images, and a crop that is not square if the format takes any size."""
    yield images
    if export_format.any_size:
        yield images[:1, :, : (smallest_width + images.shape[2]) // 2]


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference relative to the largest expected absolute value.

    It is infinite if the shapes differ.
    """
    if actual.shape != expected.shape:
        return float("inf")
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
