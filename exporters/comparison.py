"""Compares converted models with the SavedModels of the same build."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from exporters import formats, manifest, synthetic_images
from zoo import model as zoo_model
from zoo.weights import registry

_IMAGES, _IMAGES_FOR_VALUES, _SEED = 32, 4, 1
_MIN_AGREEMENT = 0.6  # of the top-1 class, for models without a limit on values
_GOOD_AGREEMENT = 0.9  # below it, messages say "only"
_BATCH_SIZES, _TURNS, _TURN_SECONDS = (1, 8), 5, 0.1  # to measure speed with


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A converted model, loaded from one file.

    Attributes:
      file: file name.
      call: images [B, H, W, 3] -> outputs [B, N].
      limit: largest allowed difference, relative to the largest output; None if only
        the top-1 classes have to agree.
      baseline: name and `call` of the model whose speed this one is compared with; None
        if speed is not measured.
    """

    file: str
    call: Callable[[np.ndarray], np.ndarray]
    limit: float | None
    baseline: tuple[str, Callable[[np.ndarray], np.ndarray]] | None = None


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
      with the same top-1 class; with a baseline, the images per second of both.
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
            result: manifest.JsonObject = {
                "relative_difference": max(_difference(*pair) for pair in pairs)
            }
            if other.limit is None and kind == "classification":
                logits = [(other.call(x[None]), reference(x[None])) for x in images]
                agreeing = sum(np.argmax(a) == np.argmax(b) for a, b in logits)
                result["top1_agreement"] = float(agreeing / len(logits))
            if other.baseline is not None and kind == "classification":
                name, baseline = other.baseline
                result["images_per_second"] = _measure_speed(
                    {export_format.name: other.call, name: baseline}, images
                )
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
    """Returns a one-line message for each classifier with something to report.

    That is its speed beside the baseline's, and how often its top-1 class is the
    SavedModel's. The latter is left out for random weights, whose classes mean nothing.
    """
    lines = []
    for file, result in report.get("classification", {}).items():
        parts = []
        if "images_per_second" in result:
            parts.append(_speed_summary(result["images_per_second"]))
        if "top1_agreement" in result and _is_trained(model):
            parts.append(_agreement_summary(result["top1_agreement"]))
        if parts:
            lines.append(f"{file} {'; '.join(parts)}")
    return lines


def _agreement_summary(agreement: float) -> str:
    only = "only " if agreement < _GOOD_AGREEMENT else ""
    return (
        f"predicts the SavedModel's class for {only}{agreement:.0%} of {_IMAGES} "
        "synthetic images"
    )


def _speed_summary(speed: manifest.JsonObject) -> str:
    """Compares a model with its baseline, in what `_measure_speed` returned."""
    size = _BATCH_SIZES[-1]
    (_, rate), (baseline, baseline_rate) = speed[f"batch_{size}"].items()
    ratio = round(rate / baseline_rate, 1)
    verdict = "computes" if ratio > 1 else f"is not faster than {baseline} here:"
    return f"{verdict} {ratio} times as many images/s as {baseline} at batch {size}"


def _measure_speed(
    models: Mapping[str, Callable[[np.ndarray], np.ndarray]], images: np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns the images per second by batch size and model.

    The models take turns, so that other load on the machine affects all alike.
    """
    speed = {}
    for size in _BATCH_SIZES:
        batch = images[:size]
        rates: dict[str, list[float]] = {name: [] for name in models}
        for call in models.values():
            call(batch)  # the first call allocates memory
        for _ in range(_TURNS):
            for name, call in models.items():
                rates[name].append(_images_per_second(call, batch))
        speed[f"batch_{size}"] = {
            name: round(statistics.median(values), 1) for name, values in rates.items()
        }
    return speed


def _images_per_second(
    call: Callable[[np.ndarray], np.ndarray], batch: np.ndarray
) -> float:
    """Calls a model repeatedly for a fraction of a second, at least once."""
    calls, seconds, start = 0, 0.0, time.perf_counter()
    while seconds < _TURN_SECONDS:
        call(batch)
        calls += 1
        seconds = time.perf_counter() - start
    return calls * len(batch) / seconds


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
