"""A SavedModel as a layer of Keras 3: loads it, tracks its variables, calls it.

What hub.KerasLayer is to tf_keras. Needs nothing but TensorFlow and Keras.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import json
import os
import pathlib
import typing
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import tensorflow as tf
from keras.src.saving import serialization_lib

from reuse import handles

_HUB_MODULE = "tfhub_module.pb"  # the file that TF1 Hub modules are known by
_TF1_DEFAULT = "default"  # of their signatures, and of these signatures' outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What a layer was given; in one object, since Keras wraps lists and dicts."""

    handle: typing.Any
    arguments: Mapping[str, typing.Any]
    training_mode: bool
    tags: Sequence[str] | None
    signature: str | None
    signature_outputs_as_dict: bool
    output_key: str | None
    output_shape: typing.Any  # a nest of tf.TensorShape, or None


@keras.saving.register_keras_serializable(package="reuse")
class KerasLayer(keras.layers.Layer):
    """A layer that calls a SavedModel, and trains it if that is a reusable one.

    What is called: `__call__`, as the Reusable SavedModel interface has it, or a
    signature. Its `training` is true only where the layer is trainable and called for
    training, as with Keras' BatchNormalization. `layer.losses`, and so those of a model
    around it, hold its regularization losses as they are now; zeros while it is frozen.

    The SavedModel computes in the dtypes it was exported with, usually float32, and its
    variables keep theirs, under every dtype policy. The layer casts floating inputs to
    the dtype that the SavedModel declares (for another callable, to the policy's
    variable dtype), and floating outputs to the policy's compute dtype: bfloat16 under
    `mixed_bfloat16` and `bfloat16`. Integers and strings stay as they are.

    Keras does not autocast the inputs of this layer, so under a mixed policy float32
    images reach the SavedModel at full precision. Begin a `Sequential` with a
    `keras.Input`: without one, and in subclassed models and `TimeDistributed`, Keras
    casts the images to the compute dtype before this layer gets them. To train the
    layer under `MirroredStrategy`, use a mixed policy, not `bfloat16` or `float16`:
    TensorFlow can't reduce gradients of different dtypes together.

    A `.keras` file has the values of all variables and the handle, where the graph is
    found again; a folder's is made absolute. What it names as a URL is downloaded only
    with `safe_mode=False`, unless this machine has it already.

    Args:
      handle: a folder, a `.tar.gz` of one, a hub's URL (kept below `KERAS_HOME`), or
        what `tf.saved_model.load` gave, or another callable like it.
      trainable: whether to train it; `layer.trainable` may be set at any time.
      training_mode: whether it is called with `training=True` while it is trained.
        Without, its variables learn all the same, but batch statistics stay as they
        are, and nothing is dropped: better where images are few, or of another kind.
      arguments: further keyword arguments of the call, such as
        `{"batch_norm_momentum": 0.9}`.
      tags: of the graph to load, where there are several. TF1 Hub modules: [].
      signature: the name of the one to call, for inference alone. TF1 Hub modules:
        `default`.
      signature_outputs_as_dict: whether to give all outputs of the signature. Either
        this or output_key goes with a signature.
      output_key: of the output to give, where the call gives a dict. TF1 Hub modules:
        `default`.
      output_shape: of the output without the batch, [20] or nested as the output is,
        where the SavedModel does not tell.
      load_options: `tf.saved_model.LoadOptions`; not saved with the layer.
      **kwargs: of `keras.layers.Layer`, such as `name` and `dtype` (a dtype policy).

    Raises:
      ValueError: Keras has another backend than TensorFlow; there is no such
        SavedModel, signature or output, or the model does not take the arguments; it
        is to be trained, and can't be.
    """

    _is_told = False  # that there is nothing to train

    def __init__(
        self,
        handle: typing.Any,
        trainable: bool = False,
        arguments: Mapping[str, typing.Any] | None = None,
        *,
        training_mode: bool = True,
        tags: Sequence[str] | None = None,
        signature: str | None = None,
        signature_outputs_as_dict: bool = False,
        output_key: str | None = None,
        output_shape: typing.Any = None,
        load_options: tf.saved_model.LoadOptions | None = None,
        **kwargs: typing.Any,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "reuse.KerasLayer needs Keras' TensorFlow backend, got "
                f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before "
                "Keras is imported."
            )
        # Autocasting would round float32 images to the compute dtype.
        super().__init__(**{"autocast": False, **kwargs})
        if isinstance(handle, str | os.PathLike):
            handle = _absolute(os.fspath(handle))
            self._loaded, is_hub_module = _load(handle, tags, load_options)
        elif tags is not None or load_options is not None:
            raise ValueError("tags and load_options are for a handle to be loaded.")
        else:
            self._loaded, is_hub_module = handle, False
        if is_hub_module:
            signature = signature or _TF1_DEFAULT
            if not signature_outputs_as_dict:
                output_key = output_key or _TF1_DEFAULT
        self._options = _Options(
            handle=handle,
            arguments=dict(arguments or {}),
            training_mode=training_mode,
            tags=tags,
            signature=signature,
            signature_outputs_as_dict=signature_outputs_as_dict,
            output_key=output_key,
            output_shape=None if output_shape is None else _shapes(output_shape),
        )
        self._function = _function(self._loaded, self._options)
        taken = _keywords(self._function, signature)
        self._takes_training = taken is not None and "training" in taken
        _check_arguments(self._options.arguments, taken)
        self._aliases = list(_variables(self._loaded))
        # Set now, so that the variables hear of it: it is them that a model asks.
        self.trainable = trainable
        _check_losses(self._loaded)
        self._check_trainable()
        self.supports_jit = False  # XLA does not know every op that others export
        self.built = True

    @property
    def resolved_object(self) -> typing.Any:
        """The loaded object: `tf.saved_model.save` writes it with what was learnt."""
        return self._loaded

    def call(self, inputs: typing.Any, training: bool | None = None) -> typing.Any:
        """Calls the model; a dict of inputs goes to a signature by name."""
        self._check_trainable()
        options = self._options
        keywords = dict(options.arguments)
        if self._takes_training:
            is_learning = training and self.trainable
            keywords["training"] = bool(is_learning and options.training_mode)
        inputs = self._cast_inputs(inputs)
        if options.signature and isinstance(inputs, dict):
            outputs = self._function(**inputs, **keywords)
        else:
            outputs = self._function(inputs, **keywords)
        if options.output_key:
            if not isinstance(outputs, dict):
                raise ValueError(
                    "output_key is for outputs that are a dict; this model gives a "
                    f"{type(outputs).__name__}."
                )
            _check_known("output_key", options.output_key, outputs)
            outputs = outputs[options.output_key]
        outputs = tf.nest.map_structure(
            lambda value: _cast(value, [self.compute_dtype]), outputs
        )
        if options.output_shape is not None:
            batch = tf.TensorShape(tf.nest.flatten(inputs)[0].shape[:1])
            tf.nest.map_structure(
                lambda tensor, shape: tensor.set_shape(batch.concatenate(shape)),
                outputs,
                options.output_shape,
                check_types=False,
            )
        return outputs

    def _cast_inputs(self, inputs: typing.Any) -> typing.Any:
        """Casts floating inputs to the dtypes that the model declares for them.

        A Python callable declares none: it gets the policy's variable dtype.
        """
        values = tf.nest.flatten(inputs)
        traces = _input_dtypes(self._function, self._options.signature, inputs)
        traces = [dtypes for dtypes in traces if len(dtypes) == len(values)]
        traces = traces or [[self.variable_dtype] * len(values)]
        cast = map(_cast, values, zip(*traces, strict=True))
        return tf.nest.pack_sequence_as(inputs, list(cast))

    def compute_output_spec(
        self, *args: typing.Any, **kwargs: typing.Any
    ) -> typing.Any:
        """Shapes as the graph has them, and dtypes as `call` gives them."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, input_shape: typing.Any) -> typing.Any:
        """The shapes of the outputs for inputs of the layer's compute dtype."""
        inputs = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, dtype=self.compute_dtype),
            input_shape,
        )
        outputs = self.compute_output_spec(inputs)
        return keras.tree.map_structure(lambda tensor: tensor.shape, outputs)

    def get_config(self) -> dict[str, typing.Any]:
        """Raises NotImplementedError where the handle is no text, and ValueError where
        an argument is nothing that JSON can say.
        """
        given = self._options
        if not isinstance(given.handle, str):
            raise NotImplementedError(
                "Only a reuse.KerasLayer whose handle is a path or a URL can be saved, "
                f"got {type(given.handle).__name__}."
            )
        for name, value in given.arguments.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(
                    f"The argument {name!r} can't be saved: JSON has no "
                    f"{type(value).__name__}."
                ) from error
        shapes = given.output_shape
        if shapes is not None:
            shapes = tf.nest.map_structure(lambda shape: shape.as_list(), shapes)
        return {
            **super().get_config(),
            "handle": given.handle,
            "arguments": dict(given.arguments),
            "training_mode": given.training_mode,
            "tags": None if given.tags is None else list(given.tags),
            "signature": given.signature,
            "signature_outputs_as_dict": given.signature_outputs_as_dict,
            "output_key": given.output_key,
            "output_shape": shapes,
        }

    @classmethod
    def from_config(cls, config: dict[str, typing.Any]) -> KerasLayer:
        """Raises ValueError where the SavedModel is not to be had any more."""
        handle, name = config["handle"], config.get("name")
        is_url = handle.startswith(handles.SCHEMES)
        is_new = is_url and not handles.is_cached(handle)
        if is_new and serialization_lib.in_safe_mode():
            raise ValueError(
                f"The layer {name!r} is of {handle!r}, which this machine has never "
                "downloaded or has not kept whole. A SavedModel is a program: if you "
                "trust it, load with safe_mode=False."
            )
        try:
            return cls(**config)
        except ValueError as error:
            raise ValueError(
                f"The layer {name!r} can't be made again: {error}"
            ) from error

    def _get_own_losses(self) -> list[typing.Any]:
        """What Keras asks every layer of a model for, whenever it wants the losses."""
        losses = [
            loss() if self.trainable else tf.zeros([]) for loss in _losses(self._loaded)
        ]
        return [*super()._get_own_losses(), *losses]

    def _check_trainable(self) -> None:
        """At every call, since `trainable` may be set at any time."""
        if not self.trainable:
            return
        if self._options.signature:
            raise ValueError(
                "A reuse.KerasLayer that calls a signature (TF1 Hub modules have "
                "nothing else) can't be trainable: a signature has no training mode."
            )
        if not self.trainable_variables and not self._is_told:
            warnings.warn(
                "This reuse.KerasLayer is trainable, but its model lists no trainable "
                "variables.",
                stacklevel=3,
            )
            self._is_told = True


