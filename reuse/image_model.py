"""Loads any SavedModel that takes images, with what its manifest or graph declares."""

from __future__ import annotations

import abc
import functools
import json
import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from images import model_input, reader
from reuse import graphs, precision_names
from reuse import precision as precisions

DEFAULT_SIZE = 224  # pixels, for a model that does not declare an input size
RANGES = {"0,1": (0.0, 1.0), "0,255": (0.0, 255.0), "-1,1": (-1.0, 1.0)}
"""Ranges of pixel values that models take; images have the first one."""
FEATURE_VECTOR, CLASSIFICATION = "feature_vector", "classification"
"""Kinds of models, as a manifest names them."""

_Answer = typing.TypeVar("_Answer")


class ImageModel(abc.ABC):
    """A SavedModel that takes images, from this project or not.

    The preprocessing and the range of the input come from the model's manifest, or else
    from its graph.

    Args:
      path: the model's folder.
      input_range: a key of `RANGES`, for a model that does not declare its range.
      precision: of `computation`, one of `precision_names.ALL`.

    Attributes:
      path: the model's folder.
      manifest: the model's manifest; empty if it has none.
      preprocessing: turns an image into the model's input.
      is_random: whether the weights, or those of the head, are random.
      remarks: one-line warnings for the user, such as assumptions that were made.
      computation: calls the model in the precision.

    Raises:
      ValueError: there is no SavedModel, it is not of the right kind, its manifest is
        invalid, or the computer does not have the precision.
    """

    random_means: typing.ClassVar[str]
    """What random weights mean for the outputs."""

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
        self.manifest = read_manifest(path)
        try:
            self._model = tf.saved_model.load(str(path))
            self._function = self._choose_function(self._model)
        except Exception as error:  # a damaged model may raise anything
            raise ValueError(f"{path} is not usable: {first_line(error)}") from error
        try:
            weights = self.manifest.get("weights", {})
            self.is_random = weights.get("name") == "random" or bool(
                weights.get("head")
            )
            self._declared_scores = _declared_scores(self.manifest)
            self.preprocessing = preprocessing(path, self._model)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} has an invalid manifest: {first_line(error)}."
            ) from error
        self._low, self._high = self._input_range(input_range)
        if self.is_random:
            remark = f"RANDOM WEIGHTS: not trained; {self.random_means}"
            self.remarks.insert(0, remark)

    @abc.abstractmethod
    def _choose_function(self, model: typing.Any) -> ImageFunction:
        """Returns the function to call; see `ImageFunction` for its errors."""

    def _input_range(self, key: str | None) -> tuple[float, float]:
        """Returns the values that the model takes for black and white."""
        if key:
            return RANGES[key]
        if self.manifest:
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

    def _call(self, images: np.ndarray) -> typing.Any:
        return self._function(images)

    def _scaled_call(
        self, images: np.ndarray, call: Callable[[np.ndarray], typing.Any]
    ) -> typing.Any:
        """Calls a function with images [B, H, W, 3] in [0, 1], in the model's range.

        Raises:
          ValueError: the model does not take the images.
        """
        if (self._low, self._high) != RANGES["0,1"]:
            images = self._low + images * (self._high - self._low)
        try:
            return call(images)
        except precisions.UnavailableError as error:
            raise ValueError(f"{self.path}: {error}.") from error
        except Exception as error:  # a foreign model may raise anything
            raise ValueError(
                f"{self.path} can't take images of shape {images.shape}: "
                f"{_reason(error)}"
            ) from error


