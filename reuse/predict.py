"""Classifies photographs with a SavedModel, by the class names that it carries."""

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
from reuse import graphs

DEFAULT_SIZE = 224  # pixels, where a model says nothing of its own
RANGES = {"0,1": (0.0, 1.0), "0,255": (0.0, 255.0), "-1,1": (-1.0, 1.0)}
"""Ranges of values that models take; images come in the first one."""

_Answer = typing.TypeVar("_Answer")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\r": "\r", r"\\": "\\"}
_TOLERANCE = 1e-3  # of the sum of probabilities
_TINY = 1e-30  # the least probability whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class that a model proposes for a photograph.

    Attributes:
      index: of the class.
      id: of the class.
      name: of the class.
      score: what the model gives for it.
      probability: the same in [0, 1].
    """

    index: int
    id: str
    name: str
    score: float
    probability: float


class Classifier:
    """A SavedModel that classifies images, of this project or not.

    What the model does not say in a record is read from its graph: the range of its
    input, and whether its outputs are logits or probabilities.

    Args:
      path: the model's folder.
      input_range: a key of `RANGES`, for a model that does not say what it takes.

    Attributes:
      classes: id and name of each class; nothing where the model carries no names.
      preprocessing: from an image to the model's input.
      is_random: whether its weights are random.
      remarks: what users should know, such as what had to be assumed; a line each.

    Raises:
      ValueError: no SavedModel is there, it classifies nothing, or what it says of
        itself makes no sense.
    """

    def __init__(self, path: pathlib.Path, *, input_range: str | None = None) -> None:
        self.path = path
        self.remarks: list[str] = []
        self._manifest = _manifest(path)
        if self._manifest.get("kind") == "feature_vector":
            raise ValueError(f"{path} gives feature vectors, not classes.")
        self.classes = _classes(path)
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
            record = self._manifest.get("class_index") or {}
            self._stated_scores = record.get("scores")
            if self._stated_scores not in (None, "softmax", "sigmoid"):
                raise ValueError(f"scores are {self._stated_scores!r}")
            self.preprocessing = preprocessing(path, self._model)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} has an invalid record: {_first_line(error)}."
            ) from error
        self._low, self._high = self._range(input_range)
        if self.is_random:
            self.remarks.insert(0, "RANDOM WEIGHTS: what it says means nothing")

    @functools.cached_property
    def num_scores(self) -> int:
        """How many scores the model gives for an image."""
        return self._outputs(self._noise()).shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes `logits` and `predict` tell apart."""
        is_of_two = self.num_scores == 1 and len(self.classes) != 1
        return 2 if is_of_two else self.num_scores

    @functools.cached_property
    def scores(self) -> str:
        """What the outputs are.

        `softmax` or `sigmoid`: logits for such a function. `probabilities` of classes
        that exclude each other, or `independent probabilities`.
        """
        if self._stated_scores:
            return str(self._stated_scores)
        if self.num_classes > self.num_scores:
            self.remarks.append("it gives one score: that of class 1, of two")
        last = self._function.read_graph(graphs.final_op)
        outputs = self._outputs(self._noise())
        if last == graphs.SOFTMAX:
            return "probabilities"
        if last == graphs.SIGMOID:
            return "independent probabilities"
        sums = np.abs(outputs.sum(axis=-1) - 1)
        if outputs.shape[1] > 1 and outputs.min() >= 0 and sums.max() < _TOLERANCE:
            self.remarks.append("its scores sum to 1: they are shown as probabilities")
            return "probabilities"
        function = "sigmoid" if outputs.shape[1] == 1 else "softmax"
        self.remarks.append(
            "it does not say what its scores are: percentages are those of a "
            f"{function}"
        )
        return function

    @property
    def known_scores(self) -> str | None:
        """`softmax` or `sigmoid`: what the logits are for; None where that is open."""
        if self._stated_scores:
            return str(self._stated_scores)
        if self.num_classes > self.num_scores:
            return "softmax"
        kinds = {"probabilities": "softmax", "independent probabilities": "sigmoid"}
        return kinds.get(self.scores)

    def predict(self, images: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """The most likely classes of each image, the best first.

        Args:
          images: [B, H, W, 3] float32 in [0, 1].
          top: how many classes.

        Raises:
          ValueError: the model does not take the images, or gives no scores for them.
        """
        outputs = self._outputs(images)
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
        """The logits of each image's classes, [B, K] float32; see `predict`.

        Of a model that gives probabilities, what a softmax or sigmoid makes them of.
        """
        outputs = self._outputs(images)
        if self.scores in ("softmax", "sigmoid") and self.num_scores > 1:
            return outputs
        found = np.maximum(self._probabilities(outputs), _TINY)
        if self.known_scores == "sigmoid":
            return np.log(found) - np.log(np.maximum(1 - found, _TINY))
        return np.log(found)

    def _range(self, given: str | None) -> tuple[float, float]:
        """The values that the model takes for black and white."""
        if given:
            return RANGES[given]
        if self._manifest:
            return RANGES["0,1"]
        if self._function.spec.dtype.is_integer:
            return RANGES["0,255"]
        scaling = self._function.read_graph(graphs.scaling)
        found = scaling.input_range if scaling else None
        if not found:
            self.remarks.append(
                "it does not say what range its input has: [0, 1] is assumed; "
                "--input_range=0,255 or -1,1 takes another"
            )
        return found or RANGES["0,1"]

    def _probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """[B, K]; of one score for two classes, that of the second class is given."""
        if self.scores == "softmax":
            return tf.nn.softmax(outputs).numpy()
        is_logit = self.scores == "sigmoid"
        found = tf.nn.sigmoid(outputs).numpy() if is_logit else outputs
        is_of_two = self.num_classes > outputs.shape[1]
        return np.concatenate([1 - found, found], axis=1) if is_of_two else found

    def _outputs(self, images: np.ndarray) -> np.ndarray:
        """What the model gives for images [B, H, W, 3] in [0, 1]: [B, K] float32."""
        scaled = self._low + images * (self._high - self._low)
        try:
            outputs = np.asarray(self._function(scaled))
        except Exception as error:  # others' models may raise anything
            raise ValueError(
                f"{self.path} can't take images of shape {images.shape}: "
                f"{_reason(error)}"
            ) from error
        is_score = outputs.ndim == 2 and outputs.dtype.kind == "f"
        if not is_score or len(outputs) != len(images):
            raise ValueError(
                f"{self.path} gives {outputs.dtype} of shape {outputs.shape}, which "
                "are no scores [batch, classes]."
            )
        if not outputs.size or not np.isfinite(outputs).all():
            raise ValueError(f"{self.path} gives no finite scores.")
        return outputs.astype(np.float32)

    def _noise(self) -> np.ndarray:
        wanted = self.preprocessing
        shape = (2, wanted.height, wanted.width, 3)
        return np.random.default_rng(0).random(shape, np.float32)

    def _prediction(self, index: int, score: float, probability: float) -> Prediction:
        unnamed = ("", f"class {index}")
        id_, name = self.classes[index] if index < len(self.classes) else unnamed
        return Prediction(index, id_, name, float(score), float(probability))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one image.

    Attributes:
      name: the path of its file, or where else it is.
      image: the model's input, [H, W, 3] float32 in [0, 1]; None if unreadable.
      predictions: the most likely classes, the best first.
      error: why it can't be read, if so.
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
    """Classifies images in their order, holding one batch in memory.

    Args:
      classifier: the model.
      images: paths of files, or names of images and their encoded bytes; those that
        can't be read give results with an error.
      batch_size: images that the model takes at once.

    Raises:
      ValueError: the model does not take the images, or gives no scores for them.
    """
    reads = reader.Reader(classifier.preprocessing)

    def read(image: pathlib.Path | tuple[str, bytes]) -> Result:
        name = image[0] if isinstance(image, tuple) else _text(image)
        try:
            if isinstance(image, tuple):
                return Result(name=name, image=reads.decode(*image))
            return Result(name=name, image=reads.read(image))
        except ValueError as error:
            return Result(name=name, error=str(error))

    waiting = iter(images)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while some := list(itertools.islice(waiting, batch_size)):
            batch = list(pool.map(read, some))
            readable = [result.image for result in batch if result.image is not None]
            predicted = iter(classifier.predict(np.stack(readable)) if readable else [])
            for result in batch:
                yield (
                    result
                    if result.error
                    else dataclasses.replace(result, predictions=next(predicted))
                )


def _text(path: pathlib.Path) -> str:
    """A path whose name may be no UTF-8."""
    return os.fsencode(path).decode(errors="replace")


class _ImageFunction:
    """From images to scores: the root's `__call__`, or the signature for it.

    Args:
      model: as `tf.saved_model.load` gave it.

    Attributes:
      spec: of the images.

    Raises:
      ValueError: it has neither, or they take more, or other, than images.
    """

    def __init__(self, model: typing.Any) -> None:
        self._output: str | None = None
        if callable(model):
            takes = model.__call__.function_spec.fullargspec.args
            options = {"training": False} if "training" in takes else {}
            self._call: Callable[..., typing.Any] = functools.partial(model, **options)
            traces = model.__call__.concrete_functions
            self.spec = traces[0].structured_input_signature[0][0]
            _check_images(self.spec)
            self._trace: Callable[[], typing.Any] = functools.partial(
                model.__call__.get_concrete_function, self.spec, **options
            )
            return
        names = ("image_classification", "serving_default")
        name = next((name for name in names if name in model.signatures), None)
        if name is None:
            raise ValueError("it has neither a __call__ nor a signature for images.")
        signature = model.signatures[name]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise ValueError(
                f"its signature {name} takes {' and '.join(sorted(inputs))}, and not "
                "images alone"
            )
        ((images, self.spec),) = inputs.items()
        _check_images(self.spec)
        outputs = signature.structured_outputs
        if len(outputs) != 1 and "default" not in outputs:
            raise ValueError(
                f"its signature {name} gives {' and '.join(sorted(outputs))}, none of "
                "which is called default: there is no telling which are the scores"
            )
        self._output = "default" if "default" in outputs else next(iter(outputs))
        self._call = lambda batch: signature(**{images: batch})[self._output]
        self._trace = lambda: signature

    def __call__(self, images: np.ndarray) -> tf.Tensor:
        """Scores of images [B, H, W, 3], whatever batches and dtype the model takes."""
        if self.spec.dtype.is_integer:
            images = np.rint(images)
        size = self.spec.shape[0] if self.spec.shape.rank else None
        batches = [images]
        if size:
            missing = -len(images) % size
            padded = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
            batches = np.split(padded, len(padded) // size)
        found = [self._call(tf.cast(batch, self.spec.dtype)) for batch in batches]
        return found[0] if len(found) == 1 else tf.concat(found, axis=0)[: len(images)]

    def read_graph(self, question: Callable[..., _Answer]) -> _Answer | None:
        """Answers a question of `graphs`; None where the graph is beyond it."""
        try:
            return question(self._trace(), self._output)
        except Exception:  # others' graphs may hold anything; then it is unknown
            return None


def _check_images(spec: typing.Any) -> None:
    """Raises ValueError where a model takes no images [B, H, W, 3]."""
    shape = spec.shape
    if shape.rank is not None and (shape.rank != 4 or shape[-1] not in (None, 3)):
        raise ValueError(
            f"it takes {list(shape)}, and not images [batch, height, width, 3]"
        )


def _manifest(path: pathlib.Path) -> dict[str, typing.Any]:
    """The manifest of a model of this project; nothing for others' models."""
    file = path / "assets.extra" / "manifest.json"
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable: {_first_line(error)}.") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{file} is no manifest.")
    return manifest


def preprocessing(path: pathlib.Path, model: typing.Any) -> model_input.Preprocessing:
    """What a model asks for: its manifest, else its fixed input size, if it has one.

    Args:
      path: of its folder.
      model: as `tf.saved_model.load` gave it.

    Raises:
      ValueError, LookupError, TypeError, AttributeError: what it says makes no sense.
    """
    asked = _manifest(path).get("preprocessing")
    if asked is not None:
        return model_input.Preprocessing(
            height=asked["image_size"],
            width=asked["image_size"],
            crop_fraction=asked["crop_fraction"],
            interpolation=asked["interpolation"],
        )
    signature = model.signatures.get("serving_default")
    size = (None, None)
    if signature is not None:
        specs = list(signature.structured_input_signature[1].values())
        if len(specs) != 1 or specs[0].shape.rank != 4:
            raise ValueError("its serving_default takes more, or other, than images")
        size = specs[0].shape[1:3]
    height, width = (side or DEFAULT_SIZE for side in size)
    return model_input.Preprocessing(height=height, width=width)


def _classes(path: pathlib.Path) -> list[tuple[str, str]]:
    """Id and name of each class, from the text file among the model's assets."""
    files = [f for f in sorted((path / "assets").glob("*.t[sx][vt]")) if f.is_file()]
    if not files:
        return []
    try:
        text = files[0].read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{files[0]} is no text.") from error
    rows = [line.split("\t") for line in text.split("\n")] if text else []
    if rows and rows[0] == ["index", "id", "name"]:
        cells = [[_unescaped(cell) for cell in row] for row in rows[1:]]
        return [(row[1], row[-1]) if len(row) > 1 else ("", row[0]) for row in cells]
    return [("", row[-1]) for row in rows]


def _unescaped(cell: str) -> str:
    """What a cell of our class index stands for: it has no tabs and line ends."""
    return re.sub(r"\\[tnr\\]", lambda match: _ESCAPES[match[0]], cell)


def _reason(error: Exception) -> str:
    is_of_tensorflow = isinstance(error, tf.errors.OpError)
    return reader.reason(error) if is_of_tensorflow else _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
