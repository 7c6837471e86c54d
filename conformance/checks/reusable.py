"""Group R, the Reusable SavedModel interface: clauses R01 to R08, R10, R11 and R14.

R09 is in `arguments`, R12 in `parts`, R13 in `copies` and R15 in `strategies`.

Source: https://www.tensorflow.org/hub/reusable_saved_models
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from conformance import clauses, graphs, model_under_test, numeric, traces, verdict

_PYTHON_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
# TensorFlow ops that an image model does not need and that access files, the network or
# a debugger. Datasets and iterators are among them, since a dataset can read files.
# `_TABLES` are not: a lookup table may read its keys from an asset of the model.
_EXTERNAL_OPS = re.compile(
    r"File|Summary|Reader|Dataset|Iterator|Checkpoint|Rpc|LMDB|^Save|^Restore"
    r"|Debug(Identity|N)|DumpTensor|ImmutableConst|LoadAndRemapMatrix"
)
_CHECKPOINT_OPS = re.compile(r"^Save|^Restore|^MergeV2Checkpoints|^ShardedFile")
_TABLES = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
# User objects that tf.saved_model.load creates without registered classes. Objects
# with _tf_keras_* identifiers load as plain objects if Keras is not imported.
_BUILT_IN_OBJECTS = ("_generic_user_object", "signature_map", "trackable_", "_tf_keras")

# A batch may change outputs this many times as much as other last bits in images do.
# Ops round differently for other batch sizes, and saturated gates amplify that: a batch
# has 0.6 to 3.5 times the effect of last bits in SE-ResNet-50 with random weights.
_ROUNDINGS, _LARGEST_ROUNDING = 10, 0.01


def r01_loads_alone(model: model_under_test.ModelUnderTest) -> str:
    """Checks for Python ops, file ops and registered classes, then loads the model.

    Loading a custom op fails in a process that has not loaded the op's library. If the
    library is loaded, the check can't tell a custom op from TensorFlow's ops.
    """
    expected = "a model that tf.saved_model.load can load"
    fix = "Write it with tf.saved_model.save from tf.functions of TensorFlow ops."
    with verdict.expecting(expected, fix=fix):
        proto = model.proto
        objects = _custom_objects(proto)
    count = check_ops(proto)
    if objects:
        raise verdict.Violation(
            expected="no object of a class that needs registration before loading",
            observed=f"objects of {', '.join(objects)}",
            fix="Save a tf.train.Checkpoint as the root, with the variables and "
            "tf.functions as its attributes.",
        )
    with verdict.expecting(expected, fix=fix):
        _ = model.obj
    return f"loaded; {count} op types, all from TensorFlow"


def check_ops(proto: Any) -> int:
    """Checks for ops that call Python or access files, before any op runs.

    Returns:
      The number of op types.

    Raises:
      verdict.Violation: there is such an op.
    """
    ops = _ops(proto)
    if python_ops := ops & set(_PYTHON_OPS):
        raise verdict.Violation(
            expected="graphs of TensorFlow ops only",
            observed=f"the ops {', '.join(sorted(python_ops))}, which call Python",
            fix="Replace tf.py_function and tf.numpy_function by TensorFlow ops.",
        )
    if external_ops := sorted(_external_ops(proto)):
        raise verdict.Violation(
            expected="no op that reads or writes files",
            observed=f"the ops {', '.join(external_ops)}; the model was not run",
            fix="Read files from assets, or outside the model.",
        )
    return len(ops)


def _ops(proto: Any) -> set[str]:
    """Returns the op types of all graphs and functions."""
    ops = set()
    for meta_graph in proto.meta_graphs:
        ops |= {node.op for node in meta_graph.graph_def.node}
        for function in meta_graph.graph_def.library.function:
            ops |= {node.op for node in function.node_def}
    return ops


def _external_ops(proto: Any) -> set[str]:
    """Returns the `_EXTERNAL_OPS` that run, and PrintV2 if it writes to a file."""
    nodes: list[Any] = []
    for meta_graph in proto.meta_graphs:
        nodes += graphs.nodes_that_run(meta_graph)
        # Saving and restoring the variables needs checkpoint ops.
        saver = graphs.nodes_of_saver(meta_graph)
        nodes += (node for node in saver if not _CHECKPOINT_OPS.search(node.op))
    external_ops = set()
    for node in nodes:
        if node.op == "PrintV2":
            stream = node.attr["output_stream"].s.decode("utf-8", "replace")
            if stream.startswith("file:"):
                external_ops.add(f"PrintV2 to {stream}")
        elif _EXTERNAL_OPS.search(node.op) and node.op not in _TABLES:
            external_ops.add(node.op)
    return external_ops


def _custom_objects(proto: Any) -> list[str]:
    """Returns the sorted names of classes that must be registered before loading."""
    names = set()
    for meta_graph in proto.meta_graphs:
        for node in meta_graph.object_graph_def.nodes:
            identifier = node.user_object.identifier
            if identifier and not identifier.startswith(_BUILT_IN_OBJECTS):
                names.add(identifier)
            # TensorFlow registers its own classes under names that begin with "tf.".
            if node.registered_name and not node.registered_name.startswith("tf."):
                names.add(node.registered_name)
    return sorted(names)


def r02_root_is_callable(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the root's `__call__` is a restored tf.function."""
    if not model.is_callable:
        call = model.call
        raise verdict.Violation(
            expected="a __call__ that is a tf.function with traces",
            observed="no __call__" if call is None else f"a {type(call).__name__}",
            fix="Set root.__call__ to a tf.function and trace it before saving.",
        )
    return f"__call__ has {len(model.all_traces)} traces"


