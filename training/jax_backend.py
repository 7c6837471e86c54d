"""Trainer for the JAX backend, on one device."""

from __future__ import annotations

import functools
import typing

import jax
import keras
import numpy as np

from training import trainer


class Trainer(trainer.Trainer):
    """Trains on JAX's first device.

    Between steps the state stays on the device and is passed to the next step without a
    copy. The Keras variables are updated only when their values are needed.
    """

    _state: list[jax.Array] | None = None

    def train_step(self) -> typing.Callable:
        variables = list(self._variables().values())

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: list, images: jax.Array, labels: jax.Array) -> tuple:
            scope = keras.StatelessScope(zip(variables, state, strict=True))
            with scope:
                metrics = self._step(images, labels)
                self._end_step()
            values = [scope.get_current_value(variable) for variable in variables]
            return values, metrics

        def stateful_step(images: typing.Any, labels: typing.Any) -> tuple:
            # The first state is a copy: its buffers are donated to the step.
            state = self._state or [jax.numpy.array(v.value) for v in variables]
            self._state, metrics = step(state, np.asarray(images), np.asarray(labels))
            return metrics

        return stateful_step

    def test_step(self) -> typing.Callable:
        self._sync_variables()
        trainable, non_trainable = self._values()

        @jax.jit
        def predict(
            trainable: list, non_trainable: list, images: jax.Array
        ) -> jax.Array:
            logits, _ = self._classifier.stateless_call(
                trainable, non_trainable, images, training=False
            )
            return keras.ops.cast(logits, "float32")

        def step(images: typing.Any, labels: typing.Any) -> tuple:
            return predict(trainable, non_trainable, np.asarray(images)), labels

        return step

    def _sync_variables(self) -> None:
        """Moves the state to the Keras variables; the next step starts from these."""
        state, self._state = self._state, None
        if state is not None:
            for variable, value in zip(self._variables().values(), state, strict=True):
                variable.assign(value)

    def _values(self) -> tuple[list, list]:
        """Returns the classifier's trainable and non-trainable variable values."""
        return (
            [v.value for v in self._classifier.trainable_variables],
            [v.value for v in self._classifier.non_trainable_variables],
        )

    def _gradients(
        self, images: jax.Array, labels: jax.Array
    ) -> tuple[list, jax.Array, jax.Array]:
        trainable, non_trainable = self._values()

        def scaled_loss(trainable: list) -> tuple:
            logits, updated = self._classifier.stateless_call(
                trainable, non_trainable, images, training=True
            )
            loss, accuracy = self._loss(logits, labels)
            return loss * self._loss_scale(), (loss, accuracy, updated)

        gradient = jax.grad(scaled_loss, has_aux=True)
        gradients, (loss, accuracy, updated) = gradient(trainable)
        for variable, value in zip(
            self._classifier.non_trainable_variables, updated, strict=True
        ):
            variable.assign(value)
        return gradients, loss, accuracy

    def _update(self, gradients: list) -> None:
        variables = self._classifier.trainable_variables
        slots = self._optimizer.variables
        values, slot_values = self._optimizer.stateless_apply(
            [v.value for v in slots], gradients, [v.value for v in variables]
        )
        for variable, value in zip(
            (*variables, *slots), (*values, *slot_values), strict=True
        ):
            variable.assign(value)