def _load(
    handle: str,
    tags: Sequence[str] | None,
    options: tf.saved_model.LoadOptions | None,
) -> tuple[typing.Any, bool]:
    """The object, and whether it is a TF1 Hub module.

    What an archive held is there as long as the object: its assets may be saved again.
    """
    with contextlib.ExitStack() as stack:
        if handle.startswith(handles.SCHEMES):
            folder = handles.cached_folder(handle, name="handle")
        else:
            folder = stack.enter_context(handles.open_model(handle, name="handle"))
        is_hub_module = (folder / _HUB_MODULE).exists()
        if tags is None and is_hub_module:
            tags = []
        try:
            loaded = tf.saved_model.load(str(folder), tags=tags, options=options)
        except Exception as error:  # a damaged model may raise anything
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"handle {handle!r} is not usable: {words[0]}") from error
        weakref.finalize(loaded, stack.pop_all().close)
    return loaded, is_hub_module


def _absolute(handle: str) -> str:
    is_url = handle.startswith(handles.SCHEMES)
    return handle if is_url else str(pathlib.Path(handle).absolute())


def _function(loaded: typing.Any, options: _Options) -> typing.Any:
    """What is called: a signature, or the object itself."""
    signatures = getattr(loaded, "signatures", {})
    if options.signature:
        _check_known("signature", options.signature, signatures)
        function = signatures[options.signature]
        if bool(options.output_key) == bool(options.signature_outputs_as_dict):
            raise ValueError(
                "With a signature, give either output_key or "
                "signature_outputs_as_dict=True."
            )
        if options.output_key:
            _check_known("output_key", options.output_key, function.structured_outputs)
        return function
    if options.signature_outputs_as_dict:
        raise ValueError("signature_outputs_as_dict goes with a signature only.")
    if callable(loaded):
        return loaded
    if not signatures:
        raise ValueError("The model has neither a __call__ nor signatures.")
    raise ValueError(
        "The model has no __call__: give a signature, one of "
        f"{', '.join(sorted(signatures))}, and output_key."
    )


