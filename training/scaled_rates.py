"""Keras optimizers that scale the learning rate of each variable."""

from __future__ import annotations

import typing
from collections.abc import Sequence

import keras


class ScaledRates:
    """Mixin for Keras optimizers that scales the learning rate of each variable.

    The scaled rate is that of the whole update, of decoupled weight decay too, as in a
    parameter group of PyTorch.
    """

    _rate_scales: tuple[float, ...] = ()

    def scale_rates(self, scales: Sequence[float]) -> None:
        """Sets the factors of the learning rate.

        Args:
          scales: a factor for each variable that the optimizer is built for, in order;
            none at all leaves the updates as they are.
        """
        self._rate_scales = tuple(scales)

    def update_step(
        self, gradient: typing.Any, variable: typing.Any, learning_rate: typing.Any
    ) -> None:
        """Decays and updates a variable at its own rate; called by Keras."""
        optimizer: typing.Any = self
        if self._rate_scales:
            index = optimizer._get_variable_index(variable)
            learning_rate = learning_rate * self._rate_scales[index]
            if optimizer.weight_decay and optimizer._use_weight_decay(variable):
                rate = keras.ops.cast(learning_rate, variable.dtype)
                decayed = variable * (rate * optimizer.weight_decay)
                optimizer.assign_sub(variable, decayed)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Sequence[typing.Any]) -> None:
        """Decays all variables at the same rate, unless `update_step` does it."""
        if not self._rate_scales:
            super()._apply_weight_decay(variables)  # type: ignore[misc]


class SGD(ScaledRates, keras.optimizers.SGD):
    """Keras' SGD with scaled rates."""


class RMSprop(ScaledRates, keras.optimizers.RMSprop):
    """Keras' RMSprop with scaled rates."""


class Adam(ScaledRates, keras.optimizers.Adam):
    """Keras' Adam with scaled rates."""


class AdamW(ScaledRates, keras.optimizers.AdamW):
    """Keras' AdamW with scaled rates."""
