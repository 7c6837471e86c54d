"""A Keras 3 layer that loads a SavedModel, tracks its variables and calls it.

It is to Keras 3 as hub.KerasLayer is to tf_keras. It needs only TensorFlow and Keras.
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

_HUB_MODULE = "tfhub_module.pb"  # only TF1 Hub modules have this file
_TF1_DEFAULT = (
    "default"  # the name of their default signature and of its default output
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """The layer's arguments, in one object because Keras wraps lists and dicts."""

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
    """A layer that calls a SavedModel and can train a Reusable SavedModel.

    The layer calls `__call__`, as the Reusable SavedModel interface defines it, or a
    signature. It passes `training=True` only if it is trainable and is itself called
    with `training=True`, as Keras' BatchNormalization does. `layer.losses`, and so the
    losses of a model that contains the layer, include the SavedModel's current
    regularization losses; these are zero while the layer is frozen.

    Under every dtype policy, the SavedModel computes in the dtypes with which it was
    exported, usually float32, and its variables keep their dtypes. The layer casts
    floating inputs to the dtype that the SavedModel declares (for another callable, to
    the policy's variable dtype), and floating outputs to the policy's compute dtype:
    bfloat16 under `mixed_bfloat16` and `bfloat16`. It does not cast integers and
    strings.

    Keras does not autocast the inputs of this layer, so under a mixed policy float32
    images reach the SavedModel at full precision. Begin a `Sequential` with a
    `keras.Input`: without one, and in subclassed models and `TimeDistributed`, Keras
    casts the images to the compute dtype before this layer receives them. To train the
    layer under `MirroredStrategy`, use a mixed policy, not `bfloat16` or `float16`:
    TensorFlow can't reduce gradients of different dtypes together.

    A `.keras` file stores the values of all variables and the handle, from which the
    graph is loaded again; the path of a folder is made absolute. Unless this machine
    has cached it, a SavedModel at a URL is downloaded only with `safe_mode=False`.

    Args:
      handle: a folder, a `.tar.gz` archive of a folder, a hub's URL (cached in
        `KERAS_HOME`), an object that `tf.saved_model.load` returned, or another
        callable with the same interface.
      trainable: whether to train the SavedModel; `layer.trainable` may be set at any
        time.
      arguments: additional keyword arguments of the call, such as
        `{"batch_norm_momentum": 0.9}`.
      training_mode: whether to call the SavedModel with `training=True` while it is
        trained. If False, its variables are still trained, but its moving statistics
        are not updated and there is no dropout. This is better for few images, or for
        images that differ from those of the original training.
      tags: tags of the graph to load, if the SavedModel has several. TF1 Hub modules:
        [].
      signature: name of the signature to call, for inference only. TF1 Hub modules:
        `default`.
      signature_outputs_as_dict: whether to return all outputs of the signature. A
        signature needs either this or output_key.
      output_key: key of the output to return if the call returns a dict. TF1 Hub
        modules: `default`.
      output_shape: shape of the output without the batch, such as [20], or a nest of
        shapes with the structure of the output, if the SavedModel does not declare it.
      load_options: `tf.saved_model.LoadOptions`; not saved with the layer.
      **kwargs: arguments of `keras.layers.Layer`, such as `name` and `dtype` (a dtype
        policy).

    Raises:
      ValueError: Keras' backend is not TensorFlow; there is no such SavedModel,
        signature or output; the SavedModel does not take the arguments; or it can't be
        trained but `trainable` is True.
    """

    _has_warned = False  # that there are no trainable variables

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
            raise ValueError(
                "tags and load_options need a handle that is a path or a URL, got "
                f"{type(handle).__name__}."
            )
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
        keywords = _keywords(self._function, signature)
        self._takes_training = keywords is not None and "training" in keywords
        self._has_training_trace = not self._takes_training or _has_training_trace(
            self._function
        )
        _check_arguments(self._options.arguments, keywords)
        self._aliases = list(_variables(self._loaded))
        # Set only now, because the setter passes the value on to the variables, which
        # is where a model looks it up.
        self.trainable = trainable
        _check_losses(self._loaded)
        self._check_trainable()
        self.supports_jit = False  # XLA lacks some ops that a SavedModel may hold
        self.built = True

    @property
    def resolved_object(self) -> typing.Any:
        """The loaded object; `tf.saved_model.save` writes its current values."""
        return self._loaded

    def call(self, inputs: typing.Any, training: bool | None = None) -> typing.Any:
        """Calls the SavedModel; the inputs of a signature may be a dict, by name."""
        self._check_trainable()
        options = self._options
        keywords = dict(options.arguments)
        if self._takes_training:
            is_training = training and self.trainable
            keywords["training"] = bool(is_training and options.training_mode)
        inputs = self._cast_inputs(inputs)
        if options.signature and isinstance(inputs, dict):
            outputs = self._function(**inputs, **keywords)
        else:
            outputs = self._function(inputs, **keywords)
        if options.output_key:
            if not isinstance(outputs, dict):
                raise ValueError(
                    "output_key needs a model that returns a dict; this model returns "
                    f"a {type(outputs).__name__}."
                )
            _check_name("output_key", options.output_key, outputs)
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

        The inputs of a Python callable, which declares none, are cast to the policy's
        variable dtype.
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
        """Returns the shapes that the graph declares and the dtypes of `call`."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, input_shape: typing.Any) -> typing.Any:
        """Returns the shapes of the outputs for inputs of the layer's compute dtype."""
        inputs = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor(shape, dtype=self.compute_dtype),
            input_shape,
        )
        outputs = self.compute_output_spec(inputs)
        return keras.tree.map_structure(lambda tensor: tensor.shape, outputs)

    def get_config(self) -> dict[str, typing.Any]:
        """Returns the arguments of the layer, which JSON can represent.

        Raises:
          NotImplementedError: the handle is neither a path nor a URL.
          ValueError: JSON can't represent an argument.
        """
        options = self._options
        if not isinstance(options.handle, str):
            raise NotImplementedError(
                "To save a reuse.KerasLayer, its handle must be a path or a URL, not a "
                f"{type(options.handle).__name__}."
            )
        for name, value in options.arguments.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(
                    f"The argument {name!r} can't be saved: JSON can't represent a "
                    f"{type(value).__name__}."
                ) from error
        shapes = options.output_shape
        if shapes is not None:
            shapes = tf.nest.map_structure(lambda shape: shape.as_list(), shapes)
        return {
            **super().get_config(),
            "handle": options.handle,
            "arguments": dict(options.arguments),
            "training_mode": options.training_mode,
            "tags": None if options.tags is None else list(options.tags),
            "signature": options.signature,
            "signature_outputs_as_dict": options.signature_outputs_as_dict,
            "output_key": options.output_key,
            "output_shape": shapes,
        }

    @classmethod
    def from_config(cls, config: dict[str, typing.Any]) -> KerasLayer:
        """Makes a layer from the result of `get_config`.

        Raises:
          ValueError: the SavedModel can't be loaded any more, or would have to be
            downloaded in safe mode.
        """
        handle, name = config["handle"], config.get("name")
        is_url = handle.startswith(handles.SCHEMES)
        needs_download = is_url and not handles.is_cached(handle)
        if needs_download and serialization_lib.in_safe_mode():
            raise ValueError(
                f"The layer {name!r} loads {handle!r}, which is missing or incomplete "
                "in the cache of this machine. A SavedModel is a program: if you trust "
                "it, download it with safe_mode=False."
            )
        try:
            return cls(**config)
        except ValueError as error:
            raise ValueError(
                f"The layer {name!r} can't be restored: {error}"
            ) from error

    def _get_own_losses(self) -> list[typing.Any]:
        """Overrides the method from which Keras collects the losses of each layer."""
        losses = [
            loss() if self.trainable else tf.zeros([]) for loss in _losses(self._loaded)
        ]
        return [*super()._get_own_losses(), *losses]

    def _check_trainable(self) -> None:
        """Checks that a trainable layer can be trained.

        Runs at every call, because `trainable` may be set at any time.
        """
        if not self.trainable:
            return
        if self._options.signature:
            raise ValueError(
                "A reuse.KerasLayer that calls a signature can't be trainable: a "
                "signature has no training mode. TF1 Hub modules have only signatures."
            )
        if self._options.training_mode and not self._has_training_trace:
            raise ValueError(
                "The model was not traced for training=True: to train its variables "
                "nevertheless, use training_mode=False."
            )
        if not self.trainable_variables and not self._has_warned:
            warnings.warn(
                "This reuse.KerasLayer is trainable, but its model lists no trainable "
                "variables.",
                stacklevel=3,
            )
            self._has_warned = True


