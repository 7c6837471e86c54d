"""Optimizers that a recipe can choose: SGD, RMSProp and AdamW."""

from __future__ import annotations

import abc
import dataclasses
import typing
from collections.abc import Mapping

import gin
import keras

from training import scaled_rates
from zoo import model as zoo_model
from zoo import spec as specs

if typing.TYPE_CHECKING:
    from keras.optimizers.schedules import LearningRateSchedule as Rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
    """Configuration of a Keras optimizer.

    If `decoupled_decay` is positive, the optimizer decays the weights itself.
    Otherwise, the trainer adds the gradient of the model's L2 loss.
    """

    def __post_init__(self) -> None:
        specs.check_types(self, package="training")

    @property
    def decoupled_decay(self) -> float:
        """The optimizer's own weight decay; 0 if it has none."""
        return 0.0

    @abc.abstractmethod
    def make(self, rate: Rate) -> typing.Any:
        """Creates a Keras optimizer with `scaled_rates.ScaledRates`."""

    def build(
        self,
        model: zoo_model.ImageModel,
        rate: Rate,
        *,
        rate_scales: Mapping[str, float] | None = None,
    ) -> keras.optimizers.Optimizer:
        """Creates the optimizer and its variables for the classifier of a model.

        The variables that the model excludes from weight decay are not decayed.

        Args:
          model: the model.
          rate: the learning-rate schedule.
          rate_scales: factor of the learning rate of each variable, by path; None for
            the same rate everywhere.
        """
        optimizer = self.make(rate)
        variables = model.classifier.trainable_variables
        if self.decoupled_decay:
            excluded = [v for v in variables if not model.is_decayed(v)]
            optimizer.exclude_from_weight_decay(var_list=excluded)
        if rate_scales is not None:
            optimizer.scale_rates([rate_scales[v.path] for v in variables])
        optimizer.build(variables)
        return optimizer


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    The learning rate scales the gradient before it is added to the momentum.

    Args:
      momentum: fraction of the previous update that is added to the current one.
      nesterov: whether to use Nesterov momentum.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def make(self, rate: Rate) -> scaled_rates.SGD:
        return scaled_rates.SGD(rate, momentum=self.momentum, nesterov=self.nesterov)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSProp(Optimizer):
    """RMSProp, as in the MobileNet and EfficientNet papers.

    Epsilon is added before the square root is taken.

    Deviations: the mean of squares starts at 0, as in Keras; in TensorFlow 1 it starts
    at 1.

    Args:
      decay: decay rate of the moving mean of squared gradients.
      momentum: fraction of the previous update that is added to the current one.
      epsilon: added to the mean of squares.
    """

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    def make(self, rate: Rate) -> scaled_rates.RMSprop:
        return scaled_rates.RMSprop(
            rate, rho=self.decay, momentum=self.momentum, epsilon=self.epsilon
        )


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv:1711.05101).

    Args:
      beta_1: decay rate of the moving mean of gradients.
      beta_2: decay rate of the moving mean of squared gradients.
      epsilon: added after the square root.
      weight_decay: a step subtracts this fraction of each weight, times the learning
        rate. If it is positive, `model.weight_decay` is not used;
        `model.weight_decay_excludes` is used in any case.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0

    @property
    def decoupled_decay(self) -> float:
        return self.weight_decay

    def make(self, rate: Rate) -> scaled_rates.AdamW:
        return scaled_rates.AdamW(
            rate,
            weight_decay=self.weight_decay,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )


def clip_by_global_norm(gradients: list[typing.Any], norm: float) -> list[typing.Any]:
    """Scales gradients so that their global norm is at most `norm`; 0 does not clip."""
    if not norm:
        return gradients
    squares = sum(keras.ops.sum(keras.ops.square(g)) for g in gradients)
    scale = keras.ops.minimum(1.0, norm / (keras.ops.sqrt(squares) + 1e-12))
    return [g * scale for g in gradients]
