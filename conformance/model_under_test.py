"""A SavedModel under test: loads it, finds out how it is called, and calls it.

All is found when first asked for and kept, so that clauses share what is slow: loading,
the trace of a call, the gradients of a training step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model import loader_impl

from conformance import clauses, numeric, traces

# Sides to try, in pixels, where the model leaves height and width free: small, for
# speed, then larger, for models that need it. Multiples of 32.
_SIDES = (64, 128, 224, 320)
_GUESS = "a guess, since nothing tells of classes; --kind may say otherwise"
_UNKNOWN_SIZE = (224, 224)
_CLASS_INDEX_WORDS = ("class", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """What one call in training mode did.

    Args:
      changed: the variables whose value the call changed.
      variable_gradients: of image 0's output, for each of trainable_variables; None
        where there is no path.
      neighbour_gradient: the largest gradient of image 0's output to another image of
        the batch; 0 where each image is processed for itself.
    """

    changed: Sequence[Any]
    variable_gradients: Sequence[Any]
    neighbour_gradient: float


class ModelUnderTest:
    """One SavedModel.

    Args:
      path: its directory.
      name: what messages call it.
      kind: one of `clauses.KINDS`, or auto.
      full: whether clauses try all that they can, rather than what is quick.
      pair: directory of the other half, or None.
      documented: ranges (low, high) in pixels under `height_range` and `width_range`.
      arguments: what is documented of further arguments of `__call__`, by name.
      page: what a page of documentation says, see `statements.read`; None without one.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        name: str | None = None,
        kind: str,
        full: bool,
        pair: pathlib.Path | None,
        documented: Mapping[str, Sequence[int | None]],
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
        page: Mapping[str, Any] | None = None,
    ):
        self.path = path
        self.name = name or str(path)
        self.arguments = arguments or {}
        self.page = page
        self.full = full
        self.documented = documented
        self.given_kind = kind
        self._pair = pair
        self._traced: dict[bool | None, Any] = {}

    @functools.cached_property
    def proto(self) -> Any:
        """The parsed `saved_model.pb`."""
        return loader_impl.parse_saved_model(str(self.path))

    @functools.cached_property
    def obj(self) -> Any:
        """The loaded object."""
        tags: list[str] | None = [] if self.format == clauses.TF1_HUB else None
        return tf.saved_model.load(str(self.path), tags)

    @functools.cached_property
    def format(self) -> str:
        """One of `clauses.FORMATS`: a TF1 Hub module says so, and has graphs alone."""
        has_objects = any(
            graph.object_graph_def.nodes for graph in self.proto.meta_graphs
        )
        is_module = (self.path / clauses.HUB_MODULE).exists() and not has_objects
        return clauses.TF1_HUB if is_module else clauses.SAVED_MODEL

    @property
    def kind(self) -> str:
        """The kind given, or what the object looks like."""
        return self.kind_and_reason[0]

    @functools.cached_property
    def kind_and_reason(self) -> tuple[str, str]:
        """The kind, and why it is taken for that.

        A model with a signature `image_classification` is a classifier, else one with
        `image_feature_vector` a feature vector, else one with an asset that is named
        after classes or labels a classifier, else it is taken for a feature vector.
        """
        if self.given_kind in clauses.KINDS:
            return self.given_kind, "as was said"
        if kind := self.looks_like:
            return kind, f"by its signature image_{kind}"
        for asset in self.assets:
            if any(word in asset.stem.lower() for word in _CLASS_INDEX_WORDS):
                return clauses.CLASSIFICATION, f"by its asset {asset.name}"
        return clauses.FEATURE_VECTOR, _GUESS

    @property
    def looks_like(self) -> str | None:
        """The kind that its signatures tell, whatever was said."""
        for kind in (clauses.CLASSIFICATION, clauses.FEATURE_VECTOR):
            if f"image_{kind}" in self.signatures:
                return kind
        return None

    @functools.cached_property
    def pair(self) -> ModelUnderTest | None:
        """The other half, where one was given; taken for the other kind."""
        if self._pair is None:
            return None
        (other,) = set(clauses.KINDS) - {self.kind}
        return ModelUnderTest(
            self._pair, kind=other, full=self.full, pair=None, documented={}
        )

    @property
    def assets(self) -> tuple[pathlib.Path, ...]:
        """The asset files that the SavedModel itself names, and so takes along."""
        files = self.proto.meta_graphs[0].asset_file_def
        return tuple(self.path / "assets" / file.filename for file in files)

    @property
    def signatures(self) -> Mapping[str, Any]:
        return getattr(self.obj, "signatures", {})

    # What it holds.

    @property
    def variables(self) -> tuple[Any, ...]:
        """The list `variables`, which may be left out where it would be empty."""
        return tuple(getattr(self.obj, "variables", ()))

    @property
    def trainable_variables(self) -> tuple[Any, ...]:
        """The list `trainable_variables`, which may be left out likewise."""
        return tuple(getattr(self.obj, "trainable_variables", ()))

    @functools.cached_property
    def captured_variables(self) -> tuple[Any, ...]:
        """Every variable that any trace of a call captures, each once.

        What a nested function captures, the trace that calls it captures too.
        """
        found: dict[int, Any] = {}
        for trace in self.all_traces:
            for variable in trace.concrete.variables:
                found.setdefault(id(variable.handle), variable)
        return tuple(found.values())

    @functools.cached_property
    def all_variables(self) -> tuple[Any, ...]:
        """The listed and the captured variables, each once."""
        listed = (*self.variables, *self.trainable_variables)
        captured = self.captured_variables if self.takes_input else ()
        return tuple({id(v.handle): v for v in (*listed, *captured)}.values())

    @contextlib.contextmanager
    def variables_kept(self) -> Iterator[list[np.ndarray]]:
        """Gives the variables their values back at the end; yields these values."""
        before = numeric.values(self.all_variables)
        try:
            yield before
        finally:
            for variable, old in zip(self.all_variables, before, strict=True):
                if variable.numpy().tobytes() != old.tobytes():
                    variable.assign(old)

    # How it is called.

    @property
    def call(self) -> Any:
        """The root's `__call__`, or None."""
        return getattr(self.obj, "__call__", None)  # noqa: B004 - the attribute

    @property
    def is_callable(self) -> bool:
        return traces.is_restored_function(self.call)

    @functools.cached_property
    def stand_in(self) -> Any:
        """The signature to call where there is no `__call__`, or None.

        It is serving_default, if that takes one Tensor of any batch.
        """
        signature = self.signatures.get("serving_default")
        if self.is_callable or signature is None:
            return None
        specs = list(signature.structured_input_signature[1].values())
        shape = specs[0].shape if len(specs) == 1 else None
        return signature if shape and shape.rank and shape[0] is None else None

    @property
    def takes_input(self) -> bool:
        """Whether there is anything to call."""
        return self.is_callable or self.stand_in is not None

    @property
    def takes_images(self) -> bool:
        """Whether what it takes could be images."""
        return is_numeric_image(self.input_spec)

    @functools.cached_property
    def all_traces(self) -> tuple[traces.Trace, ...]:
        if self.stand_in is None:
            return traces.read(self.call)
        _, arguments = self.stand_in.structured_input_signature
        return (traces.Trace(self.stand_in, arguments),)

    @functools.cached_property
    def general_traces(self) -> tuple[traces.Trace, ...]:
        """The traces, without those that a more general one makes superfluous."""
        return traces.most_general(self.all_traces)

    @functools.cached_property
    def input_name(self) -> str:
        """The name of the one required argument."""
        if self.stand_in is None:
            return traces.required(self.call)[0].name
        return next(iter(self.all_traces[0].arguments))

    @functools.cached_property
    def input_spec(self) -> tf.TensorSpec:
        """What the suite feeds: the first input that clause I01 asks for, or any."""
        specs = [trace.arguments[self.input_name] for trace in self.general_traces]
        return next(filter(is_image_spec, specs), specs[0])

    @functools.cached_property
    def training(self) -> tuple[Any, ...] | None:
        """What `training` was traced with, values or specs; None without it."""
        if not self.is_callable:
            return None
        if "training" not in {p.name for p in traces.parameters(self.call)}:
            return None
        return tuple(trace.arguments.get("training") for trace in self.all_traces)

    @property
    def takes_training_true(self) -> bool:
        values = self.training or ()
        return any(value is True or traces.is_tensor(value) for value in values)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """A small (height, width) that the model takes, square where it is free to."""
        for side in self._sides():
            size = self._fit(side)
            with contextlib.suppress(Exception):
                self.infer(self.images(1, size=size))
                return size
        return self._fit(self._sides()[0])

    def _sides(self) -> tuple[int, ...]:
        ranges = [bounds for bounds in self.documented.values() if bounds]
        low = max((low or 1 for low, _ in ranges), default=1)
        high = min((high for _, high in ranges if high), default=_SIDES[-1])
        return tuple(side for side in _SIDES if low <= side <= high) or (low,)

    def _fit(self, side: int) -> tuple[int, int]:
        height, width = self.static_size
        return height or side, width or side

    @property
    def static_size(self) -> tuple[int | None, int | None]:
        """Height and width where the input's shape fixes them."""
        shape = self.input_spec.shape
        return (shape[1], shape[2]) if shape.rank == 4 else (None, None)

    def images(
        self,
        batch: int,
        *,
        size: tuple[int, int] | None = None,
        fill: float | None = None,
        seed: int = 0,
        spec: tf.TensorSpec | None = None,
    ) -> tf.Tensor:
        """Images as the model wants them: uniform noise in [0, 1), or one value.

        Their dtype and number of channels are those of `spec`, by default of the
        model's input, so that a model of another input can be judged in all the rest.
        """
        spec = spec or self.input_spec
        channels = spec.shape[-1] if spec.shape.rank else None
        shape = (batch, *(size or self.size), channels or 3)
        values = np.random.default_rng(seed).random(shape, np.float32)
        if fill is not None:
            values = np.full(shape, fill, np.float32)
        return tf.cast(values if spec.dtype.is_floating else values * 255, spec.dtype)

    def infer(self, images: tf.Tensor) -> Any:
        """The output in inference mode, whatever the default mode is."""
        return self._run(images, training=False)

    def train(self, images: tf.Tensor) -> Any:
        """The output in training mode, or in the only mode that there is."""
        return self._run(images, training=True)

    def _run(self, images: tf.Tensor, *, training: bool) -> Any:
        if self.input_spec.is_compatible_with(images):
            return self.traced(training=training)(images)
        return self.call_eagerly(images, training=training)

    def call_eagerly(self, images: tf.Tensor, *, training: bool) -> Any:
        """The output of the object itself, as a consumer calls it."""
        keywords = self._keywords(training)
        if self.stand_in is None:
            return self.obj(images, **keywords)
        results = self.stand_in(**{self.input_name: images})
        only = next(iter(results.values())) if len(results) == 1 else results
        return results.get("default", only)

    def traced(self, *, training: bool) -> Any:
        """A call in one of the modes as a concrete function of all that input_spec is.

        Tracing the call once is what makes the suite quick: called eagerly, a restored
        function compiles its graph anew for every shape. It must not be given anything
        else, since concrete functions do not look at shapes.
        """
        keywords = self._keywords(training)
        key = keywords.get("training")
        if key not in self._traced:
            call = tf.function(lambda x: self.call_eagerly(x, training=training))
            self._traced[key] = call.get_concrete_function(self.input_spec)
        return self._traced[key]

    def about_call(self) -> dict[str, Any]:
        """What a client must know to call the model, as plain values."""
        further = traces.parameters(self.call)[1:]
        defaults = {p.name: p.default for p in further if p.name != "training"}
        return {
            "shape": [*self.size, self.images(1).shape[-1]],
            "dtype": self.input_spec.dtype.name,
            "trainable": len(self.trainable_variables),
            "arguments": {
                name: value
                for name, value in defaults.items()
                if isinstance(value, bool | int | float | str)
            },
        }

    def about_module(self) -> dict[str, Any]:
        """What a client must know to call a TF1 Hub module."""
        signature = self.signatures["default"]
        (spec,) = signature.structured_input_signature[1].values()
        return {"shape": spec.shape[1:].as_list(), "dtype": spec.dtype.name}

    def about_serving(self) -> dict[str, Any] | None:
        """What a client must feed to serving_default; None if that is no image."""
        _, inputs = self.signatures["serving_default"].structured_input_signature
        (spec,) = inputs.values()
        if not is_numeric_image(spec):
            return None
        height, width, channels = spec.shape[1:] if spec.shape.rank else (None,) * 3
        small = self.size if self.takes_input and self.takes_images else _UNKNOWN_SIZE
        shape = [height or small[0], width or small[1], channels or 3]
        return {"shape": shape, "dtype": spec.dtype.name}

    def _keywords(self, training: bool) -> dict[str, bool]:
        return {} if self.training is None else {"training": training}

    @functools.cached_property
    def training_step(self) -> TrainingStep:
        """Calls the model in training mode on two images, and differentiates it."""
        images = self.images(2)
        watched = [images, *self.trainable_variables]
        with self.variables_kept() as before:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                projection = _project_first(self.train(images))
            images_gradient, *gradients = tape.gradient(projection, watched)
            after = numeric.values(self.all_variables)
        neighbour = 0.0
        if images_gradient is not None:
            neighbour = float(np.abs(images_gradient[1]).max())
        return TrainingStep(
            changed=numeric.changed(self.all_variables, before, after),
            variable_gradients=gradients,
            neighbour_gradient=neighbour,
        )


def is_numeric_image(spec: tf.TensorSpec) -> bool:
    """Whether a Tensor could be images: numbers, of four dimensions."""
    is_number = spec.dtype.is_floating or spec.dtype.is_integer
    return is_number and spec.shape.rank in (4, None)


def is_image_spec(spec: Any) -> bool:
    """Whether a trace's argument is what clause I01 asks for."""
    return (
        traces.is_tensor(spec)
        and spec.dtype == tf.float32
        and spec.shape.rank == 4
        and spec.shape[-1] == 3
    )


def _project_first(outputs: Any) -> tf.Tensor:
    """A random projection to a scalar of all that was computed for image 0.

    Random weights, since the plain sum of what batch normalisation or softmax give is
    constant.
    """
    random = np.random.default_rng(1)
    floats = [out[0] for out in tf.nest.flatten(outputs) if out.dtype.is_floating]
    return tf.add_n(
        [
            tf.reduce_sum(tf.cast(out, tf.float32) * random.standard_normal(out.shape))
            for out in floats
        ]
    )