def _load(
    handle: str,
    tags: Sequence[str] | None,
    options: tf.saved_model.LoadOptions | None,
) -> tuple[typing.Any, bool]:
    """Loads a SavedModel; returns the object, and whether it is a TF1 Hub module.

    The files of an archive exist as long as the object, because saving the object
    copies its assets.
    """
    with contextlib.ExitStack() as stack:
        if handle.startswith(handles.SCHEMES):
            folder = handles.download_once(handle, name="handle")
        else:
            folder = stack.enter_context(handles.open_model(handle, name="handle"))
        is_hub_module = (folder / _HUB_MODULE).exists()
        if tags is None and is_hub_module:
            tags = []
        try:
            loaded = tf.saved_model.load(str(folder), tags=tags, options=options)
        except Exception as error:  # a damaged model may raise anything
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"handle {handle!r} is not usable: {lines[0]}") from error
        weakref.finalize(loaded, stack.pop_all().close)
    return loaded, is_hub_module


def _absolute(handle: str) -> str:
    is_url = handle.startswith(handles.SCHEMES)
    return handle if is_url else str(pathlib.Path(handle).absolute())


def _function(loaded: typing.Any, options: _Options) -> typing.Any:
    """Returns the function that the layer calls: a signature, or the object itself."""
    signatures = getattr(loaded, "signatures", {})
    if options.signature:
        _check_name("signature", options.signature, signatures)
        function = signatures[options.signature]
        if bool(options.output_key) == bool(options.signature_outputs_as_dict):
            raise ValueError(
                f"With signature={options.signature!r}, pass either output_key or "
                "signature_outputs_as_dict=True."
            )
        if options.output_key:
            _check_name("output_key", options.output_key, function.structured_outputs)
        return function
    if options.signature_outputs_as_dict:
        raise ValueError("signature_outputs_as_dict=True needs a signature.")
    if callable(loaded):
        return loaded
    if not signatures:
        raise ValueError("The model has neither a __call__ nor signatures.")
    raise ValueError(
        "The model has no __call__: pass output_key and a signature, one of "
        f"{', '.join(sorted(signatures))}."
    )


