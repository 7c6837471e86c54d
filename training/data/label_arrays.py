"""Memory-efficient labels of many examples: one or any number of classes each."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSets:
    """Labels of examples that have any number of classes each.

    Attributes:
      classes: concatenated classes of all examples, [M] integers.
      ends: end of each example's classes in `classes`, [N] int64.
      num_classes: number of classes, K.
    """

    classes: np.ndarray
    ends: np.ndarray
    num_classes: int

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Returns zeros and ones [n, K] int64 for the examples `numbers` [n]."""
        ends = self.ends[numbers]
        starts = np.where(numbers > 0, self.ends[numbers - 1], 0)
        labels = np.zeros((len(numbers), self.num_classes), np.int64)
        for row, start, end in zip(labels, starts, ends, strict=True):
            row[self.classes[start:end]] = 1
        return labels

    def rarest(self) -> np.ndarray:
        """Returns the rarest class of each example, [N]; -1 if it has no class."""
        counts = np.bincount(self.classes, minlength=self.num_classes)
        sizes = np.diff(self.ends, prepend=0)
        examples = np.repeat(np.arange(len(sizes)), sizes)
        rarest_classes = np.full(len(sizes), -1)
        frequent_first = np.argsort(-counts[self.classes], kind="stable")
        # Later assignments overwrite earlier ones, so the rarest class remains.
        rarest_classes[examples[frequent_first]] = self.classes[frequent_first]
        return rarest_classes


Labels = np.ndarray | LabelSets
"""Labels of examples: one class each, [N] integers, or sets of classes."""


def rarest(labels: Labels) -> np.ndarray:
    """Returns one class per example, [N]; for sets, the rarest class of each."""
    return labels.rarest() if isinstance(labels, LabelSets) else labels


def arrays(labels: Labels) -> list[np.ndarray]:
    """Returns the arrays that make up the labels, for a fingerprint."""
    return [labels.classes, labels.ends] if isinstance(labels, LabelSets) else [labels]


class Collector:
    """Collects labels example by example."""

    def __init__(self) -> None:
        self._classes, self._sizes = array.array("i"), array.array("I")

    def add(self, classes: Iterable[int]) -> None:
        """Adds the class or classes of an example."""
        before = len(self._classes)
        self._classes.extend(classes)
        self._sizes.append(len(self._classes) - before)

    def build(
        self, *, order: Sequence[int] | None, num_classes: int, several: bool
    ) -> Labels:
        """Returns all added labels.

        Args:
          order: maps each added label to its class; None keeps the labels as added.
          num_classes: number of classes, K.
          several: whether an example may have any number of classes.
        """
        classes = np.frombuffer(self._classes, np.int32)
        if order is not None:
            classes = np.array(order, np.int32)[classes]
        if not several:
            return classes
        sizes = np.frombuffer(self._sizes, np.uint32)
        ends = np.cumsum(sizes, dtype=np.int64)
        return LabelSets(classes=classes, ends=ends, num_classes=num_classes)
