"""A SavedModel under test: loads it, detects how it is called, and calls it.

Results are computed on first use and cached, so that checks share the slow steps:
loading, tracing a call, and the gradients of a training step.
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

from conformance import clauses, documents, numeric, traces

# Image sides to try, in pixels, if the input's height and width are not fixed. Small
# sides come first, since they are fast. All are multiples of 32.
_SIDES = (64, 128, 224, 320)
_GUESS = "a guess: no signature or asset tells the kind; --kind overrides it"
_UNKNOWN_SIZE = (224, 224)
_ENCODED = {"image_bytes", "classify"}  # signatures that take encoded images
_CLASS_INDEX_WORDS = ("class", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """Effects and gradients of one call in training mode.

    Args:
      changed: the variables whose values the call changed.
      variable_gradients: gradients of image 0's output with respect to each of
        trainable_variables; None for an unconnected variable.
      neighbour_gradient: the largest absolute gradient of image 0's output with respect
        to the other image of the batch; 0 if images are processed independently.
    """

    changed: Sequence[Any]
    variable_gradients: Sequence[Any]
    neighbour_gradient: float


class ModelUnderTest:
    """A SavedModel under test: its files, signatures, traces, variables and calls.

    Args:
      path: the SavedModel's directory.
      name: the model's name in messages; default: `path`.
      kind: one of `clauses.KINDS`, or auto.
      full: whether checks include the slow cases.
      pair: directory of the other model of the pair, or None.
      documented: documented ranges as (low, high) in pixels, by name: `height_range`
        and `width_range`.
      arguments: documentation of additional arguments of `__call__`, by name.
      page: the documentation page as `statements.read` returns it; None without a page.
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
        self.requested_kind = kind
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
        """One of `clauses.FORMATS`.

        A TF1 Hub module has the file `clauses.HUB_MODULE` and no object graph. A model
        for serving says so in its manifest, or it has no `__call__`, no variables, and
        a signature for encoded images.
        """
        objects = [n for g in self.proto.meta_graphs for n in g.object_graph_def.nodes]
        if (self.path / clauses.HUB_MODULE).exists() and not objects:
            return clauses.TF1_HUB
        named = documents.in_manifest(self.path, "format")
        if named in clauses.IN_MANIFEST[clauses.SERVING]:
            return clauses.SERVING
        roots = [c.local_name for node in objects[:1] for c in node.children]
        names = {n for g in self.proto.meta_graphs for n in g.signature_def}
        has_variables = any(n.WhichOneof("kind") == "variable" for n in objects)
        is_for_serving = _ENCODED & names and "__call__" not in roots
        if is_for_serving and not has_variables:
            return clauses.SERVING
        return clauses.SAVED_MODEL

    @property
    def kind(self) -> str:
        """The requested kind, or the detected kind."""
        return self.kind_and_reason[0]

    @functools.cached_property
    def kind_and_reason(self) -> tuple[str, str]:
        """The kind, and how it was determined.

        The first of these rules that applies: a model with a signature
        `image_classification` is a classifier; one with `image_feature_vector` is a
        feature vector; one with an asset named after classes or labels is a classifier;
        any other is a feature vector. A model for serving is a classifier if it has a
        signature `classify`.
        """
        if self.requested_kind in clauses.KINDS:
            return self.requested_kind, "as requested"
        if found := self._kind_and_signature:
            kind, name = found
            return kind, f"by its signature {name}"
        for asset in self.assets:
            if any(word in asset.stem.lower() for word in _CLASS_INDEX_WORDS):
                return clauses.CLASSIFICATION, f"by its asset {asset.name}"
        return clauses.FEATURE_VECTOR, _GUESS

    @property
    def kind_by_signature(self) -> str | None:
        """The kind according to the signatures; the requested kind is ignored."""
        found = self._kind_and_signature
        return found and found[0]

    @property
    def _kind_and_signature(self) -> tuple[str, str] | None:
        """The kind according to the signatures, and the signature that tells it."""
        if self.format == clauses.SERVING and "classify" in self.signatures:
            return clauses.CLASSIFICATION, "classify"
        for kind in (clauses.CLASSIFICATION, clauses.FEATURE_VECTOR):
            if (name := f"image_{kind}") in self.signatures:
                return kind, name
        return None

    @functools.cached_property
    def other_model(self) -> ModelUnderTest | None:
        """The other model of the pair, with the other kind; None without a pair."""
        if self._pair is None:
            return None
        (other,) = set(clauses.KINDS) - {self.kind}
        return ModelUnderTest(
            self._pair, kind=other, full=self.full, pair=None, documented={}
        )

    @property
    def assets(self) -> tuple[pathlib.Path, ...]:
        """The asset files that the SavedModel's graph refers to."""
        files = self.proto.meta_graphs[0].asset_file_def
        return tuple(self.path / "assets" / file.filename for file in files)

    @property
    def signatures(self) -> Mapping[str, Any]:
        return getattr(self.obj, "signatures", {})

    # Variables.

    @property
    def variables(self) -> tuple[Any, ...]:
        """The root's list `variables`; empty if it is missing."""
        return tuple(getattr(self.obj, "variables", ()))

    @property
    def trainable_variables(self) -> tuple[Any, ...]:
        """The root's list `trainable_variables`; empty if it is missing."""
        return tuple(getattr(self.obj, "trainable_variables", ()))

    @functools.cached_property
    def captured_variables(self) -> tuple[Any, ...]:
        """All variables that any trace of a call captures, without duplicates.

        A trace also captures the variables of the functions that it calls.
        """
        by_handle: dict[int, Any] = {}
        for trace in self.all_traces:
            for variable in trace.concrete.variables:
                by_handle.setdefault(id(variable.handle), variable)
        return tuple(by_handle.values())

    @functools.cached_property
    def all_variables(self) -> tuple[Any, ...]:
        """The listed and the captured variables, without duplicates."""
        listed = (*self.variables, *self.trainable_variables)
        captured = self.captured_variables if self.takes_input else ()
        return tuple({id(v.handle): v for v in (*listed, *captured)}.values())

    @contextlib.contextmanager
    def variables_kept(self) -> Iterator[list[tf.Tensor]]:
        """Restores the values of all variables at the end; yields these values."""
        before = numeric.values(self.all_variables)
        try:
            yield before
        finally:
            now = numeric.values(self.all_variables)
            changed = {id(v) for v in numeric.changed(self.all_variables, before, now)}
            for variable, old in zip(self.all_variables, before, strict=True):
                if id(variable) in changed:
                    variable.assign(old)

    # Calls.

    @property
    def call(self) -> Any:
        """The root's `__call__`, or None."""
        return getattr(self.obj, "__call__", None)  # noqa: B004 - its value is needed

    @property
    def is_callable(self) -> bool:
        return traces.is_restored_function(self.call)

    @functools.cached_property
    def fallback_signature(self) -> Any:
        """The signature to call if there is no `__call__`, or None.

        It is serving_default, if that has one input Tensor with a free batch dimension.
        """
        signature = self.signatures.get("serving_default")
        if self.is_callable or signature is None:
            return None
        specs = list(signature.structured_input_signature[1].values())
        shape = specs[0].shape if len(specs) == 1 else None
        return signature if shape and shape.rank and shape[0] is None else None

    @property
    def takes_input(self) -> bool:
        """Whether the model has a `__call__` or a signature that can be called."""
        return self.is_callable or self.fallback_signature is not None

    @property
    def takes_images(self) -> bool:
        """Whether the input can be images."""
        return is_numeric_image(self.input_spec)

    @functools.cached_property
    def all_traces(self) -> tuple[traces.Trace, ...]:
        if self.fallback_signature is None:
            return traces.read(self.call)
        _, arguments = self.fallback_signature.structured_input_signature
        return (traces.Trace(self.fallback_signature, arguments),)

    @functools.cached_property
    def general_traces(self) -> tuple[traces.Trace, ...]:
        """The traces that no more general trace covers."""
        return traces.most_general(self.all_traces)

    @functools.cached_property
    def input_name(self) -> str:
        """The name of the argument that takes the images."""
        if self.fallback_signature is None:
            return traces.required(self.call)[0].name
        return next(iter(self.all_traces[0].arguments))

    @functools.cached_property
    def input_spec(self) -> tf.TensorSpec:
        """The spec of the input to feed: the first that I01 accepts, else the first."""
        specs = [trace.arguments[self.input_name] for trace in self.general_traces]
        return next(filter(is_image_spec, specs), specs[0])

    @functools.cached_property
    def training(self) -> tuple[Any, ...] | None:
        """Values or specs that `training` was traced with; None without `training`."""
        if not self.is_callable:
            return None
        if "training" not in {p.name for p in traces.parameters(self.call)}:
            return None
        return tuple(trace.arguments.get("training") for trace in self.all_traces)

    @property
    def has_training_trace(self) -> bool:
        """Whether a trace of `__call__` takes training=True, or a Tensor `training`."""
        values = self.training or ()
        return any(value is True or traces.is_tensor(value) for value in values)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """A small (height, width) that works; square if the input's shape allows it."""
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
        """Height and width in the input's static shape; None for a free dimension."""
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
        """Returns a batch of test images: uniform noise in [0, 1), or one constant.

        Their dtype and number of channels match the model's input, so that a model that
        fails clause I01 can still be checked for other clauses.

        Args:
          batch: number of images.
          size: (height, width) in pixels; default: `self.size`.
          fill: the constant value of all pixels; None for noise.
          seed: seed of the noise.
          spec: dtype and channels to use in place of the model's input.
        """
        spec = spec or self.input_spec
        channels = spec.shape[-1] if spec.shape.rank else None
        shape = (batch, *(size or self.size), channels or 3)
        values = np.random.default_rng(seed).random(shape, np.float32)
        if fill is not None:
            values = np.full(shape, fill, np.float32)
        return tf.cast(values if spec.dtype.is_floating else values * 255, spec.dtype)

    def infer(self, images: tf.Tensor) -> Any:
        """Returns the output of a call with training=False if `training` exists."""
        return self._run(images, training=False)

    def train(self, images: tf.Tensor) -> Any:
        """Returns the output of a call with training=True if `training` exists."""
        return self._run(images, training=True)

    def _run(self, images: tf.Tensor, *, training: bool) -> Any:
        if self.input_spec.is_compatible_with(images):
            return self.traced(training=training)(images)
        return self.call_eagerly(images, training=training)

    def call_eagerly(self, images: tf.Tensor, *, training: bool) -> Any:
        """Returns the output of calling the loaded object, as its users do."""
        keywords = self._keywords(training)
        if self.fallback_signature is None:
            return self.obj(images, **keywords)
        results = self.fallback_signature(**{self.input_name: images})
        output = next(iter(results.values())) if len(results) == 1 else results
        return results.get("default", output)

    def traced(self, *, training: bool) -> Any:
        """Returns the call as a concrete function for inputs of `input_spec`.

        Tracing the call once makes the suite fast: called eagerly, a restored function
        compiles its graph again for every shape. Call it only with inputs of
        `input_spec`, since concrete functions do not check shapes.
        """
        keywords = self._keywords(training)
        key = keywords.get("training")
        if key not in self._traced:
            call = tf.function(lambda x: self.call_eagerly(x, training=training))
            self._traced[key] = call.get_concrete_function(self.input_spec)
        return self._traced[key]

    def call_interface(self) -> dict[str, Any]:
        """Returns what a client needs to call the model, as JSON values.

        Returns:
          `shape` ([height, width, channels]) and `dtype` of images that work, the
          number of `trainable` variables, and the defaults of `arguments` except
          `training`.
        """
        others = traces.parameters(self.call)[1:]
        defaults = {p.name: p.default for p in others if p.name != "training"}
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

    def hub_module_interface(self) -> dict[str, Any]:
        """Returns what a client needs to call a TF1 Hub module, as JSON values."""
        signature = self.signatures["default"]
        (spec,) = signature.structured_input_signature[1].values()
        return {"shape": spec.shape[1:].as_list(), "dtype": spec.dtype.name}

    def serving_interface(self) -> dict[str, Any] | None:
        """Returns `shape` and `dtype` of images for serving_default.

        None means that the input of serving_default can't be images.
        """
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
        """Calls the model in training mode on two images and computes the gradients."""
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
    """Returns whether a Tensor can be images: numeric, with four dimensions."""
    is_number = spec.dtype.is_floating or spec.dtype.is_integer
    return is_number and spec.shape.rank in (4, None)


def is_image_spec(spec: Any) -> bool:
    """Returns whether a trace's argument is what clause I01 requires."""
    return (
        traces.is_tensor(spec)
        and spec.dtype == tf.float32
        and spec.shape.rank == 4
        and spec.shape[-1] == 3
    )


def _project_first(outputs: Any) -> tf.Tensor:
    """Returns a random linear combination of all outputs for image 0, a scalar.

    The weights are random because the plain sum over the output of batch normalisation
    or softmax is constant.
    """
    random = np.random.default_rng(1)
    floats = [out[0] for out in tf.nest.flatten(outputs) if out.dtype.is_floating]
    return tf.add_n(
        [
            tf.reduce_sum(tf.cast(out, tf.float32) * random.standard_normal(out.shape))
            for out in floats
        ]
    )