def _keywords(function: typing.Any, signature: str | None) -> frozenset[str] | None:
    """The names that may be given as keyword arguments; None where any may."""
    if signature:
        return frozenset(function.structured_input_signature[1])
    if hasattr(function.__call__, "concrete_functions"):  # a restored one
        function = function.__call__
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _input_dtypes(
    function: typing.Any, signature: str | None, inputs: typing.Any
) -> list[list[typing.Any]]:
    """For each trace of a model, the dtypes of the tensors in its first argument."""
    if signature:
        specs = function.structured_input_signature[1]
        if isinstance(inputs, dict):
            specs = {name: specs.get(name) for name in inputs}
        traces = [specs]
    else:
        graphs = getattr(function.__call__, "concrete_functions", ())  # a restored one
        traces = [graph.structured_input_signature[0][:1] for graph in graphs]
    return [
        [getattr(spec, "dtype", None) for spec in tf.nest.flatten(specs)]
        for specs in traces
    ]


def _cast(value: typing.Any, dtypes: Iterable[typing.Any]) -> typing.Any:
    """Casts a floating tensor to the widest of the dtypes, unless it has one of them.

    Returns other values as they are, and any value where no dtype is a floating one.
    """
    if not tf.is_tensor(value) or not value.dtype.is_floating:
        return value
    floating = [d for d in map(tf.as_dtype, filter(None, dtypes)) if d.is_floating]
    if not floating or value.dtype in floating:
        return value
    return tf.cast(value, max(floating, key=lambda dtype: dtype.size))


