"""Classifies photographs with a SavedModel, by the class names that it carries."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import typing
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

DEFAULT_SIZE = 224  # pixels, where a model says nothing of its own
LARGEST_SIZE = 4096  # pixels
# Of Pillow's kinds of pixels, those of 8 bits a channel or fewer.
MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
)
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

    def __post_init__(self) -> None:
        for side in (self.height, self.width):
            if not isinstance(side, int) or not 1 <= side <= LARGEST_SIZE:
                raise ValueError(f"an input size of {side!r}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"a crop_fraction of {self.crop_fraction!r}")
        if self.interpolation not in INTERPOLATION:
            raise ValueError(f"an interpolation of {self.interpolation!r}")

    def read(self, path: pathlib.Path) -> np.ndarray:
        """Reads a photograph: [height, width, 3] float32 in [0, 1].

        Raises:
          ValueError: it is no image that Pillow can read, one of absurd size, or one
            of more than 8 bits a channel.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
                upright = self._upright(path)
        except FileNotFoundError as error:
            raise ValueError(f"{path}: no such file.") from error
        except (
            OSError,
            SyntaxError,
            ValueError,
            PIL.Image.DecompressionBombWarning,
            PIL.Image.DecompressionBombError,
        ) as error:
            raise ValueError(f"{path} is not a usable image: {error}.") from error
        return self.pixels(upright)

    def _upright(self, path: pathlib.Path) -> PIL.Image.Image:
        with PIL.Image.open(path) as image:
            if image.mode not in MODES:
                raise ValueError(f"pixels of mode {image.mode!r} are not supported")
            return PIL.ImageOps.exif_transpose(image).convert("RGB")

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
      ValueError: no SavedModel is there, it classifies nothing, or what it says of
        itself makes no sense.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        manifest = _manifest(path)
        if manifest.get("kind") == "feature_vector":
            raise ValueError(f"{path} gives feature vectors, not classes.")
        self.classes = _classes(path)
        try:
            self._model = tf.saved_model.load(str(path))
            self._call = _callable(self._model)
        except Exception as error:  # a damaged model may raise anything
            raise ValueError(f"{path} is not usable: {_first_line(error)}") from error
        try:
            weights = manifest.get("weights", {})
            self.is_random = weights.get("name") == "random" or bool(
                weights.get("head")
            )
            self._scores = (manifest.get("class_index") or {}).get("scores", "softmax")
            self.preprocessing = preprocessing(path, self._model)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} asks for what can't be: {_first_line(error)}."
            ) from error

    def predict(self, images: np.ndarray, *, top: int = 5) -> list[list[Prediction]]:
        """The most likely classes of each image, the best first.

        Args:
          images: [B, H, W, 3] float32 in [0, 1].
          top: how many classes.

        Raises:
          ValueError: the model does not take the images, or gives no logits for them.
        """
        logits = self.logits(images)
        function = tf.nn.sigmoid if self._scores == "sigmoid" else tf.nn.softmax
        probabilities = function(logits).numpy()
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :top]
        return [
            [
                self._prediction(c, logits[row, c], probabilities[row, c])
                for c in classes
            ]
            for row, classes in enumerate(best)
        ]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The scores of each image, [B, K] float32; arguments as for `predict`."""
        try:
            logits = np.asarray(self._call(tf.constant(images)))
        except Exception as error:  # others' models may raise anything
            raise ValueError(
                f"{self.path} can't take images of shape {images.shape}: "
                f"{_first_line(error)}"
            ) from error
        if logits.ndim != 2 or logits.dtype != np.float32 or len(logits) != len(images):
            raise ValueError(
                f"{self.path} gives {logits.dtype} of shape {logits.shape}, which are "
                "no logits."
            )
        if not logits.size or not np.isfinite(logits).all():
            raise ValueError(f"{self.path} gives no finite logits.")
        return logits

    def _prediction(self, index: int, logit: float, probability: float) -> Prediction:
        unnamed = ("", f"class {index}")
        id_, name = self.classes[index] if index < len(self.classes) else unnamed
        return Prediction(int(index), id_, name, float(logit), float(probability))


def _manifest(path: pathlib.Path) -> dict[str, typing.Any]:
    """What a model of this zoo says of itself; nothing for others' models."""
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


def preprocessing(path: pathlib.Path, model: typing.Any) -> Preprocessing:
    """What a model asks for: its manifest, else its fixed input size, if it has one.

    Args:
      path: of its folder.
      model: as `tf.saved_model.load` gave it.

    Raises:
      ValueError, LookupError, TypeError, AttributeError: what it says makes no sense.
    """
    asked = _manifest(path).get("preprocessing")
    if asked is not None:
        return Preprocessing(
            height=asked["image_size"],
            width=asked["image_size"],
            crop_fraction=asked["crop_fraction"],
            interpolation=asked["interpolation"],
        )
    signature = model.signatures.get("serving_default")
    if signature is None:
        return Preprocessing()
    specs = list(signature.structured_input_signature[1].values())
    if len(specs) != 1 or specs[0].shape.rank != 4:
        raise ValueError("its serving_default takes more, or other, than images")
    _, height, width, _ = specs[0].shape
    return Preprocessing(height=height or DEFAULT_SIZE, width=width or DEFAULT_SIZE)


def _callable(model: typing.Any) -> typing.Callable:
    """Images to logits: the root's `__call__`, or the signature for it."""
    if callable(model):
        arguments = model.__call__.function_spec.fullargspec.args
        trains = "training" in arguments
        return functools.partial(model, training=False) if trains else model
    for name in ("image_classification", "serving_default"):
        if name in model.signatures:
            signature = model.signatures[name]
            (images,) = signature.structured_input_signature[1]
            return lambda batch: _single(signature(**{images: batch}))
    raise ValueError("it has neither a __call__ nor a signature for images.")


def _single(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    return outputs["default"] if "default" in outputs else next(iter(outputs.values()))


def _classes(path: pathlib.Path) -> list[tuple[str, str]]:
    """Id and name of each class, from the text file among the model's assets."""
    files = [f for f in sorted((path / "assets").glob("*.t[sx][vt]")) if f.is_file()]
    if not files:
        return []
    try:
        lines = files[0].read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{files[0]} is no text.") from error
    rows = [line.split("\t") for line in lines]
    if rows and rows[0] == ["index", "id", "name"]:
        return [(row[1], row[-1]) if len(row) > 1 else ("", row[0]) for row in rows[1:]]
    return [("", row[-1]) for row in rows]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
