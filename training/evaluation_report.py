"""What is found of a classifier on a split, with 95 % confidence intervals."""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from zoo import taxonomy as taxonomies

_Z = 1.959964  # of a normal distribution, for 95 %

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over examples.

    Attributes:
      value: the mean.
      deviation: standard deviation of the examples.
      count: of the examples.
    """

    value: float
    deviation: float
    count: int

    def interval(self, high: float = math.inf) -> Interval:
        """The 95 % confidence interval, for a mean in [0, high]; a normal one."""
        margin = _Z * self.deviation / math.sqrt(max(self.count, 1))
        return max(self.value - margin, 0.0), min(self.value + margin, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(abc.ABC):
    """What both kinds of report have.

    Attributes:
      classes: in the order of the logits, K of them.
      counts: [K] examples of each class.
      right: [K] examples of each class that are recognised as such: their likeliest
        class is that, or where classes do not exclude each other its probability is at
        least a half.
      examples: how many there were.
      labelled: how many of them have a class.
      likeliest_right: how many have the likeliest class as one of theirs.
      losses: the cross-entropy of examples in nats: of the class, or where classes do
        not exclude each other the sum of their binary ones.
      calibration: expected calibration error in [0, 1] (arXiv:1706.04599, section 2):
        how far a probability is from the share of examples that are right, on average.
      unreadable: where the images are that could not be read.
      notes: what users should know of how classes were matched; a line each.
    """

    classes: Sequence[taxonomies.ClassDefinition]
    counts: np.ndarray
    right: np.ndarray
    examples: int
    labelled: int
    likeliest_right: int
    losses: Mean
    calibration: Mean
    unreadable: Sequence[str] = ()
    notes: Sequence[str] = ()

    main: typing.ClassVar[str]
    """The name of the measure that says which of two models is better."""
    of_class: typing.ClassVar[str]
    """The name of what is measured for each class."""

    @property
    def top1(self) -> float:
        """The share of examples with a class whose likeliest class is one of theirs."""
        return self.likeliest_right / max(self.labelled, 1)

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats, or log loss."""
        return self.losses.value

    @property
    def calibration_error(self) -> float:
        return self.calibration.value

    @property
    @abc.abstractmethod
    def measures(self) -> dict[str, float]:
        """Every figure by its name."""

    @property
    def intervals(self) -> dict[str, Interval]:
        """95 % confidence intervals of `measures`, where there is one."""
        return {
            "top1": share_interval(self.likeliest_right, self.labelled),
            "loss": self.losses.interval(),
        }

    @property
    def per_class(self) -> list[dict[str, typing.Any]]:
        """A record for each class, with `of_class`."""
        return [
            {
                "id": definition.id,
                "name": definition.name,
                "examples": int(self.counts[number]),
                **self._of_class(number),
            }
            for number, definition in enumerate(self.classes)
        ]

    def worst(self, number: int) -> list[dict[str, typing.Any]]:
        """So many of `per_class` that have examples, those of the least value first."""
        entries = [entry for entry in self.per_class if entry["examples"]]
        return sorted(entries, key=operator.itemgetter(self.of_class))[:number]

    @abc.abstractmethod
    def _of_class(self, number: int) -> dict[str, typing.Any]:
        """What there is to say of a class."""

    @property
    def never_recognised(self) -> list[str]:
        """The names of the classes that have examples, none of which was recognised."""
        is_lost = (self.counts > 0) & (self.right == 0)
        return [self.classes[int(i)].name for i in np.flatnonzero(is_lost)]

    def to_json(self) -> dict[str, typing.Any]:
        """As `tools/evaluate --format=json` prints it."""
        return {
            **self.measures,
            "examples": self.examples,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "never_recognised": self.never_recognised,
            "unreadable": list(self.unreadable),
            "per_class": self.per_class,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneLabel(Report):
    """Of images of which each has one class.

    Attributes:
      in_five: [K]; examples of each class that are among the five likeliest.
      confused: how many examples of class i were taken for class j, by (i, j).
    """

    in_five: np.ndarray
    confused: Mapping[tuple[int, int], int]

    main = "top1"
    of_class = "top1"

    @property
    def top5(self) -> float:
        return float(self.in_five.sum() / max(self.examples, 1))

    @property
    def mean_per_class(self) -> float:
        """Mean of the classes' top-1 accuracies, of those that have examples."""
        has_any = self.counts > 0
        shares = self.right[has_any] / self.counts[has_any]
        return float(np.mean(shares)) if has_any.any() else 0.0

    @property
    def measures(self) -> dict[str, float]:
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_per_class": self.mean_per_class,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
        }

    @property
    def intervals(self) -> dict[str, Interval]:
        return {
            **super().intervals,
            "top5": share_interval(int(self.in_five.sum()), self.examples),
            "mean_per_class": self._mean_interval(),
            "calibration_error": self.calibration.interval(1.0),
        }

    def _mean_interval(self) -> Interval:
        """Of the mean of the classes' shares, which are independent of each other.

        The variance of each is that of Agresti and Coull ("Approximate is better than
        'exact'", 1998), which is not 0 where all of a few examples are right.
        """
        has_any = self.counts > 0
        counts, right = self.counts[has_any], self.right[has_any]
        if not len(counts):
            return 0.0, 1.0
        shares = (right + _Z**2 / 2) / (counts + _Z**2)
        variance = (shares * (1 - shares) / (counts + _Z**2)).sum() / len(counts) ** 2
        margin = _Z * math.sqrt(variance)
        value = self.mean_per_class
        return max(value - margin, 0.0), min(value + margin, 1.0)

    def _of_class(self, number: int) -> dict[str, typing.Any]:
        right, count = int(self.right[number]), int(self.counts[number])
        return {
            "top1": right / max(count, 1),
            "interval": list(share_interval(right, count)),
        }

    @property
    def confusion(self) -> np.ndarray:
        """[K, K]; row i, column j: examples of class i that were taken for class j.

        A square of so many classes: `confused` is what takes little memory.
        """
        found = np.diag(self.right)
        for pair, count in self.confused.items():
            found[pair] = count
        return found

    def most_confused(self, number: int) -> list[tuple[int, int, int]]:
        """Pairs of classes, the truth first, and how often; the most frequent first."""
        pairs = sorted(self.confused.items(), key=lambda item: (-item[1], item[0]))
        return [(truth, said, count) for (truth, said), count in pairs[:number]]

    def to_json(self) -> dict[str, typing.Any]:
        names = [definition.id for definition in self.classes]
        confused = [
            {"class": names[truth], "taken_for": names[said], "examples": count}
            for truth, said, count in self.most_confused(len(names))
        ]
        return {**super().to_json(), "most_confused": confused}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeveralLabels(Report):
    """Of images of which each has any number of classes.

    Attributes:
      average_precisions: [K]; of each class the mean precision over its examples in the
        order of its probability, without interpolation. NaN where it has none.
    """

    average_precisions: np.ndarray

    main = "mean_average_precision"
    of_class = "average_precision"

    @property
    def mean_average_precision(self) -> float:
        """Over the classes that have examples."""
        has_any = self.counts > 0
        return float(self.average_precisions[has_any].mean()) if has_any.any() else 0.0

    @property
    def measures(self) -> dict[str, float]:
        return {
            "mean_average_precision": self.mean_average_precision,
            "top1": self.top1,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
        }

    def _of_class(self, number: int) -> dict[str, typing.Any]:
        count = int(self.counts[number])
        precision = float(self.average_precisions[number]) if count else 0.0
        recall = int(self.right[number]) / max(count, 1)
        return {"average_precision": precision, "recall": recall}


def share_interval(count: int, of: int) -> Interval:
    """The 95 % confidence interval of a share, by Wilson's score.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", 1927.
    """
    if not of:
        return 0.0, 1.0
    share, spread = count / of, _Z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    margin = _Z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return max(middle - margin, 0.0), min(middle + margin, 1.0)
