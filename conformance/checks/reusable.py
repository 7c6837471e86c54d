"""Group R: the Reusable SavedModel interface.

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
# TensorFlow's own, but nothing that an image model needs: who calls one runs it. A
# table may be read from an asset.
_FILE_OPS = re.compile(
    r"File|Summary|Reader|Dataset|Iterator|Checkpoint|Rpc|LMDB|^Save|^Restore"
    r"|Debug(Identity|N)|DumpTensor|ImmutableConst|LoadAndRemapMatrix"
)
_CHECKPOINT_OPS = re.compile(r"^Save|^Restore|^MergeV2Checkpoints|^ShardedFile")
_TABLES = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
# User objects that tf.saved_model.load makes by itself; _tf_keras_* ones load as plain
# objects where Keras is not there.
_BUILT_IN_OBJECTS = ("_generic_user_object", "signature_map", "trackable_", "_tf_keras")


def r01_loads_alone(model: model_under_test.ModelUnderTest) -> str:
    """Looks for Python and files in the graphs and for registered classes, then loads.

    A custom op makes loading fail in a process that did not load its library; one that
    did can't tell such an op from TensorFlow's own.
    """
    expected = "a model that tf.saved_model.load takes"
    mend = "Write it with tf.saved_model.save from tf.functions of TensorFlow ops."
    with verdict.expecting(expected, mend=mend):
        proto = model.proto
        objects = _custom_objects(proto)
    count = check_ops(proto)
    if objects:
        raise verdict.Violation(
            expected="no object of a class that its author has to register",
            observed=f"objects of {', '.join(objects)}",
            mend="Save a plain tf.Module or tf.train.Checkpoint as the root, and hang "
            "variables and tf.functions on it.",
        )
    with verdict.expecting(expected, mend=mend):
        _ = model.obj
    return f"loaded; {count} types of ops, all of TensorFlow"


def check_ops(proto: Any) -> int:
    """Refuses ops that call Python, or files, before anything is run.

    Returns:
      How many types of ops there are.
    """
    ops = _ops(proto)
    if python_ops := ops & set(_PYTHON_OPS):
        raise verdict.Violation(
            expected="graphs of TensorFlow ops alone",
            observed=f"the ops {', '.join(sorted(python_ops))}, which call Python",
            mend="Replace tf.py_function and tf.numpy_function by TensorFlow ops.",
        )
    if file_ops := _file_ops(proto):
        raise verdict.Violation(
            expected="no op that reads or writes files by itself",
            observed=f"the ops {', '.join(sorted(file_ops))}; nothing was run",
            mend="Leave files to assets, and to whoever calls the model.",
        )
    return len(ops)


def _ops(proto: Any) -> set[str]:
    found = set()
    for meta_graph in proto.meta_graphs:
        found |= {node.op for node in meta_graph.graph_def.node}
        for function in meta_graph.graph_def.library.function:
            found |= {node.op for node in function.node_def}
    return found


def _file_ops(proto: Any) -> set[str]:
    """PrintV2 writes wherever an attribute says: to a terminal by default."""
    nodes: list[Any] = []
    for meta_graph in proto.meta_graphs:
        nodes += graphs.nodes_that_run(meta_graph)
        saver = graphs.nodes_of_saver(meta_graph)
        nodes += (node for node in saver if not _CHECKPOINT_OPS.search(node.op))
    found = set()
    for node in nodes:
        if node.op == "PrintV2":
            stream = node.attr["output_stream"].s.decode("utf-8", "replace")
            if stream.startswith("file:"):
                found.add(f"PrintV2 to {stream}")
        elif _FILE_OPS.search(node.op) and node.op not in _TABLES:
            found.add(node.op)
    return found


def _custom_objects(proto: Any) -> list[str]:
    found = set()
    for meta_graph in proto.meta_graphs:
        for node in meta_graph.object_graph_def.nodes:
            identifier = node.user_object.identifier
            if identifier and not identifier.startswith(_BUILT_IN_OBJECTS):
                found.add(identifier)
            if node.registered_name and not node.registered_name.startswith("tf."):
                found.add(node.registered_name)
    return sorted(found)


def r02_root_is_callable(model: model_under_test.ModelUnderTest) -> str:
    """Looks at the root's attribute `__call__`."""
    if not model.is_callable:
        observed = "no __call__" if model.call is None else f"a {type(model.call)}"
        raise verdict.Violation(
            expected="a __call__ that is a tf.function with traces",
            observed=observed,
            mend="Set root.__call__ to a tf.function and trace it before saving.",
        )
    return f"__call__ has {len(model.all_traces)} traces"


