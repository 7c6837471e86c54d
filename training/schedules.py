"""Learning-rate schedules with linear warm-up.

Constant, cosine, linear, exponential and steps.
"""

from __future__ import annotations

import abc
import dataclasses
import typing

import gin
import keras

from zoo import spec as specs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(abc.ABC):
    """Base class of the learning-rate schedules.

    Args:
      peak: learning rate after the warm-up, for a batch of `per_batch` images. It
        scales linearly with the batch size (arXiv:1706.02677, section 2.1).
      per_batch: batch size that `peak` refers to; 0 uses `peak` unscaled.
      warmup_epochs: number of epochs in which the rate rises from 0 to the peak.
    """

    peak: float
    per_batch: int = 0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        specs.check_types(self, package="training")
        name = f"training.{type(self).__name__}"
        specs.check_range(f"{name}.peak", self.peak, 0.0, 1e3)
        specs.check_range(f"{name}.per_batch", self.per_batch, 0, 1 << 20)
        specs.check_range(f"{name}.warmup_epochs", self.warmup_epochs, 0.0, 1e4)

    def by_step(
        self, *, batch_size: int, steps_per_epoch: int, epochs: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """Returns the Keras schedule, which maps a step to its learning rate."""
        scale = batch_size / self.per_batch if self.per_batch else 1.0
        return _ByStep(self, self.peak * scale, steps_per_epoch, epochs)

    @abc.abstractmethod
    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        """Returns the learning rate as a fraction of the peak, ignoring the warm-up.

        Args:
          epoch: epochs completed so far, a float tensor.
          epochs: number of epochs of the run.
        """


class _ByStep(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(
        self, schedule: Schedule, peak: float, steps_per_epoch: int, epochs: int
    ) -> None:
        self._schedule, self._peak = schedule, peak
        self._steps_per_epoch, self._epochs = steps_per_epoch, epochs

    def __call__(self, step: typing.Any) -> typing.Any:
        epoch = keras.ops.cast(step, "float32") / self._steps_per_epoch
        fraction = self._schedule.peak_fraction(epoch, self._epochs)
        if self._schedule.warmup_epochs:
            warmup = epoch / self._schedule.warmup_epochs
            fraction = keras.ops.where(warmup < 1.0, warmup, fraction)
        return self._peak * fraction


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Keeps the learning rate at the peak."""

    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        return keras.ops.ones_like(epoch)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Cosine decay from the end of the warm-up to 0 (arXiv:1608.03983, eq. 5)."""

    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        decay_epochs = max(epochs - self.warmup_epochs, 1e-6)
        progress = keras.ops.clip((epoch - self.warmup_epochs) / decay_epochs, 0.0, 1.0)
        return 0.5 * (1.0 + keras.ops.cos(3.141592653589793 * progress))


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Linear decay from the end of the warm-up to 0 (arXiv:1707.01083, section 4)."""

    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        decay_epochs = max(epochs - self.warmup_epochs, 1e-6)
        progress = (epoch - self.warmup_epochs) / decay_epochs
        return 1.0 - keras.ops.clip(progress, 0.0, 1.0)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiplies the rate by `factor` every `every_epochs` epochs, in discrete steps.

    Args:
      factor: for example 0.97.
      every_epochs: for example 2.4 (arXiv:1905.11946, section 5.2).
    """

    factor: float
    every_epochs: float

    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        return self.factor ** keras.ops.floor(epoch / self.every_epochs)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Schedule):
    """Multiplies the rate by `factor` after each of the given epochs.

    Args:
      factor: for example 0.1.
      after_epochs: for example (30, 60, 80).
    """

    factor: float
    after_epochs: tuple[float, ...]

    def peak_fraction(self, epoch: typing.Any, epochs: int) -> typing.Any:
        passed = sum(
            keras.ops.cast(epoch >= after, "float32") for after in self.after_epochs
        )
        return self.factor**passed