def _check_arguments(
    arguments: Mapping[str, typing.Any], taken: frozenset[str] | None
) -> None:
    if "training" in arguments:
        raise ValueError("arguments can't have 'training': it is Keras that tells it.")
    if taken is not None:
        for name in arguments:
            _check_known("argument", name, taken - {"training"})


def _variables(loaded: typing.Any) -> Iterator[keras.Variable]:
    """The variables of a loaded object; Keras' TensorFlow backend copies none."""
    trainable = list(getattr(loaded, "trainable_variables", ()))
    known = {id(variable) for variable in trainable}
    others = [v for v in getattr(loaded, "variables", ()) if id(v) not in known]
    for variable in [*trainable, *others]:
        yield keras.Variable(
            variable,
            dtype=variable.dtype.name,
            trainable=id(variable) in known,
            autocast=False,
            name=variable.name.split(":")[0].replace("/", "_"),
        )


def _losses(loaded: typing.Any) -> Sequence[Callable[[], tf.Tensor]]:
    return getattr(loaded, "regularization_losses", ())


def _check_losses(loaded: typing.Any) -> None:
    for loss in _losses(loaded):
        if not callable(loss):
            raise ValueError(
                "The model's regularization_losses must be functions without "
                f"arguments, got {loss!r}."
            )


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"The model has no {what} {name!r}.{hint} It has "
        f"{', '.join(sorted(known)) or 'none'}."
    )


def _shapes(nest: typing.Any) -> typing.Any:
    """A nest of shapes, each as a tf.TensorShape."""
    if isinstance(nest, Mapping):
        return {key: _shapes(value) for key, value in nest.items()}
    try:
        return tf.TensorShape(nest)
    except TypeError:
        return [_shapes(value) for value in nest]
