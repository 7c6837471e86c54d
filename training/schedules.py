"""Learning rates by step: linear warm-up, then what a paper prescribes."""

from __future__ import annotations

import abc
import dataclasses
import typing

import gin
import keras

from zoo import spec as specs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(abc.ABC):
    """A learning rate for each step.

    Args:
      peak: the learning rate after the warm-up, for a batch of `per_batch` images; it
        grows with the batch, as arXiv:1706.02677 section 2.1 has it.
      per_batch: see `peak`; 0 takes `peak` as it is.
      warmup_epochs: in which it grows from 0 to the peak.
    """

    peak: float
    per_batch: int = 0
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        specs.check_kinds(self, room="training")
        name = f"training.{type(self).__name__}"
        specs.check_range(f"{name}.peak", self.peak, 0.0, 1e3)
        specs.check_range(f"{name}.per_batch", self.per_batch, 0, 1 << 20)
        specs.check_range(f"{name}.warmup_epochs", self.warmup_epochs, 0.0, 1e4)

    def made_for(
        self, *, batch_size: int, steps_per_epoch: int, epochs: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """The schedule by step, as an optimizer takes it."""
        scale = batch_size / self.per_batch if self.per_batch else 1.0
        return _ByStep(self, self.peak * scale, steps_per_epoch, epochs)

    @abc.abstractmethod
    def share(self, epoch: typing.Any, epochs: int) -> typing.Any:
        """Of the peak, after `epoch` of `epochs` (a float tensor), warm-up or not."""


class _ByStep(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(
        self, schedule: Schedule, peak: float, steps_per_epoch: int, epochs: int
    ) -> None:
        self._schedule, self._peak = schedule, peak
        self._steps_per_epoch, self._epochs = steps_per_epoch, epochs

    def __call__(self, step: typing.Any) -> typing.Any:
        epoch = keras.ops.cast(step, "float32") / self._steps_per_epoch
        share = self._schedule.share(epoch, self._epochs)
        if self._schedule.warmup_epochs:
            warm = epoch / self._schedule.warmup_epochs
            share = keras.ops.where(warm < 1.0, warm, share)
        return self._peak * share


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak throughout."""

    def share(self, epoch: typing.Any, epochs: int) -> typing.Any:
        return keras.ops.ones_like(epoch)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up to 0 (arXiv:1608.03983, eq. 5)."""

    def share(self, epoch: typing.Any, epochs: int) -> typing.Any:
        rest = max(epochs - self.warmup_epochs, 1e-6)
        done = keras.ops.clip((epoch - self.warmup_epochs) / rest, 0.0, 1.0)
        return 0.5 * (1.0 + keras.ops.cos(3.141592653589793 * done))


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Times `factor` every `every_epochs`, in stairs.

    Args:
      factor: such as 0.97.
      every_epochs: such as 2.4 (arXiv:1905.11946, section 5.2).
    """

    factor: float
    every_epochs: float

    def share(self, epoch: typing.Any, epochs: int) -> typing.Any:
        return self.factor ** keras.ops.floor(epoch / self.every_epochs)


@gin.register(module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Schedule):
    """Times `factor` after each of some epochs.

    Args:
      factor: such as 0.1.
      after_epochs: such as (30, 60, 80).
    """

    factor: float
    after_epochs: tuple[float, ...]

    def share(self, epoch: typing.Any, epochs: int) -> typing.Any:
        passed = sum(
            keras.ops.cast(epoch >= after, "float32") for after in self.after_epochs
        )
        return self.factor**passed
