"""Classifies images with a SavedModel and the class names in its assets."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from images import model_input, reader
from reuse import graphs, precision_names
from reuse import precision as precisions

DEFAULT_SIZE = 224  # pixels, for a model that does not declare an input size
RANGES = {"0,1": (0.0, 1.0), "0,255": (0.0, 255.0), "-1,1": (-1.0, 1.0)}
"""Ranges of pixel values that models take; images have the first one."""

_Answer = typing.TypeVar("_Answer")
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


class Classifier:
    """A SavedModel that classifies images, from this project or not.

    The range of the input, and whether the outputs are logits or probabilities, come
    from the model's manifest, or else from its graph.

    Args:
      path: the model's folder.
      input_range: a key of `RANGES`, for a model that does not declare its range.
      precision: in which `predict` and `logits` compute, of `precision_names.ALL`.

    Attributes:
      classes: id and name of each class; empty if the model has no class names.
      preprocessing: turns an image into the model's input.
      is_random: whether the weights, or those of the head, are random.
      remarks: one-line warnings for the user, such as assumptions that were made.
      computation: calls the model in the precision.

    Raises:
      ValueError: there is no SavedModel, it does not classify images, its manifest is
        invalid, or the computer does not have the precision.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        input_range: str | None = None,
        precision: str = precision_names.FLOAT32,
    ) -> None:
        self.path = path
        self.computation = precisions.Function(self._call, precision)
        self.remarks = self.computation.remarks
        self._manifest = _manifest(path)
        if self._manifest.get("kind") == "feature_vector":
            raise ValueError(
                f"{path} returns feature vectors; give the classifier of the pair."
            )
        self.classes = _classes(path, self._manifest)
        try:
            self._model = tf.saved_model.load(str(path))
            self._function = _ImageFunction(self._model)
        except Exception as error:  # a damaged model may raise anything
            raise ValueError(f"{path} is not usable: {_first_line(error)}") from error
        try:
            weights = self._manifest.get("weights", {})
            self.is_random = weights.get("name") == "random" or bool(
                weights.get("head")
            )
            class_index = self._manifest.get("class_index") or {}
            self._declared_scores = class_index.get("scores")
            if self._declared_scores not in (None, "softmax", "sigmoid"):
                raise ValueError(
                    "scores must be 'softmax' or 'sigmoid', not "
                    f"{self._declared_scores!r}"
                )
            self.preprocessing = preprocessing(path, self._model)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} has an invalid manifest: {_first_line(error)}."
            ) from error
        self._low, self._high = self._input_range(input_range)
        if self.is_random:
            self.remarks.insert(
                0,
                "RANDOM WEIGHTS: not trained; predictions mean nothing",
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
        outputs = self._outputs(images, self.computation)
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

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits of each image's classes, [B, K] float32.

        The probabilities of a model that returns those are converted to logits. Takes
        the same images as `predict` and raises the same errors.
        """
        outputs = self._outputs(images, self.computation)
        if self.scores in ("softmax", "sigmoid") and self.num_scores > 1:
            return outputs
        probabilities = np.maximum(self._probabilities(outputs), _TINY)
        if self.score_function == "sigmoid":
            complements = np.maximum(1 - probabilities, _TINY)
            return np.log(probabilities) - np.log(complements)
        return np.log(probabilities)

    def _input_range(self, key: str | None) -> tuple[float, float]:
        """Returns the values that the model takes for black and white."""
        if key:
            return RANGES[key]
        if self._manifest:
            return RANGES["0,1"]
        if self._function.spec.dtype.is_integer:
            return RANGES["0,255"]
        scaling = self._function.read_graph(graphs.find_scaling)
        input_range = scaling.input_range if scaling else None
        if not input_range:
            self.remarks.append(
                "the model does not declare the range of its input: [0, 1] is assumed; "
                "if it is another, pass --input_range=0,255 or --input_range=-1,1"
            )
        return input_range or RANGES["0,1"]

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities [B, K]; a single score is for class 1 of two."""
        if self.scores == "softmax":
            return tf.nn.softmax(outputs).numpy()
        is_logit = self.scores == "sigmoid"
        probabilities = tf.nn.sigmoid(outputs).numpy() if is_logit else outputs
        if self.num_classes > outputs.shape[1]:
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities

    def _call(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._function(images))

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
        scaled = self._low + images * (self._high - self._low)
        try:
            outputs = call(scaled)
        except precisions.UnavailableError as error:
            raise ValueError(f"{self.path}: {error}.") from error
        except Exception as error:  # a foreign model may raise anything
            raise ValueError(
                f"{self.path} can't take images of shape {images.shape}: "
                f"{_reason(error)}"
            ) from error
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
    images: Iterable[pathlib.Path | tuple[str, bytes]],
    *,
    batch_size: int = 32,
) -> Iterator[Result]:
    """Classifies images in order, with one batch in memory.

    Args:
      classifier: the model.
      images: paths of files, or names and encoded bytes of images. An image that can't
        be read yields a result with an error.
      batch_size: number of images in a batch.

    Yields:
      The result of each image.

    Raises:
      ValueError: the model does not take the images, or does not return scores.
    """
    image_reader = reader.Reader(classifier.preprocessing)

    def read(image: pathlib.Path | tuple[str, bytes]) -> Result:
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


