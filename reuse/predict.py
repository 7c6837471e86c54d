"""Classifies photographs with a SavedModel, by the class names that it carries."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import pathlib
import typing

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

DEFAULT_SIZE = 224  # pixels, where a model says nothing of its own
INTERPOLATION = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One class that a model proposes for a photograph."""

    index: int
    id: str
    name: str
    logit: float
    probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photograph becomes the model's input.

    Args:
      height: of the input, pixels.
      width: of the input, pixels.
      crop_fraction: share of the shorter side that the central square crop keeps.
      interpolation: `bilinear` or `bicubic`; shrinking antialiases.
    """

    height: int = DEFAULT_SIZE
    width: int = DEFAULT_SIZE
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def read(self, path: pathlib.Path) -> np.ndarray:
        """Reads a photograph: [height, width, 3] float32 in [0, 1].

        Raises:
          ValueError: it is no image that Pillow can read, or one of absurd size.
        """
        try:
            with PIL.Image.open(path) as image:
                upright = PIL.ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or "not an image that is readable"
            raise ValueError(f"{path}: {reason}.") from error
        return self.pixels(upright)

    def pixels(self, image: PIL.Image.Image) -> np.ndarray:
        """Central square crop -> resize -> [0, 1].

        Source: `_decode_and_center_crop` of the TPU EfficientNet code, for the place
        of the crop: (side - crop + 1) // 2.
        """
        side = max(1, int(self.crop_fraction * min(image.size)))
        left, top = ((length - side + 1) // 2 for length in image.size)
        square = image.crop((left, top, left + side, top + side))
        size = (self.width, self.height)
        resized = square.resize(size, INTERPOLATION[self.interpolation])
        return np.asarray(resized, dtype=np.float32) / 255


class Classifier:
    """A SavedModel with what it says of itself; any image classifier will do.

    Args:
      path: the model's folder.

    Raises:
      ValueError: no SavedModel is there, or it classifies nothing.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._manifest = _manifest(path)
        if self._manifest.get("kind") == "feature_vector":
            raise ValueError(f"{path} gives feature vectors, not classes.")
        try:
            self._model = tf.saved_model.load(str(path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} is not a usable SavedModel: {reason}") from error
        self._call = _callable(self._model, path)
        self.classes = _classes(path)

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """What the manifest asks for; else the fixed input size, if there is one."""
        asked = self._manifest.get("preprocessing")
        if asked:
            return Preprocessing(
                height=asked["image_size"],
                width=asked["image_size"],
                crop_fraction=asked["crop_fraction"],
                interpolation=asked["interpolation"],
            )
        signature = self._model.signatures.get("serving_default")
        if signature is None:
            return Preprocessing()
        (spec,) = signature.structured_input_signature[1].values()
        _, height, width, _ = spec.shape
        return Preprocessing(height=height or DEFAULT_SIZE, width=width or DEFAULT_SIZE)

    def predict(self, images: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """The most likely classes of each image, the best first.

        Args:
          images: [B, H, W, 3] float32 in [0, 1].
          top: how many classes.
        """
        logits = np.asarray(self._call(tf.constant(images)))
        scores = self._manifest.get("class_index", {}).get("scores", "softmax")
        function = tf.nn.sigmoid if scores == "sigmoid" else tf.nn.softmax
        probabilities = function(logits).numpy()
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :top]
        return [
            [
                self._prediction(c, logits[row, c], probabilities[row, c])
                for c in classes
            ]
            for row, classes in enumerate(best)
        ]

    def _prediction(self, index: int, logit: float, probability: float) -> Prediction:
        unnamed = ("", f"class {index}")
        id_, name = self.classes[index] if index < len(self.classes) else unnamed
        return Prediction(int(index), id_, name, float(logit), float(probability))


def _manifest(path: pathlib.Path) -> dict[str, typing.Any]:
    """What a model of this zoo says of itself; nothing for others' models."""
    try:
        text = (path / "assets.extra" / "manifest.json").read_text(encoding="utf-8")
        manifest = json.loads(text)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _callable(model: typing.Any, path: pathlib.Path) -> typing.Callable:
    """Images to logits: the root's `__call__`, or the signature for it."""
    if callable(model):
        return functools.partial(model, training=False) if _trains(model) else model
    for name in ("image_classification", "serving_default"):
        if name in model.signatures:
            signature = model.signatures[name]
            (images,) = signature.structured_input_signature[1]
            return lambda batch: _single(signature(**{images: batch}))
    raise ValueError(f"{path} has neither a __call__ nor a signature for images.")


def _trains(model: typing.Any) -> bool:
    return "training" in model.__call__.function_spec.fullargspec.args


def _single(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    return outputs["default"] if "default" in outputs else next(iter(outputs.values()))


def _classes(path: pathlib.Path) -> list[tuple[str, str]]:
    """Id and name of each class, from the text file among the model's assets."""
    files = sorted((path / "assets").glob("*.t[sx][vt]"))
    if not files:
        return []
    with files[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if rows and rows[0] == ["index", "id", "name"]:
        return [(row[1], row[2]) for row in rows[1:]]
    return [("", row[-1] if row else "") for row in rows]
