"""A training's step on JAX, one device."""

from __future__ import annotations

import functools
import typing

import jax
import keras
import numpy as np

from training import trainer


class Trainer(trainer.Trainer):
    """The trainer of JAX's first device.

    Between steps the state is where the last one left it, and goes into the next one
    without a copy; variables are given their values when somebody asks for them.
    """

    _state: list[jax.Array] | None = None

    def train_step(self) -> typing.Callable:
        variables = list(self._variables().values())

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: list, images: jax.Array, labels: jax.Array) -> tuple:
            scope = keras.StatelessScope(zip(variables, state, strict=True))
            with scope:
                found = self._step(images, labels)
                self._end_step()
            return [scope.get_current_value(variable) for variable in variables], found

        def take(images: typing.Any, labels: typing.Any) -> tuple:
            state = self._state or [jax.numpy.array(v.value) for v in variables]
            self._state, found = step(state, np.asarray(images), np.asarray(labels))
            return found

        return take

    def test_step(self) -> typing.Callable:
        self._settle()
        trainable, others = self._values()

        @jax.jit
        def logits(trainable: list, others: list, images: jax.Array) -> jax.Array:
            found, _ = self._classifier.stateless_call(
                trainable, others, images, training=False
            )
            return keras.ops.cast(found, "float32")

        def step(images: typing.Any, labels: typing.Any) -> tuple:
            return logits(trainable, others, np.asarray(images)), labels

        return step

    def _settle(self) -> None:
        state, self._state = self._state, None
        if state is not None:
            for variable, value in zip(self._variables().values(), state, strict=True):
                variable.assign(value)

    def _values(self) -> tuple[list, list]:
        """Of the trainable variables of the classifier, and of the others."""
        return (
            [v.value for v in self._classifier.trainable_variables],
            [v.value for v in self._classifier.non_trainable_variables],
        )

    def _gradients(
        self, images: jax.Array, labels: jax.Array
    ) -> tuple[list, jax.Array, jax.Array]:
        before, others = self._values()

        def scaled(trainable: list) -> tuple:
            logits, now = self._classifier.stateless_call(
                trainable, others, images, training=True
            )
            loss, right = self._loss(logits, labels)
            return loss * self._loss_scale(), (loss, right, now)

        gradients, (loss, right, now) = jax.grad(scaled, has_aux=True)(before)
        for variable, value in zip(
            self._classifier.non_trainable_variables, now, strict=True
        ):
            variable.assign(value)
        return gradients, loss, right

    def _update(self, gradients: list) -> None:
        variables = self._classifier.trainable_variables
        own = self._optimizer.variables
        values, state = self._optimizer.stateless_apply(
            [v.value for v in own], gradients, [v.value for v in variables]
        )
        for variable, value in zip((*variables, *own), (*values, *state), strict=True):
            variable.assign(value)