def r03_takes_one_tensor(model: model_under_test.ModelUnderTest) -> str:
    """Checks the declared parameters, and the spec of the first one in the traces.

    The check ignores a trace if a more general trace accepts all of its calls.
    """
    parameters = traces.parameters(model.call)
    required = traces.required(model.call)
    if required != parameters[:1] or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise verdict.Violation(
            expected="exactly one required argument: the first, which can be passed by "
            "position",
            observed=f"__call__{inspect.signature(model.call)}",
            fix="Give every argument but the first a default.",
        )
    name = required[0].name
    for trace in model.general_traces:
        spec = trace.arguments[name]
        if not traces.is_tensor(spec):
            raise verdict.Violation(
                expected=f"{name} to be a single Tensor",
                observed=f"a trace for {type(spec).__name__} {spec!r}",
                fix="Trace __call__ with one tf.TensorSpec, not with a list or dict.",
            )
        if spec.shape.rank is not None and (not spec.shape.rank or spec.shape[0]):
            raise verdict.Violation(
                expected="an undefined batch dimension",
                observed=f"a trace for {name} of shape {spec.shape}",
                fix="Trace with a tf.TensorSpec whose first dimension is None.",
            )
    return f"{name}, {model.input_spec.dtype.name} {model.input_spec.shape}"


def r04_lists_variables(model: model_under_test.ModelUnderTest) -> str:
    """Checks that root.variables lists all variables that the traces capture.

    Variables are compared by resource handle. A trace also captures the variables that
    nested functions capture.
    """
    listed = {id(variable.handle) for variable in model.variables}
    captured = model.captured_variables
    missing = [v for v in captured if id(v.handle) not in listed]
    if missing:
        fix = "Add them to root.variables. Variables that training must not change "
        fix += "belong there too, but not in trainable_variables."
        if not hasattr(model.obj, "variables"):
            fix = "Set root.variables to a list, and let the root be a "
            fix += "tf.train.Checkpoint: the variables of a tf.Module are a property, "
            fix += "which is not saved."
        raise verdict.Violation(
            expected=f"all {len(captured)} captured variables in root.variables",
            observed=f"{len(missing)} missing: {numeric.names(missing)}",
            fix=fix,
        )
    return f"{len(model.variables)} listed, {len(captured)} captured"