def _keywords(function: typing.Any, signature: str | None) -> frozenset[str] | None:
    """Returns the names of the keyword arguments; None if any name is allowed."""
    if signature:
        return frozenset(function.structured_input_signature[1])
    if hasattr(function.__call__, "concrete_functions"):  # loaded from a SavedModel
        function = function.__call__
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _has_training_trace(function: typing.Any) -> bool:
    """Returns whether a function with the argument `training` can be called with True.

    Only a function that was loaded from a SavedModel has a fixed set of traces.
    """
    traces = getattr(function.__call__, "concrete_functions", None)
    if traces is None:
        return True
    parameters = inspect.signature(function.__call__).parameters
    for trace in traces:
        positional, keywords = trace.structured_input_signature
        values = dict(zip(parameters, positional, strict=False)) | keywords
        value = values.get("training", parameters["training"].default)
        if value is True or isinstance(value, tf.TensorSpec):
            return True
    return False


def _input_dtypes(
    function: typing.Any, signature: str | None, inputs: typing.Any
) -> list[list[typing.Any]]:
    """Returns, for each trace, the dtypes of the tensors in its first argument."""
    if signature:
        specs = function.structured_input_signature[1]
        if isinstance(inputs, dict):
            specs = {name: specs.get(name) for name in inputs}
        traces = [specs]
    else:
        # Only a function that was loaded from a SavedModel has concrete functions.
        concrete = getattr(function.__call__, "concrete_functions", ())
        traces = [trace.structured_input_signature[0][:1] for trace in concrete]
    return [
        [getattr(spec, "dtype", None) for spec in tf.nest.flatten(specs)]
        for specs in traces
    ]


def _cast(value: typing.Any, dtypes: Iterable[typing.Any]) -> typing.Any:
    """Casts a floating tensor to the widest of the dtypes, unless it has one of them.

    Returns the value itself if it is not a floating tensor or no dtype is floating.
    """
    if not tf.is_tensor(value) or not value.dtype.is_floating:
        return value
    floating = [d for d in map(tf.as_dtype, filter(None, dtypes)) if d.is_floating]
    if not floating or value.dtype in floating:
        return value
    return tf.cast(value, max(floating, key=lambda dtype: dtype.size))


def _check_arguments(
    arguments: Mapping[str, typing.Any], keywords: frozenset[str] | None
) -> None:
    if "training" in arguments:
        raise ValueError("arguments can't have 'training': Keras passes it to `call`.")
    if keywords is not None:
        for name in arguments:
            _check_name("argument", name, keywords - {"training"})


def _variables(loaded: typing.Any) -> Iterator[keras.Variable]:
    """Yields the variables of a loaded object as Keras variables.

    Keras' TensorFlow backend wraps the variables without copying them.
    """
    trainable = list(getattr(loaded, "trainable_variables", ()))
    trainable_ids = {id(variable) for variable in trainable}
    variables = getattr(loaded, "variables", ())
    others = [v for v in variables if id(v) not in trainable_ids]
    for variable in [*trainable, *others]:
        yield keras.Variable(
            variable,
            dtype=variable.dtype.name,
            trainable=id(variable) in trainable_ids,
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


def _check_name(role: str, name: str, names: Iterable[str]) -> None:
    """Raises ValueError, with the nearest valid name, unless `name` is in `names`."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"The model has no {role} {name!r}.{hint} It has "
        f"{', '.join(sorted(names)) or 'none'}."
    )


def _shapes(nest: typing.Any) -> typing.Any:
    """Returns a nest of shapes with each shape as a tf.TensorShape."""
    if isinstance(nest, Mapping):
        return {key: _shapes(value) for key, value in nest.items()}
    try:
        return tf.TensorShape(nest)
    except TypeError:
        return [_shapes(value) for value in nest]
