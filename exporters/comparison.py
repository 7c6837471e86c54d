"""Holds models in other formats against the SavedModels of the same build."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from exporters import formats, manifest, synthetic_images
from zoo import facts
from zoo import model as zoo_model
from zoo.weights import registry

_IMAGES, _OF_THEM_FOR_VALUES, _SEED = 32, 4, 1
_LEAST_AGREEMENT = 0.6  # of top-1, where values may differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One file of a converted model.

    Attributes:
      file: its name.
      call: images [B, H, W, 3] -> outputs [B, N].
      limit: of the difference, relative to the largest value; None where values may
        differ as long as classes agree.
    """

    file: str
    call: Callable[[np.ndarray], np.ndarray]
    limit: float | None


def compare(
    model: zoo_model.ImageModel,
    known: formats.Format,
    runs: Mapping[str, Sequence[Run]],
    saved_models: Mapping[str, pathlib.Path],
) -> manifest.JsonObject:
    """How far a converted pair is from the SavedModels, on drawn images.

    Args:
      model: that all were made from.
      known: the format.
      runs: of each half.
      saved_models: each half's folder.

    Returns:
      How many images; then by kind and file the largest difference, relative to the
      largest value, and where values may differ the share of the images that the
      classifier has the same class for.
    """
    images = synthetic_images.draw(_IMAGES, model.spec.image_size, _SEED)
    batches = list(_batches(model, known, images[:_OF_THEM_FOR_VALUES]))
    report: manifest.JsonObject = {
        "images": {"drawn": _IMAGES, "of_them_for_values": _OF_THEM_FOR_VALUES}
    }
    for kind, of_the_half in runs.items():
        reference = tf.saved_model.load(str(saved_models[kind]))
        report[kind] = {}
        for run in of_the_half:
            pairs = [(run.call(batch), reference(batch).numpy()) for batch in batches]
            found = {"relative_difference": max(_difference(*pair) for pair in pairs)}
            if run.limit is None and kind == "classification":
                classes = [(run.call(x[None]), reference(x[None])) for x in images]
                agreeing = sum(np.argmax(a) == np.argmax(b) for a, b in classes)
                found["top1_agreement"] = float(agreeing / len(classes))
            report[kind][run.file] = found
    return report


def judge(
    model: zoo_model.ImageModel,
    runs: Mapping[str, Sequence[Run]],
    report: manifest.JsonObject,
) -> None:
    """Holds a report of `compare` against the limits.

    Raises:
      formats.UnfitError: too far. Of random weights no classes need to agree.
    """
    is_trained = model.weights["name"] != registry.RANDOM
    every = ((kind, run) for kind, of_the_half in runs.items() for run in of_the_half)
    for kind, run in every:
        found = report[kind][run.file]
        difference = found["relative_difference"]
        if run.limit is not None and not difference <= run.limit:
            raise formats.UnfitError(
                f"{kind}/{run.file}: outputs differ from the SavedModel's by "
                f"{difference:.1e} of the largest, more than {run.limit}"
            )
        agreement = found.get("top1_agreement", 1.0)
        if is_trained and agreement < _LEAST_AGREEMENT:
            raise formats.UnfitError(
                f"{kind}/{run.file}: has the SavedModel's class for {agreement:.0%} of "
                f"{_IMAGES} images, not {_LEAST_AGREEMENT:.0%}"
            )


def remarks(report: manifest.JsonObject) -> list[str]:
    """What who reads nothing but the progress should know of a report."""
    found = report.get("classification", {})
    return [
        f"{file} has the SavedModel's class for {about['top1_agreement']:.0%} of "
        f"{_IMAGES} drawn images"
        for file, about in found.items()
        if "top1_agreement" in about
    ]


def _batches(
    model: zoo_model.ImageModel, known: formats.Format, images: np.ndarray
) -> Iterator[np.ndarray]:
    """The images; and of another size, not square, for who takes those."""
    yield images
    if known.any_size:
        low, _ = facts.value(facts.load(model.arch), "width_range")
        yield images[:1, :, : (low + images.shape[2]) // 2]


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest, relative to the largest value; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())