def r03_takes_one_tensor(model: model_under_test.ModelUnderTest) -> str:
    """Reads the declared parameters, and the first one's spec in the traces.

    A trace whose every call another, more general one takes too is of no matter.
    """
    parameters = traces.parameters(model.call)
    required = traces.required(model.call)
    if required != parameters[:1] or required[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise verdict.Violation(
            expected="one required argument, the first and positional",
            observed=f"__call__{inspect.signature(model.call)}",
            mend="Give every argument but the first a default.",
        )
    name = required[0].name
    for trace in model.general_traces:
        spec = trace.arguments[name]
        if not traces.is_tensor(spec):
            raise verdict.Violation(
                expected=f"{name} to be a single Tensor",
                observed=f"a trace for {type(spec).__name__} {spec!r}",
                mend="Trace __call__ with one tf.TensorSpec, no list and no dict.",
            )
        if spec.shape.rank is not None and (not spec.shape.rank or spec.shape[0]):
            raise verdict.Violation(
                expected="an undefined batch dimension",
                observed=f"a trace for {name} of shape {spec.shape}",
                mend="Trace with a tf.TensorSpec whose first dimension is None.",
            )
    return f"{name}, {model.input_spec.dtype.name} {model.input_spec.shape}"


def r04_lists_variables(model: model_under_test.ModelUnderTest) -> str:
    """Holds what the traces capture against the list, by the variables' handles.

    A trace captures what the functions that it calls capture.
    """
    listed = {id(variable.handle) for variable in model.variables}
    captured = model.captured_variables
    missing = [v for v in captured if id(v.handle) not in listed]
    if missing:
        mend = "Add them to root.variables; a variable that training must not touch "
        mend += "stays out of trainable_variables only."
        if not hasattr(model.obj, "variables"):
            mend = "Hang a list named variables on a root that keeps it, such as a "
            mend += "tf.train.Checkpoint: the property of a tf.Module is not saved."
        raise verdict.Violation(
            expected=f"all {len(captured)} captured variables in root.variables",
            observed=f"{len(missing)} missing: {numeric.names(missing)}",
            mend=mend,
        )
    return f"{len(model.variables)} listed, {len(captured)} captured"


def r05_lists_trainable_variables(model: model_under_test.ModelUnderTest) -> str:
    """Compares the two lists by identity, and reads `v.trainable`."""
    if not model.trainable_variables:
        raise verdict.NotApplicable("there are no trainable_variables")
    listed = {id(variable) for variable in model.variables}
    strange = [v for v in model.trainable_variables if id(v) not in listed]
    if strange:
        raise verdict.Violation(
            expected="trainable_variables to be a subset of variables",
            observed=f"{len(strange)} others: {numeric.names(strange)}",
            mend="Put the very same tf.Variable objects into both lists.",
        )
    frozen = [v for v in model.trainable_variables if not v.trainable]
    if frozen:
        raise verdict.Violation(
            expected="v.trainable to be true for each of trainable_variables",
            observed=f"{len(frozen)} that are not: {numeric.names(frozen)}",
            mend="Leave them out of trainable_variables, or make them with "
            "trainable=True.",
        )
    return f"{len(model.trainable_variables)} of {len(model.variables)} variables"


def r06_regularization_losses(model: model_under_test.ModelUnderTest) -> str:
    """Calls each loss, differentiates it, and compares all variables before and after.

    A gradient to any variable with `v.trainable` counts, whether or not it is listed in
    trainable_variables: who freezes a model on purpose may leave its losses in place.
    Where no variable is trainable at all, no gradient is asked for.
    """
    losses = getattr(model.obj, "regularization_losses", ())
    if not isinstance(losses, list | tuple) or not all(map(callable, losses)):
        raise verdict.Violation(
            expected="a list of callables",
            observed=f"a {type(losses).__name__}",
            mend="Set root.regularization_losses to a list of tf.functions.",
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
    mend = "Make each loss a tf.function(input_signature=[]) of the weights."
    with model.variables_kept() as before:
        with (
            verdict.expecting(f"{name}() to be callable without inputs", mend=mend),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(trainable)
            value = loss()
        changed = numeric.changed(
            model.all_variables, before, numeric.values(model.all_variables)
        )
        gradients = tape.gradient(value, trainable) if _is_scalar(value) else []
    found = None
    if not _is_scalar(value) or not np.isfinite(value.numpy()):
        found = ("a finite float scalar", f"{value!r}")
    elif changed:
        found = ("no variable to change", f"it changed {numeric.names(changed)}")
    elif trainable and all(gradient is None for gradient in gradients):
        found = ("a gradient to a trainable variable", "a gradient to none")
    if found:
        expected, observed = found
        raise verdict.Violation(
            expected=f"{name}: {expected}", observed=observed, mend=mend
        )


def _is_scalar(value: Any) -> bool:
    return tf.is_tensor(value) and value.shape.rank == 0 and value.dtype.is_floating


def r07_training_is_a_bool(model: model_under_test.ModelUnderTest) -> str:
    """Reads the declared default, then calls eagerly with and without the argument."""
    if model.training is None:
        raise verdict.NotApplicable("__call__ has no argument training")
    default = inspect.signature(model.call).parameters["training"].default
    mend = "Declare training=False and trace with the Python values False and True."
    if default is not False:
        raise verdict.Violation(
            expected="training=False as the default",
            observed=f"training={default!r}",
            mend=mend,
        )
    images = model.images(2)
    with verdict.expecting("obj(x, training=False) to work", mend=mend):
        explicit = model.obj(images, training=False)
    with model.variables_kept():
        difference = numeric.relative_difference(model.obj(images), explicit)
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="obj(x) to equal obj(x, training=False)",
            observed=f"a relative difference of {difference:.1e}",
            mend=mend,
        )
    return f"obj(x) equals obj(x, training=False), difference {difference:.1e}"


def r08_traces_every_combination(model: model_under_test.ModelUnderTest) -> str:
    """Holds the traces against the product of the Python values that occur in them.

    Which values are permissible only documentation could say. Without it, a value that
    an argument was traced with is taken as permissible whatever the other arguments
    are, and both True and False as permissible for training. Traces for Tensors of
    different shape or dtype are judged for themselves.
    """
    kept = model.general_traces
    tensors = {n for t in kept for n, a in t.arguments.items() if traces.is_tensor(a)}
    flags = sorted({n for trace in kept for n in trace.arguments} - tensors)
    if not flags:
        raise verdict.NotApplicable("__call__ takes no Python-valued argument")
    groups: dict[str, list[tuple[str, ...]]] = {}
    for trace in kept:
        specs = [
            _dtype_and_shape(trace.arguments.get(name)) for name in sorted(tensors)
        ]
        values = tuple(repr(trace.arguments.get(flag)) for flag in flags)
        groups.setdefault(repr(specs), []).append(values)
    for traced in groups.values():
        missing = set(_combinations(flags, traced)) - set(traced)
        if missing:
            pairs = zip(flags, min(missing), strict=True)
            raise verdict.Violation(
                expected="a trace for every combination of Python-valued arguments",
                observed=f"{len(missing)} missing, as for "
                + ", ".join(f"{flag}={value}" for flag, value in pairs),
                mend="Before saving, call get_concrete_function for the product of "
                "the values of these arguments.",
            )
    return f"{len(kept)} traces for all values of {', '.join(flags)}"


def _dtype_and_shape(argument: Any) -> Any:
    """Of a Tensor-valued argument; or the value that stands for its absence."""
    is_tensor = traces.is_tensor(argument)
    return (argument.dtype, argument.shape) if is_tensor else argument


def _combinations(
    flags: list[str], traced: list[tuple[str, ...]]
) -> Iterable[tuple[str, ...]]:
    """All combinations of the values in `traced`, with both values of training."""
    seen = [set(values) for values in zip(*traced, strict=True)]
    for flag, values in zip(flags, seen, strict=True):
        if flag == "training":
            values |= {"False", "True"}
    return itertools.product(*seen)


def r10_changes_statistics_only(model: model_under_test.ModelUnderTest) -> str:
    """Compares the bits of all variables before and after a call in either mode.

    Trainable are the members of trainable_variables. The model has batch statistics if
    it holds non-trainable floating-point variables and if, in training mode, one
    image's output has a gradient to another image of the batch.
    """
    mend = "Update moving statistics where training is True, and nothing anywhere else."
    with model.variables_kept() as before:
        model.infer(model.images(2))
        after = numeric.values(model.all_variables)
    if changed := numeric.changed(model.all_variables, before, after):
        raise verdict.Violation(
            expected="a call with training=False to change no variable",
            observed=f"it changed {numeric.names(changed)}",
            mend=mend,
        )
    if not model.takes_training_true:
        return "inference changes no variable; there is no training=True"
    step = model.training_step
    trainable = {id(v) for v in model.trainable_variables}
    if touched := [v for v in step.changed if id(v) in trainable]:
        raise verdict.Violation(
            expected="a call with training=True to change no trainable variable",
            observed=f"it changed {numeric.names(touched)}",
            mend=mend,
        )
    statistics = [
        v for v in model.all_variables if id(v) not in trainable and v.dtype.is_floating
    ]
    updated = [v for v in step.changed if v.dtype.is_floating]
    if statistics and step.neighbour_gradient and not updated:
        raise verdict.Violation(
            expected="a call with training=True to update the batch statistics, since "
            "in this mode an image's output depends on its batch",
            observed=f"none of {len(statistics)} non-trainable variables changed",
            mend=mend,
        )
    return f"training changes {len(updated)} of {len(statistics)} non-trainable ones"


def r11_gradients_reach(model: model_under_test.ModelUnderTest) -> str:
    """Differentiates a random projection of one image's output.

    A gradient reaches a variable if automatic differentiation finds a path, and what
    comes along it is finite. It may be exactly zero: so it is for a bias before batch
    normalisation, for a unit that no input of ours activates, and for a block that drop
    path happens to skip.
    """
    if not model.trainable_variables:
        raise verdict.NotApplicable("there are no trainable_variables")
    if model.training is not None and not model.takes_training_true:
        raise verdict.NotApplicable("training=True is not traced, see R08")
    gradients = model.training_step.variable_gradients
    named = list(zip(model.trainable_variables, gradients, strict=True))
    if unreached := [v for v, gradient in named if gradient is None]:
        raise verdict.Violation(
            expected=f"a gradient for each of {len(named)} trainable variables",
            observed=f"{len(unreached)} without: {numeric.names(unreached)}",
            mend="Leave variables that the output does not depend on out of "
            "trainable_variables, and look for stop_gradient and casts to integers.",
        )
    if infinite := [v for v, g in named if not numeric.is_finite(_dense(g))]:
        raise verdict.Violation(
            expected="finite gradients",
            observed=f"{len(infinite)} that are not: {numeric.names(infinite)}",
            mend="Look for divisions by zero and square roots of zero.",
        )
    zeros = sum(not np.any(_dense(gradient)) for _, gradient in named)
    return f"a gradient for each of {len(named)} variables, {zeros} of them zero here"


def _dense(gradient: Any) -> tf.Tensor:
    return tf.convert_to_tensor(gradient)


def r14_images_are_independent(model: model_under_test.ModelUnderTest) -> str:
    """Calls twice, with other neighbours, and with each image by itself."""
    images = model.images(2)
    output = model.infer(images)
    again = model.infer(images)
    neighbour = tf.concat([images[:1], tf.ones_like(images[1:])], axis=0)
    singles = [model.infer(images[i : i + 1]) for i in range(2)]
    alone = tf.nest.map_structure(lambda *rows: tf.concat(rows, axis=0), *singles)
    found = {
        "the same call again": numeric.relative_difference(again, output),
        "another image beside it": numeric.relative_difference(
            _first(model.infer(neighbour)), _first(output)
        ),
        "the image by itself": numeric.relative_difference(alone, output),
    }
    what, difference = max(found.items(), key=lambda item: item[1])
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected="each image's output to depend on that image alone",
            observed=f"with {what}, a relative difference of {difference:.1e}",
            mend="With training=False normalise by stored statistics, and use no "
            "random numbers.",
        )
    return f"differences up to {difference:.1e}"


def _first(outputs: Any) -> Any:
    return tf.nest.map_structure(lambda output: output[:1], outputs)