def r05_lists_trainable_variables(model: model_under_test.ModelUnderTest) -> str:
    """Checks that variables lists all trainable_variables, each with `v.trainable`."""
    if not model.trainable_variables:
        raise verdict.NotApplicable("there are no trainable_variables")
    listed = {id(variable) for variable in model.variables}
    unlisted = [v for v in model.trainable_variables if id(v) not in listed]
    if unlisted:
        raise verdict.Violation(
            expected="trainable_variables to be a subset of variables",
            observed=f"{len(unlisted)} not listed: {numeric.names(unlisted)}",
            fix="Put the same tf.Variable objects into both lists.",
        )
    frozen = [v for v in model.trainable_variables if not v.trainable]
    if frozen:
        raise verdict.Violation(
            expected="v.trainable to be true for each of trainable_variables",
            observed=f"{len(frozen)} that are not: {numeric.names(frozen)}",
            fix="Remove them from trainable_variables, or create them with "
            "trainable=True.",
        )
    return f"{len(model.trainable_variables)} of {len(model.variables)} variables"


def r06_regularization_losses(model: model_under_test.ModelUnderTest) -> str:
    """Checks the value and gradient of each loss, and that a call changes no variable.

    A gradient to any variable with `v.trainable` counts, even if trainable_variables
    does not list it, so that a frozen model, whose trainable_variables is empty, can
    keep its losses. If no variable is trainable, a loss needs no gradient.
    """
    losses = getattr(model.obj, "regularization_losses", ())
    if not isinstance(losses, list | tuple) or not all(map(callable, losses)):
        raise verdict.Violation(
            expected="a list of callables",
            observed=f"a {type(losses).__name__}",
            fix="Set root.regularization_losses to a list of tf.functions.",
        )
    if not losses:
        raise verdict.NotApplicable("there are no regularization_losses")
    trainable = [v for v in model.all_variables if v.trainable]
    for index, loss in enumerate(losses):
        _check_loss(model, f"regularization_losses[{index}]", loss, trainable)
    return f"{len(losses)} losses"


def _check_loss(
    model: model_under_test.ModelUnderTest, name: str, loss: Any, trainable: list[Any]
) -> None:
    fix = "Make each loss a tf.function with input_signature=[] that computes a scalar "
    fix += "from the variables."
    with model.variables_kept() as before:
        with (
            verdict.expecting(f"{name}() to be callable without inputs", fix=fix),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(trainable)
            value = loss()
        changed = numeric.changed(
            model.all_variables, before, numeric.values(model.all_variables)
        )
        gradients = tape.gradient(value, trainable) if _is_float_scalar(value) else []
    if not _is_float_scalar(value) or not np.isfinite(value.numpy()):
        expected, observed = "a finite float scalar", f"{value!r}"
    elif changed:
        expected = "no variable to change"
        observed = f"that it changed {numeric.names(changed)}"
    elif trainable and all(gradient is None for gradient in gradients):
        expected = "a gradient to a trainable variable"
        observed = "no gradient to any of them"
    else:
        return
    raise verdict.Violation(expected=f"{name}: {expected}", observed=observed, fix=fix)


def _is_float_scalar(value: Any) -> bool:
    return tf.is_tensor(value) and value.shape.rank == 0 and value.dtype.is_floating


def r07_training_is_a_bool(model: model_under_test.ModelUnderTest) -> str:
    """Checks the declared default, then eager calls with and without `training`."""
    if model.training is None:
        raise verdict.NotApplicable("__call__ has no argument training")
    default = inspect.signature(model.call).parameters["training"].default
    fix = "Declare training=False and trace with the Python values False and True."
    if default is not False:
        raise verdict.Violation(
            expected="training=False as the default",
            observed=f"training={default!r}",
            fix=fix,
        )
    images = model.images(2)
    with verdict.expecting("obj(x, training=False) to work", fix=fix):
        explicit = model.obj(images, training=False)
    with model.variables_kept():  # without the argument, the model may train
        difference = numeric.relative_difference(model.obj(images), explicit)
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="obj(x) to equal obj(x, training=False)",
            observed=f"a relative difference of {difference:.1e}",
            fix=fix,
        )
    return f"obj(x) equals obj(x, training=False), difference {difference:.1e}"


