"""Clause R15: the places that a model is called from.

Source: https://www.tensorflow.org/guide/distributed_training, and what consumers of
hub.KerasLayer reported (tensorflow/hub issues 295, 666, 712).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from conformance import clauses, model_under_test, numeric, verdict

_MEND_STATISTICS = "Make batch statistics with synchronization=ON_READ and "
_MEND_STATISTICS += "aggregation=MEAN, and update them by assign in training mode."


def r15_works_wherever_it_is_called(model: model_under_test.ModelUnderTest) -> str:
    """Compares outputs, then runs a training step on two replicas."""
    _check_places(model)
    statistics = _check_replicas(model)
    return f"everywhere the same; {statistics} batch statistics are means"


def _check_places(model: model_under_test.ModelUnderTest) -> None:
    """From a tf.function is how the suite calls; eagerly, and with all run eagerly."""
    images = model.images(2)
    expected = model.infer(images)
    found = {}
    mend = "Let __call__ be one tf.function with Python defaults, traced before saving."
    with verdict.expecting("an eager call to work", mend=mend):
        found["eagerly"] = model.call_eagerly(images, training=False)
    tf.config.run_functions_eagerly(True)
    try:
        with verdict.expecting("a call under run_functions_eagerly to work", mend=mend):
            output = model.call_eagerly(images, training=False)
            found["under run_functions_eagerly"] = output
    finally:
        tf.config.run_functions_eagerly(False)
    for where, output in found.items():
        difference = numeric.relative_difference(output, expected)
        if difference > clauses.TOLERANCE:
            raise verdict.Violation(
                expected=f"a call {where} to equal one from a tf.function",
                observed=f"a relative difference of {difference:.1e}",
                mend=mend,
            )


def _check_replicas(model: model_under_test.ModelUnderTest) -> int:
    """Returns how many statistics a training step on two replicas changed."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")[:2]]
    if len(devices) < 2:
        raise verdict.NotApplicable("this process has no two devices")
    strategy = tf.distribute.MirroredStrategy(devices)
    with verdict.expecting(
        "loading and calling under MirroredStrategy to work",
        mend="Keep to ops that run on each replica for itself.",
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
        shares = strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group]
        )
        training = copy.takes_training_true

        @tf.function
        def step(images: Any) -> Any:
            return copy.call_eagerly(images, training=training)

        strategy.run(step, args=(shares,))
    changed = 0
    for variable, old in zip(_statistics(copy), before, strict=True):
        local = [v.numpy() for v in strategy.experimental_local_results(variable)]
        read = _read(strategy, variable)
        if all((value == old).all() for value in local):
            continue
        changed += 1
        difference = numeric.relative_difference(read, np.mean(local, axis=0))
        is_shared = len(local) < 2
        if difference > clauses.TOLERANCE or is_shared:
            raise verdict.Violation(
                expected=f"{variable.name}, read across replicas after a training "
                "step, to be the mean of theirs",
                observed="one replica's value alone"
                if numeric.relative_difference(read, local[0]) == 0
                else f"a relative difference of {difference:.1e}",
                mend=_MEND_STATISTICS,
            )
    return changed


def _statistics(model: model_under_test.ModelUnderTest) -> list[Any]:
    """The non-trainable variables of floats."""
    trainable = {id(variable) for variable in model.trainable_variables}
    return [
        variable
        for variable in model.variables
        if id(variable) not in trainable and variable.dtype.is_floating
    ]


def _read(strategy: tf.distribute.Strategy, variable: Any) -> np.ndarray:
    """The value across replicas."""
    with strategy.scope():
        return variable.read_value().numpy()
