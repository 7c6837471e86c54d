"""The classes of many examples, one each or any number; in little memory."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
    """The classes of examples that have any number of them.

    Attributes:
      classes: of all examples, one after the other, [M] integers.
      ends: where in `classes` those of each example end, [N] int64.
      num_classes: K.
    """

    classes: np.ndarray
    ends: np.ndarray
    num_classes: int

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Zeros and ones [n, K] int64 of some examples."""
        ends = self.ends[numbers]
        starts = np.where(numbers > 0, self.ends[numbers - 1], 0)
        found = np.zeros((len(numbers), self.num_classes), np.int64)
        for row, start, end in zip(found, starts, ends, strict=True):
            row[self.classes[start:end]] = 1
        return found

    def rarest(self) -> np.ndarray:
        """[N] the class of each example that the fewest have; -1 where it has none."""
        counts = np.bincount(self.classes, minlength=self.num_classes)
        sizes = np.diff(self.ends, prepend=0)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        found = np.full(len(sizes), -1)
        often_first = np.argsort(-counts[self.classes], kind="stable")
        found[owners[often_first]] = self.classes[often_first]  # the last one stays
        return found


Labels = np.ndarray | Sets
"""A class for each example, [N] integers, or the sets of them."""


def rarest(labels: Labels) -> np.ndarray:
    """[N] the class of each example; of a set see `Sets.rarest`."""
    return labels.rarest() if isinstance(labels, Sets) else labels


def arrays(labels: Labels) -> list[np.ndarray]:
    """What they consist of, for a fingerprint."""
    return [labels.classes, labels.ends] if isinstance(labels, Sets) else [labels]


class Collector:
    """Puts labels together, one example after the other."""

    def __init__(self) -> None:
        self._classes, self._sizes = array.array("i"), array.array("I")

    def add(self, classes: Iterable[int]) -> None:
        """Adds the class of an example, or its classes."""
        before = len(self._classes)
        self._classes.extend(classes)
        self._sizes.append(len(self._classes) - before)

    def labels(
        self, *, order: Sequence[int] | None, num_classes: int, several: bool
    ) -> Labels:
        """All that was added.

        Args:
          order: which class each that was given stands for; None for the same.
          num_classes: K.
          several: whether an example may have any number of classes.
        """
        classes = np.frombuffer(self._classes, np.int32)
        if order is not None:
            classes = np.array(order, np.int32)[classes]
        if not several:
            return classes
        sizes = np.frombuffer(self._sizes, np.uint32)
        ends = np.cumsum(sizes, dtype=np.int64)
        return Sets(classes=classes, ends=ends, num_classes=num_classes)