def r08_traces_every_combination(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the traces cover all combinations of the arguments' Python values.

    The permissible values of an argument are those in any trace; for training, they are
    True and False. All combinations of them are required, since traces can't show
    whether the author excludes one. Traces for Tensors of different shapes or dtypes
    are checked separately.
    """
    general = model.general_traces
    tensors = {
        name
        for trace in general
        for name, argument in trace.arguments.items()
        if traces.is_tensor(argument)
    }
    names = sorted({name for trace in general for name in trace.arguments} - tensors)
    if not names:
        raise verdict.NotApplicable("__call__ takes no Python-valued argument")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for trace in general:
        specs = [
            _dtype_and_shape(trace.arguments.get(name)) for name in sorted(tensors)
        ]
        values = tuple(repr(trace.arguments.get(name)) for name in names)
        groups.setdefault(repr(specs), []).append(values)
    for traced in groups.values():
        missing = set(_combinations(names, traced)) - set(traced)
        if missing:
            example = zip(names, min(missing), strict=True)
            raise verdict.Violation(
                expected="a trace for every combination of Python-valued arguments",
                observed=f"{len(missing)} missing, such as "
                + ", ".join(f"{name}={value}" for name, value in example),
                fix="Before saving, call get_concrete_function for the product of "
                "the values of these arguments.",
            )
    return f"{len(general)} traces for all values of {', '.join(names)}"


def _dtype_and_shape(argument: Any) -> Any:
    """Returns the dtype and shape of a Tensor argument, or the Python value instead."""
    is_tensor = traces.is_tensor(argument)
    return (argument.dtype, argument.shape) if is_tensor else argument


def _combinations(
    names: list[str], traced: list[tuple[str, ...]]
) -> Iterable[tuple[str, ...]]:
    """Returns all combinations of the values in `traced`; training has both values."""
    value_sets = [set(values) for values in zip(*traced, strict=True)]
    for name, values in zip(names, value_sets, strict=True):
        if name == "training":
            values |= {"False", "True"}
    return itertools.product(*value_sets)


def r10_changes_statistics_only(model: model_under_test.ModelUnderTest) -> str:
    """Compares the bits of all variables before and after a call in each mode.

    A variable is trainable if trainable_variables lists it. The model has moving
    statistics if it has non-trainable floating-point variables and if, in training
    mode, the output for one image has a gradient to another image of the batch.
    """
    fix = "Update moving statistics if training is True; never update other variables."
    with model.variables_kept() as before:
        model.infer(model.images(2))
        after = numeric.values(model.all_variables)
    if changed := numeric.changed(model.all_variables, before, after):
        raise verdict.Violation(
            expected="a call with training=False to change no variable",
            observed=f"that it changed {numeric.names(changed)}",
            fix=fix,
        )
    if not model.has_training_trace:
        return "inference changes no variable; there is no training=True"
    step = model.training_step
    trainable = {id(v) for v in model.trainable_variables}
    if changed_weights := [v for v in step.changed if id(v) in trainable]:
        raise verdict.Violation(
            expected="a call with training=True to change no trainable variable",
            observed=f"that it changed {numeric.names(changed_weights)}",
            fix=fix,
        )
    others = [
        v for v in model.all_variables if id(v) not in trainable and v.dtype.is_floating
    ]
    updated = [v for v in step.changed if v.dtype.is_floating]
    if others and step.neighbour_gradient and not updated:
        raise verdict.Violation(
            expected="a call with training=True to update moving statistics, since "
            "the output for an image then depends on its batch",
            observed=f"that none of {len(others)} non-trainable variables changed",
            fix=fix,
        )
    ratio = f"{len(updated)} of {len(others)}"
    return f"training changes {ratio} non-trainable floating-point variables"


def r11_gradients_reach_variables(model: model_under_test.ModelUnderTest) -> str:
    """Checks the gradients of a random projection of the output for one image.

    A gradient reaches a variable if automatic differentiation finds a path and the
    gradient is finite. It may be zero, for example for a bias before batch
    normalisation, a unit that no test image activates, or a block that drop path skips.
    """
    if not model.trainable_variables:
        raise verdict.NotApplicable("there are no trainable_variables")
    if model.training is not None and not model.has_training_trace:
        raise verdict.NotApplicable("there is no trace with training=True, see R08")
    gradients = model.training_step.variable_gradients
    with_gradients = list(zip(model.trainable_variables, gradients, strict=True))
    count = len(with_gradients)
    if unreached := [v for v, gradient in with_gradients if gradient is None]:
        raise verdict.Violation(
            expected=f"a gradient for each of {count} trainable variables",
            observed=f"{len(unreached)} without: {numeric.names(unreached)}",
            fix="Remove variables that the output does not depend on from "
            "trainable_variables; look for stop_gradient and casts to integers.",
        )
    if infinite := [v for v, g in with_gradients if not numeric.is_finite(_dense(g))]:
        raise verdict.Violation(
            expected="finite gradients",
            observed=f"{len(infinite)} that are not: {numeric.names(infinite)}",
            fix="Look for divisions by zero and square roots of zero.",
        )
    zeros = sum(not np.any(_dense(gradient)) for _, gradient in with_gradients)
    return f"a gradient for each of {count} variables; {zeros} are zero here"


def _dense(gradient: Any) -> tf.Tensor:
    return tf.convert_to_tensor(gradient)


def r14_images_are_independent(model: model_under_test.ModelUnderTest) -> str:
    """Compares the outputs for two images in four calls.

    The calls: both images; the same again; the first with a white second image; and
    each image alone.
    """
    images = model.images(2)
    output = model.infer(images)
    again = model.infer(images)
    other_images = tf.concat([images[:1], tf.ones_like(images[1:])], axis=0)
    singles = [model.infer(images[i : i + 1]) for i in range(2)]
    alone = tf.nest.map_structure(lambda *rows: tf.concat(rows, axis=0), *singles)
    differences = {
        "in a repeated call": numeric.relative_difference(again, output),
        "with another image in the batch": numeric.relative_difference(
            _first(model.infer(other_images)), _first(output)
        ),
        "with one image per batch": numeric.relative_difference(alone, output),
    }
    change, difference = max(differences.items(), key=lambda item: item[1])
    if difference <= clauses.TOLERANCE:
        return f"differences up to {difference:.1e}"
    rounding = numeric.relative_difference(
        model.infer(_with_other_last_bits(images)), output
    )
    is_random = differences["in a repeated call"] > clauses.TOLERANCE
    if is_random or difference > min(_ROUNDINGS * rounding, _LARGEST_ROUNDING):
        raise verdict.Violation(
            expected="the output for each image to depend on that image only",
            observed=f"a relative difference of {difference:.1e} {change}",
            fix="With training=False, normalise by the moving statistics, and use no "
            "random numbers.",
        )
    return (
        f"differences up to {difference:.1e}, due to rounding: images that differ in "
        f"the last bit change the output by {rounding:.1e}"
    )


def _with_other_last_bits(images: tf.Tensor) -> tf.Tensor:
    """Replaces floating-point values by the next smaller or larger, in turn."""
    if not images.dtype.is_floating:
        return images
    values = images.numpy()
    is_smaller = np.arange(values.size).reshape(values.shape) % 2 == 0
    ends = np.where(is_smaller, -np.inf, np.inf).astype(values.dtype)
    return tf.constant(np.nextafter(values, ends))


def _first(outputs: Any) -> Any:
    return tf.nest.map_structure(lambda output: output[:1], outputs)