class _ImageFunction:
    """The function of a model from images to scores: `__call__`, or a signature.

    Args:
      model: the result of `tf.saved_model.load`.

    Attributes:
      spec: the tf.TensorSpec of the images.

    Raises:
      ValueError: the model has neither a `__call__` nor a suitable signature, or the
        function takes anything but a batch of images.
    """

    def __init__(self, model: typing.Any) -> None:
        self._output: str | None = None
        if callable(model):
            names = model.__call__.function_spec.fullargspec.args
            options = {"training": False} if "training" in names else {}
            self._call: Callable[..., typing.Any] = functools.partial(model, **options)
            traces = model.__call__.concrete_functions
            self.spec = traces[0].structured_input_signature[0][0]
            _check_images(self.spec)
            self._trace: Callable[[], typing.Any] = functools.partial(
                model.__call__.get_concrete_function, self.spec, **options
            )
            return
        candidates = ("image_classification", "serving_default")
        name = next((name for name in candidates if name in model.signatures), None)
        if name is None:
            raise ValueError("it has neither a __call__ nor a signature for images.")
        signature = model.signatures[name]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise ValueError(
                f"its signature {name} must take only images, but takes "
                f"{' and '.join(sorted(inputs))}"
            )
        ((images, self.spec),) = inputs.items()
        _check_images(self.spec)
        outputs = signature.structured_outputs
        if len(outputs) != 1 and "default" not in outputs:
            raise ValueError(
                f"its signature {name} returns {' and '.join(sorted(outputs))}; the "
                "scores must be its only output, or be named default"
            )
        self._output = "default" if "default" in outputs else next(iter(outputs))
        self._call = lambda batch: signature(**{images: batch})[self._output]
        self._trace = lambda: signature

    def __call__(self, images: np.ndarray) -> tf.Tensor:
        """Returns the scores of images [B, H, W, 3], for any batch size and dtype.

        Splits and pads the images for a model with a fixed batch size, and casts them
        to the model's dtype.
        """
        if self.spec.dtype.is_integer:
            images = np.rint(images)
        size = self.spec.shape[0] if self.spec.shape.rank else None
        batches = [images]
        if size:
            missing = -len(images) % size
            padded = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
            batches = np.split(padded, len(padded) // size)
        parts = [self._call(tf.cast(batch, self.spec.dtype)) for batch in batches]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)[: len(images)]

    def read_graph(self, read: Callable[..., _Answer]) -> _Answer | None:
        """Applies a function of `graphs` to the graph; returns None if it fails."""
        try:
            return read(self._trace(), self._output)
        except Exception:  # a foreign graph may hold anything
            return None


def _check_images(spec: typing.Any) -> None:
    """Raises ValueError unless a model takes images [B, H, W, 3]."""
    shape = spec.shape
    if shape.rank is not None and (shape.rank != 4 or shape[-1] not in (None, 3)):
        raise ValueError(
            f"it must take images [batch, height, width, 3], but takes {list(shape)}"
        )


def _manifest(path: pathlib.Path) -> dict[str, typing.Any]:
    """Returns the manifest of a model; empty if the model has none."""
    file = path / "assets.extra" / "manifest.json"
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable: {_first_line(error)}.") from error
    if not isinstance(manifest, dict):
        raise ValueError(
            f"{file} must hold a JSON object, not a {type(manifest).__name__}."
        )
    return manifest


def preprocessing(path: pathlib.Path, model: typing.Any) -> model_input.Preprocessing:
    """Returns a model's preprocessing: from its manifest, or for its fixed input size.

    The input size of a model that has neither is `DEFAULT_SIZE`.

    Args:
      path: the model's folder.
      model: the result of `tf.saved_model.load`.

    Raises:
      ValueError, LookupError, TypeError, AttributeError: the manifest or the signature
        is invalid.
    """
    record = _manifest(path).get("preprocessing")
    if record is not None:
        return model_input.Preprocessing(
            height=record["image_size"],
            width=record["image_size"],
            crop_fraction=record["crop_fraction"],
            interpolation=record["interpolation"],
        )
    signature = model.signatures.get("serving_default")
    size = (None, None)
    if signature is not None:
        specs = list(signature.structured_input_signature[1].values())
        if len(specs) != 1 or specs[0].shape.rank != 4:
            raise ValueError("its signature serving_default must take only images")
        size = specs[0].shape[1:3]
    height, width = (side or DEFAULT_SIZE for side in size)
    return model_input.Preprocessing(height=height, width=width)


def _classes(
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


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.OpError):
        return reader.reason(error)
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
