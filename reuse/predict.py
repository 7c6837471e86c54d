"""Classifies images with a SavedModel and the class names in its assets."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from images import reader
from reuse import graphs, image_model, precision_names

_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r", r"\\": "\\"}
_TOLERANCE = 1e-3  # by which a sum of probabilities may differ from 1
_TINY = 1e-30  # lower bound of probabilities before the logarithm


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A class that a model predicts for an image.

    Attributes:
      index: index of the class.
      id: id of the class.
      name: name of the class.
      score: the model's output for the class.
      probability: the probability of the class, in [0, 1].
    """

    index: int
    id: str
    name: str
    score: float
    probability: float


class Classifier(image_model.ImageModel):
    """A SavedModel that classifies images, from this project or not.

    Whether the outputs are logits or probabilities comes from the model's manifest, or
    else from its graph.

    Attributes:
      classes: id and name of each class; empty if the model has no class names.
    """

    random_means = "predictions mean nothing"

    def __init__(
        self,
        path: pathlib.Path,
        *,
        input_range: str | None = None,
        precision: str = precision_names.FLOAT32,
    ) -> None:
        super().__init__(path, input_range=input_range, precision=precision)
        self.classes = classes(path, self.manifest)

    def _choose_function(self, model: typing.Any) -> image_model.ImageFunction:
        if self.manifest.get("kind") == image_model.FEATURE_VECTOR:
            raise ValueError(
                "it returns feature vectors; give the classifier of the pair"
            )
        return image_model.ImageFunction.of_call(
            model, "image_classification", "serving_default"
        )

    @functools.cached_property
    def num_scores(self) -> int:
        """Number of scores that the model returns for an image."""
        return self._random_outputs.shape[1]

    @property
    def num_classes(self) -> int:
        """Number of classes that `logits` and `predict` distinguish."""
        is_binary = self.num_scores == 1 and len(self.classes) != 1
        return 2 if is_binary else self.num_scores

    @functools.cached_property
    def scores(self) -> str:
        """The kind of the outputs.

        `softmax` or `sigmoid`: logits for that function. `probabilities`: of mutually
        exclusive classes. `independent probabilities`: of classes that are not.
        """
        if self._declared_scores:
            return str(self._declared_scores)
        if self.num_classes > self.num_scores:
            self.remarks.append(
                "the model returns one score: it is taken for that of class 1 of two"
            )
        op = self._function.read_graph(graphs.final_op)
        outputs = self._random_outputs
        if op == graphs.SOFTMAX:
            return "probabilities"
        if op == graphs.SIGMOID:
            return "independent probabilities"
        sums = np.abs(outputs.sum(axis=-1) - 1)
        if outputs.shape[1] > 1 and outputs.min() >= 0 and sums.max() < _TOLERANCE:
            self.remarks.append("the scores sum to 1: they are taken for probabilities")
            return "probabilities"
        function = "sigmoid" if outputs.shape[1] == 1 else "softmax"
        self.remarks.append(
            "the model does not declare what its scores are: they are taken for logits "
            f"of a {function}"
        )
        return function

    @property
    def score_function(self) -> str | None:
        """`softmax` or `sigmoid`, the function for the logits; None if unknown."""
        if self._declared_scores:
            return str(self._declared_scores)
        if self.num_classes > self.num_scores:
            return "softmax"
        kinds = {"probabilities": "softmax", "independent probabilities": "sigmoid"}
        return kinds.get(self.scores)

    def predict(self, images: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """Returns the most likely classes of each image, the most likely first.

        Args:
          images: [B, H, W, 3] float32 in [0, 1].
          top: how many classes to return.

        Raises:
          ValueError: the model does not take the images, or does not return scores.
        """
        return self.rank(self.outputs(images), top=top)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of each image's classes, [B, K] float32.

        The probabilities of a model that returns those are converted to logits. Takes
        the same images as `predict` and raises the same errors.
        """
        return self.to_logits(self.outputs(images))

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Returns the model's outputs as they are; otherwise like `logits`."""
        return self._outputs(images, self.computation)

    def rank(self, outputs: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """Returns what `predict` returns, from the model's outputs."""
        probabilities = self._probabilities(outputs)
        outputs = np.broadcast_to(outputs, probabilities.shape)
        best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
        return [
            [
                self._prediction(int(c), outputs[row, c], probabilities[row, c])
                for c in classes
            ]
            for row, classes in enumerate(best)
        ]

    def to_logits(self, outputs: np.ndarray) -> np.ndarray:
        """Returns what `logits` returns, from the model's outputs."""
        if self.scores in ("softmax", "sigmoid") and self.num_scores > 1:
            return outputs
        probabilities = np.maximum(self._probabilities(outputs), _TINY)
        if self.score_function == "sigmoid":
            complements = np.maximum(1 - probabilities, _TINY)
            return np.log(probabilities) - np.log(complements)
        return np.log(probabilities)

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities [B, K]; a single score is for class 1 of two."""
        if self.scores == "softmax":
            return tf.nn.softmax(outputs).numpy()
        is_logit = self.scores == "sigmoid"
        probabilities = tf.nn.sigmoid(outputs).numpy() if is_logit else outputs
        if self.num_classes > outputs.shape[1]:
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities

    @functools.cached_property
    def _random_outputs(self) -> np.ndarray:
        """Outputs [2, K] float32 for two random images."""
        shape = (2, self.preprocessing.height, self.preprocessing.width, 3)
        images = np.random.default_rng(0).random(shape, np.float32)
        return self._outputs(images, self._call)

    def _outputs(
        self, images: np.ndarray, call: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Returns the outputs [B, K] float32 for images [B, H, W, 3] in [0, 1]."""
        outputs = self._scaled_call(images, call)
        is_score = outputs.ndim == 2 and outputs.dtype.kind == "f"
        if not is_score or len(outputs) != len(images):
            raise ValueError(
                f"{self.path} must return floating scores [batch, classes], not "
                f"{outputs.dtype} of shape {outputs.shape}."
            )
        if not outputs.size or not np.isfinite(outputs).all():
            raise ValueError(
                f"{self.path} returns scores that are not finite, or none at all."
            )
        return outputs.astype(np.float32)

    def _prediction(self, index: int, score: float, probability: float) -> Prediction:
        unnamed = ("", f"class {index}")
        id_, name = self.classes[index] if index < len(self.classes) else unnamed
        return Prediction(index, id_, name, float(score), float(probability))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The classification of one image, or the reason why it can't be read.

    Attributes:
      name: path of the image file, or another description of where the image is.
      image: the model's input, [H, W, 3] float32 in [0, 1]; None if unreadable.
      predictions: the most likely classes, the most likely first.
      error: why the image can't be read; empty if it can.
    """

    name: str
    image: np.ndarray | None = None
    predictions: Sequence[Prediction] = ()
    error: str = ""


def classify_all(
    classifier: Classifier,
    images: Iterable[pathlib.Path | tuple[str, bytes] | Result],
    *,
    batch_size: int = 32,
) -> Iterator[Result]:
    """Classifies images in order, with one batch in memory.

    Args:
      classifier: the model.
      images: paths of files, names and encoded bytes of images, or results with the
        error of images that can't be read. Others that can't be read yield such
        results, too.
      batch_size: number of images in a batch.

    Yields:
      The result of each image.

    Raises:
      ValueError: the model does not take the images, or does not return scores.
    """
    image_reader = reader.Reader(classifier.preprocessing)

    def read(image: pathlib.Path | tuple[str, bytes] | Result) -> Result:
        if isinstance(image, Result):
            return image
        name = image[0] if isinstance(image, tuple) else _path_text(image)
        try:
            if isinstance(image, tuple):
                return Result(name=name, image=image_reader.decode(*image))
            return Result(name=name, image=image_reader.read(image))
        except ValueError as error:
            return Result(name=name, error=str(error))

    pending = iter(images)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(pending, batch_size)):
            batch = list(pool.map(read, chunk))
            readable = [result.image for result in batch if result.image is not None]
            predicted = iter(classifier.predict(np.stack(readable)) if readable else [])
            for result in batch:
                yield (
                    result
                    if result.error
                    else dataclasses.replace(result, predictions=next(predicted))
                )


def _path_text(path: pathlib.Path) -> str:
    """Returns a path as text, with replacements for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def classes(
    path: pathlib.Path, manifest: dict[str, typing.Any]
) -> list[tuple[str, str]]:
    """Returns id and name of each class; empty if the model has no class names.

    They are in the asset that the manifest names. A model of another project, which has
    no manifest, usually has them in its only `.txt` or `.tsv` asset.
    """
    files = [f for f in sorted((path / "assets").glob("*.t[sx][vt]")) if f.is_file()]
    record = manifest.get("class_index")
    named = record.get("file") if isinstance(record, dict) else None
    files.sort(key=lambda file: file.relative_to(path).as_posix() != named)
    if not files:
        return []
    try:
        text = files[0].read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{files[0]} is not UTF-8 text.") from error
    rows = [line.split("\t") for line in text.split("\n")] if text else []
    if rows and rows[0] == ["index", "id", "name"]:
        cells = [[_unescaped(cell) for cell in row] for row in rows[1:]]
        return [(row[1], row[-1]) if len(row) > 1 else ("", row[0]) for row in cells]
    return [("", row[-1]) for row in rows]


def _unescaped(cell: str) -> str:
    """Replaces the escapes of tabs and line ends in a cell of a class index."""
    return re.sub(r"\\[tnr\\]", lambda match: _ESCAPES[match[0]], cell)
