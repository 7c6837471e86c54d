"""Clause R15: calls from a tf.function, eagerly, and under distribution strategies.

Sources: https://www.tensorflow.org/guide/distributed_training, and reports of users of
hub.KerasLayer (tensorflow/hub issues 295, 666, 712).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from conformance import clauses, model_under_test, numeric, verdict

_STATISTICS_FIX = "Create moving statistics with synchronization=ON_READ and "
_STATISTICS_FIX += "aggregation=MEAN, and update them by assign in training mode."


def r15_works_in_every_call_context(model: model_under_test.ModelUnderTest) -> str:
    """Compares the outputs of all ways to call, then trains on two replicas."""
    _check_eager_calls(model)
    statistics = _check_replicas(model)
    return f"the same outputs; {statistics} moving statistics are means of the replicas"


def _check_eager_calls(model: model_under_test.ModelUnderTest) -> None:
    """Compares eager calls, also under run_functions_eagerly, with a tf.function."""
    images = model.images(2)
    expected = model.infer(images)
    outputs = {}
    fix = "Make __call__ one tf.function with Python defaults, traced before saving."
    with verdict.expecting("an eager call to work", fix=fix):
        outputs["eagerly"] = model.call_eagerly(images, training=False)
    tf.config.run_functions_eagerly(True)
    try:
        with verdict.expecting("a call under run_functions_eagerly to work", fix=fix):
            output = model.call_eagerly(images, training=False)
            outputs["under run_functions_eagerly"] = output
    finally:
        tf.config.run_functions_eagerly(False)
    for mode, output in outputs.items():
        difference = numeric.relative_difference(output, expected)
        if difference > clauses.TOLERANCE:
            raise verdict.Violation(
                expected=f"a call {mode} to equal one from a tf.function",
                observed=f"a relative difference of {difference:.1e}",
                fix=fix,
            )


def _check_replicas(model: model_under_test.ModelUnderTest) -> int:
    """Checks that each moving statistic is the mean over two replicas after training.

    Returns:
      The number of statistics that the training step changed.
    """
    devices = [device.name for device in tf.config.list_logical_devices("CPU")[:2]]
    if len(devices) < 2:
        raise verdict.NotApplicable("this process has fewer than two devices")
    strategy = tf.distribute.MirroredStrategy(devices)
    with verdict.expecting(
        "loading and calling under MirroredStrategy to work",
        fix="Use only ops that run on each replica separately.",
    ):
        with strategy.scope():
            copy = model_under_test.ModelUnderTest(
                model.path,
                kind=model.kind,
                full=False,
                pair=None,
                documented=model.documented,
            )
            before = [variable.numpy() for variable in _statistics(copy)]
        batches = [model.images(2), model.images(2, fill=0.25)]
        replica_images = strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group]
        )
        training = copy.has_training_trace

        @tf.function
        def step(images: Any) -> Any:
            return copy.call_eagerly(images, training=training)

        strategy.run(step, args=(replica_images,))
    changed = 0
    for variable, old in zip(_statistics(copy), before, strict=True):
        local = [v.numpy() for v in strategy.experimental_local_results(variable)]
        value = _cross_replica_value(strategy, variable)
        if all((local_value == old).all() for local_value in local):
            continue
        changed += 1
        difference = numeric.relative_difference(value, np.mean(local, axis=0))
        is_shared = len(local) < 2
        if difference > clauses.TOLERANCE or is_shared:
            raise verdict.Violation(
                expected=f"{variable.name}, read across replicas after a training "
                "step, to be the mean over the replicas",
                observed="the value of one replica only"
                if numeric.relative_difference(value, local[0]) == 0
                else f"a relative difference of {difference:.1e}",
                fix=_STATISTICS_FIX,
            )
    return changed


def _statistics(model: model_under_test.ModelUnderTest) -> list[Any]:
    """Returns the non-trainable floating-point variables."""
    trainable = {id(variable) for variable in model.trainable_variables}
    return [
        variable
        for variable in model.variables
        if id(variable) not in trainable and variable.dtype.is_floating
    ]


def _cross_replica_value(strategy: tf.distribute.Strategy, variable: Any) -> np.ndarray:
    """Reads a variable across replicas."""
    with strategy.scope():
        return variable.read_value().numpy()
