"""The optimizers of the papers, as Keras has them."""

from __future__ import annotations

import abc
import dataclasses
import typing

import gin
import keras

from zoo import model as zoo_model
from zoo import spec as specs

if typing.TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule as Rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
    """What to make an optimizer of.

    `decoupled_decay` says whether it shrinks the weights itself: else the L2 loss of
    the model's recipe does.
    """

    def __post_init__(self) -> None:
        specs.check_kinds(self, room="training")

    @property
    def decoupled_decay(self) -> float:
        return 0.0

    @abc.abstractmethod
    def make(self, rate: Rate) -> keras.optimizers.Optimizer:
        """The optimizer of Keras."""

    def made_for(
        self, model: zoo_model.ImageModel, rate: Rate
    ) -> keras.optimizers.Optimizer:
        """One whose own variables exist already."""
        optimizer = self.make(rate)
        variables = model.classifier.trainable_variables
        if self.decoupled_decay:
            kept = [
                variable
                for variable in variables
                if any(part in variable.path for part in model.weight_decay_excludes)
            ]
            optimizer.exclude_from_weight_decay(var_list=kept)
        optimizer.build(variables)
        return optimizer


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with momentum, which the learning rate scales first.

    Args:
      momentum: share of the last step that goes on.
      nesterov: whether to look ahead.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def make(self, rate: Rate) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(
            rate, momentum=self.momentum, nesterov=self.nesterov
        )


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSProp(Optimizer):
    """That of the MobileNet and EfficientNet papers; epsilon is below the root.

    TensorFlow 1's began its mean of squares at 1, Keras' begins at 0.

    Args:
      decay: share of the old mean of squares that is kept.
      momentum: share of the last step that goes on.
      epsilon: added to the mean of squares.
    """

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    def make(self, rate: Rate) -> keras.optimizers.Optimizer:
        return keras.optimizers.RMSprop(
            rate, rho=self.decay, momentum=self.momentum, epsilon=self.epsilon
        )


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with weight decay of its own (arXiv:1711.05101).

    Args:
      beta_1: share of the old mean of gradients that is kept.
      beta_2: of their squares.
      epsilon: added to the root.
      weight_decay: share of a weight, times the learning rate, that a step takes away.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0

    @property
    def decoupled_decay(self) -> float:
        return self.weight_decay

    def make(self, rate: Rate) -> keras.optimizers.Optimizer:
        return keras.optimizers.AdamW(
            rate,
            weight_decay=self.weight_decay,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


def clipped(gradients: list[typing.Any], norm: float) -> list[typing.Any]:
    """Gradients scaled so that their common norm is at most `norm`; 0 lets them be."""
    if not norm:
        return gradients
    squares = sum(keras.ops.sum(keras.ops.square(g)) for g in gradients)
    scale = keras.ops.minimum(1.0, norm / (keras.ops.sqrt(squares) + 1e-12))
    return [g * scale for g in gradients]
