"""Evaluation report: metrics of a classifier with 95 % confidence intervals."""

from __future__ import annotations

import abc
import dataclasses
import math
import operator
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from zoo import taxonomy as taxonomies

_Z = 1.959964  # 97.5 % quantile of the standard normal distribution

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over examples.

    Attributes:
      value: the mean.
      deviation: standard deviation over the examples.
      count: number of examples.
    """

    value: float
    deviation: float
    count: int

    def interval(self, high: float = math.inf) -> Interval:
        """Returns the 95 % normal confidence interval of a mean in [0, high]."""
        margin = _Z * self.deviation / math.sqrt(max(self.count, 1))
        return max(self.value - margin, 0.0), min(self.value + margin, high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(abc.ABC):
    """Base class of the single-label and multi-label evaluation reports.

    Attributes:
      classes: the K classes, in the order of the logits.
      counts: [K] number of examples of each class.
      correct: [K] number of correctly classified examples of each class. Single-label:
        the class has the highest probability. Multi-label: the class has a probability
        of at least 0.5.
      examples: number of examples.
      labelled: number of examples with at least one label.
      top1_correct: number of examples for which the class with the highest probability
        is one of the labels.
      losses: the cross-entropy in nats. Multi-label: the sum of the binary
        cross-entropies over the classes.
      calibration: expected calibration error in [0, 1] (arXiv:1706.04599, section 2):
        the mean absolute difference between probability and accuracy.
      unreadable: locations of the images that could not be read.
      notes: one-line notes for users about how classes were matched.
    """

    classes: Sequence[taxonomies.ClassDefinition]
    counts: np.ndarray
    correct: np.ndarray
    examples: int
    labelled: int
    top1_correct: int
    losses: Mean
    calibration: Mean
    unreadable: Sequence[str] = ()
    notes: Sequence[str] = ()

    main_measure: typing.ClassVar[str]
    """Name of the measure that ranks models."""
    class_measure: typing.ClassVar[str]
    """Name of the per-class measure."""

    @property
    def top1(self) -> float:
        """Top-1 accuracy, over the examples with at least one label."""
        return self.top1_correct / max(self.labelled, 1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy (log loss) in nats."""
        return self.losses.value

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in [0, 1]."""
        return self.calibration.value

    @property
    @abc.abstractmethod
    def measures(self) -> dict[str, float]:
        """All measures, by name."""

    @property
    def intervals(self) -> dict[str, Interval]:
        """95 % confidence intervals of those `measures` that have one, by name."""
        return {
            "top1": share_interval(self.top1_correct, self.labelled),
            "loss": self.losses.interval(),
        }

    @property
    def per_class(self) -> list[dict[str, typing.Any]]:
        """A record for each class, including its `class_measure`."""
        return [
            {
                "id": definition.id,
                "name": definition.name,
                "examples": int(self.counts[index]),
                **self._class_measures(index),
            }
            for index, definition in enumerate(self.classes)
        ]

    def worst_classes(self, number: int) -> list[dict[str, typing.Any]]:
        """Returns the `per_class` records with the lowest `class_measure`, worst first.

        Classes without examples are left out. At most `number` records are returned.
        """
        entries = [entry for entry in self.per_class if entry["examples"]]
        return sorted(entries, key=operator.itemgetter(self.class_measure))[:number]

    @abc.abstractmethod
    def _class_measures(self, index: int) -> dict[str, typing.Any]:
        """Returns the measures of a class, by name."""

    @property
    def never_recognised(self) -> list[str]:
        """Names of the classes that have examples, but no correctly classified one."""
        is_missed = (self.counts > 0) & (self.correct == 0)
        return [self.classes[int(i)].name for i in np.flatnonzero(is_missed)]

    def to_json(self) -> dict[str, typing.Any]:
        """Returns the JSON object that `tools/evaluate --format=json` prints."""
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
    """Evaluation report for images with exactly one label each.

    Attributes:
      top5_correct: [K] number of examples of each class for which the class is among
        the five with the highest probability.
      confusions: number of examples of class i that were classified as class j, by
        (i, j).
    """

    top5_correct: np.ndarray
    confusions: Mapping[tuple[int, int], int]

    main_measure = "top1"
    class_measure = "top1"

    @property
    def top5(self) -> float:
        """Top-5 accuracy."""
        return float(self.top5_correct.sum() / max(self.examples, 1))

    @property
    def mean_per_class(self) -> float:
        """Mean of the per-class top-1 accuracies, over the classes with examples."""
        has_examples = self.counts > 0
        accuracies = self.correct[has_examples] / self.counts[has_examples]
        return float(np.mean(accuracies)) if has_examples.any() else 0.0

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
            "top5": share_interval(int(self.top5_correct.sum()), self.examples),
            "mean_per_class": self._mean_per_class_interval(),
            "calibration_error": self.calibration.interval(1.0),
        }

    def _mean_per_class_interval(self) -> Interval:
        """Returns the 95 % confidence interval of `mean_per_class`.

        The accuracies of the classes are independent. The variance of each is estimated
        by Agresti and Coull's method ("Approximate is better than 'exact'", 1998),
        which is not 0 if all of a few examples are correct.
        """
        has_examples = self.counts > 0
        counts, correct = self.counts[has_examples], self.correct[has_examples]
        if not len(counts):
            return 0.0, 1.0
        shares = (correct + _Z**2 / 2) / (counts + _Z**2)
        variance = (shares * (1 - shares) / (counts + _Z**2)).sum() / len(counts) ** 2
        margin = _Z * math.sqrt(variance)
        value = self.mean_per_class
        return max(value - margin, 0.0), min(value + margin, 1.0)

    def _class_measures(self, index: int) -> dict[str, typing.Any]:
        correct, count = int(self.correct[index]), int(self.counts[index])
        return {
            "top1": correct / max(count, 1),
            "interval": list(share_interval(correct, count)),
        }

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix [K, K]: row i, column j counts i classified as j.

        For many classes the matrix takes much memory; `confusions` is sparse.
        """
        matrix = np.diag(self.correct)
        for pair, count in self.confusions.items():
            matrix[pair] = count
        return matrix

    def most_confused(self, number: int) -> list[tuple[int, int, int]]:
        """Returns the most frequent confusions as (true class, predicted class, count).

        The most frequent confusion comes first. At most `number` are returned.
        """
        pairs = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0]))
        return [
            (truth, predicted, count) for (truth, predicted), count in pairs[:number]
        ]

    def to_json(self) -> dict[str, typing.Any]:
        names = [definition.id for definition in self.classes]
        confused = [
            {"class": names[truth], "taken_for": names[predicted], "examples": count}
            for truth, predicted, count in self.most_confused(len(names))
        ]
        return {**super().to_json(), "most_confused": confused}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeveralLabels(Report):
    """Evaluation report for images with any number of labels each.

    Attributes:
      average_precisions: [K] average precision of each class, without interpolation:
        the mean of the precisions at the rank of each of its examples. NaN for a class
        with no example.
    """

    average_precisions: np.ndarray

    main_measure = "mean_average_precision"
    class_measure = "average_precision"

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precisions, over the classes with examples."""
        precisions = self.average_precisions[self.counts > 0]
        return float(precisions.mean()) if len(precisions) else 0.0

    @property
    def measures(self) -> dict[str, float]:
        return {
            "mean_average_precision": self.mean_average_precision,
            "top1": self.top1,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
        }

    def _class_measures(self, index: int) -> dict[str, typing.Any]:
        count = int(self.counts[index])
        precision = float(self.average_precisions[index]) if count else 0.0
        recall = int(self.correct[index]) / max(count, 1)
        return {"average_precision": precision, "recall": recall}


def share_interval(count: int, total: int) -> Interval:
    """Returns the 95 % confidence interval of the share count / total (Wilson score).

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", 1927.
    """
    if not total:
        return 0.0, 1.0
    share, spread = count / total, _Z**2 / total
    center = (share + spread / 2) / (1 + spread)
    variance = share * (1 - share) / total + spread / total / 4
    margin = _Z * math.sqrt(variance) / (1 + spread)
    return max(center - margin, 0.0), min(center + margin, 1.0)