class ImageFunction:
    """A function of a model from images to an output, or to outputs by name.

    Args:
      spec: the tf.TensorSpec of the images.
      call: the function, of a batch as in `spec`.
      trace: returns the concrete function, whose graph is read.
      output: name of the output in that graph; None for the only one.

    Raises:
      ValueError: the function takes anything but a batch of images.
    """

    def __init__(
        self,
        spec: tf.TensorSpec,
        call: Callable[[tf.Tensor], typing.Any],
        *,
        trace: Callable[[], typing.Any],
        output: str | None = None,
    ) -> None:
        self.spec, self._call, self._trace, self._output = spec, call, trace, output
        shape = spec.shape
        if shape.rank is not None and (shape.rank != 4 or shape[-1] not in (None, 3)):
            raise ValueError(
                "it must take images [batch, height, width, 3], but takes "
                f"{list(shape)}"
            )

    @classmethod
    def of_call(cls, model: typing.Any, *signatures: str) -> ImageFunction:
        """Returns the `__call__` of a loaded model, or else the first signature.

        Raises:
          ValueError: the model has neither, or see `of_signature`.
        """
        if callable(model):
            options = {"training": False} if "training" in _arguments(model) else {}
            spec = _images_spec(model)
            return cls(
                spec,
                functools.partial(model, **options),
                trace=functools.partial(_trace, model, spec, options),
            )
        name = next((name for name in signatures if name in model.signatures), None)
        if name is None:
            raise ValueError("it has neither a __call__ nor a signature for images.")
        return cls.of_signature(model, name)

    @classmethod
    def of_signature(cls, model: typing.Any, name: str) -> ImageFunction:
        """Returns a signature of a loaded model.

        Raises:
          ValueError: its inputs or outputs are not a batch of images and one output.
        """
        signature = model.signatures[name]
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise ValueError(
                f"its signature {name} must take only images, but takes "
                f"{' and '.join(sorted(inputs))}"
            )
        ((images, spec),) = inputs.items()
        outputs = signature.structured_outputs
        if len(outputs) != 1 and "default" not in outputs:
            raise ValueError(
                f"its signature {name} returns {' and '.join(sorted(outputs))}; the "
                "scores must be its only output, or be named default"
            )
        output = "default" if "default" in outputs else next(iter(outputs))
        return cls(
            spec,
            lambda batch: signature(**{images: batch})[output],
            trace=lambda: signature,
            output=output,
        )

    @classmethod
    def of_endpoints(
        cls, model: typing.Any, endpoints: Mapping[str, str]
    ) -> ImageFunction:
        """Returns a function that returns endpoints of a reusable model by name.

        Args:
          model: a loaded model that takes `return_endpoints`.
          endpoints: name of each output -> name of the endpoint, with or without the
            name of the network before a slash.

        Raises:
          ValueError: the model does not take `return_endpoints`, or lacks an endpoint.
        """
        if not callable(model) or "return_endpoints" not in _arguments(model):
            raise ValueError("it has no endpoints, only its output")
        options = {"training": False, "return_endpoints": True}
        spec = _images_spec(model)
        names = _trace(model, spec, options).structured_outputs
        known = {key: name for name in names for key in (name.rpartition("/")[2], name)}
        for name in endpoints.values():
            if name not in known:
                short = sorted({name.rpartition("/")[2] for name in names})
                raise ValueError(
                    f"it has no endpoint {name!r}; it has {', '.join(short)}"
                )

        @tf.function(autograph=False)
        def call(images: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = model(images, **options)
            return {name: outputs[known[key]] for name, key in endpoints.items()}

        return cls(spec, call, trace=lambda: call.get_concrete_function(spec))

    def __call__(self, images: np.ndarray) -> typing.Any:
        """Returns the output for images [B, H, W, 3], for any batch size and dtype.

        Splits and pads the images for a model with a fixed batch size, and casts them
        to the model's dtype.

        Returns:
          An array [B, ...], or a dict of such arrays.
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
        if len(parts) == 1:
            return tf.nest.map_structure(np.asarray, parts[0])
        return tf.nest.map_structure(
            lambda *outputs: np.concatenate(outputs)[: len(images)], *parts
        )

    def read_graph(self, read: Callable[..., _Answer]) -> _Answer | None:
        """Applies a function of `graphs` to the graph; returns None if it fails."""
        try:
            return read(self._trace(), self._output)
        except Exception:  # a foreign graph may hold anything
            return None


def _trace(
    model: typing.Any, spec: tf.TensorSpec, options: Mapping[str, bool]
) -> typing.Any:
    """Returns the concrete function of a model's `__call__` for images as in `spec`."""
    try:
        return model.__call__.get_concrete_function(spec, **options)
    except TypeError:  # the name is that of the argument, but its signature has none
        unnamed = tf.TensorSpec(spec.shape, spec.dtype)
        return model.__call__.get_concrete_function(unnamed, **options)


def _arguments(model: typing.Any) -> Sequence[str]:
    """Returns the names of the arguments of a model's `__call__`."""
    return typing.cast(Sequence[str], model.__call__.function_spec.fullargspec.args)


def _images_spec(model: typing.Any) -> tf.TensorSpec:
    """Returns the spec of the first argument of a model's `__call__`."""
    return model.__call__.concrete_functions[0].structured_input_signature[0][0]


def read_manifest(path: pathlib.Path) -> dict[str, typing.Any]:
    """Returns the manifest of a model; empty if the model has none."""
    file = path / "assets.extra" / "manifest.json"
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable: {first_line(error)}.") from error
    if not isinstance(manifest, dict):
        raise ValueError(
            f"{file} must hold a JSON object, not a {type(manifest).__name__}."
        )
    return manifest


def _declared_scores(manifest: dict[str, typing.Any]) -> str | None:
    """Returns `softmax` or `sigmoid`, the function for a classifier's logits."""
    scores = (manifest.get("class_index") or {}).get("scores")
    if scores not in (None, "softmax", "sigmoid"):
        raise ValueError(f"scores must be 'softmax' or 'sigmoid', not {scores!r}")
    return scores


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
    record = read_manifest(path).get("preprocessing")
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


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.OpError):
        return reader.reason(error)
    return first_line(error)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
