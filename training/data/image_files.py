"""Image files with one label each; millions of them in little memory."""

from __future__ import annotations

import array
import dataclasses
import os
import typing
from collections.abc import Iterable, Sequence

import numpy as np

from training.data import label_arrays, split
from zoo import taxonomy as taxonomies


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFileSplit(split.Split):
    """Image files; millions of them take some dozens of bytes each.

    Attributes:
      folder: that all of them are in.
      names: their paths in it, one after the other.
      ends: where in `names` each ends, [N] int64.
      states: their bytes, and the time of their last change in ns, [N, 2] int64.
      labels: of each, [N] int32, or their sets.
    """

    folder: bytes
    names: bytearray
    ends: np.ndarray
    states: np.ndarray
    labels: label_arrays.Labels

    image_is = split.PATH

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = self.ends[numbers].tolist()
        starts = np.where(numbers, self.ends[numbers - 1], 0).tolist()
        names, folder = self.names, self.folder
        paths = np.empty(len(numbers), object)
        paths[:] = [folder + names[a:b] for a, b in zip(starts, ends, strict=True)]
        return paths, self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return label_arrays.rarest(self.labels)

    def describe(self, number: int) -> str:
        (path,), _ = self.fetch(np.array([number]))
        return path.decode(errors="replace")


class Collector:
    """Puts together `Files`, one after the other.

    Args:
      folder: what all paths begin with, such as `data/`; or nothing.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._names = bytearray()
        self._ends, self._states = array.array("q"), array.array("q")
        self._labels = label_arrays.Collector()

    def add(self, path: str, state: os.stat_result, *labels: int) -> None:
        """Adds a file with its class, or its classes."""
        self._names += os.fsencode(path[len(self._folder) :])
        self._ends.append(len(self._names))
        self._states.append(state.st_size)
        self._states.append(state.st_mtime_ns)
        self._labels.add(labels)

    def files(
        self,
        *,
        classes: Sequence[taxonomies.ClassDefinition],
        order: Sequence[int] | None = None,
        scores: str = taxonomies.SOFTMAX,
        **about: typing.Any,
    ) -> ImageFileSplit:
        """All that was added.

        The fingerprint is of their names, sizes, times and labels.

        Args:
          classes: see `split.Split`.
          order: which label each that was given stands for; None for the same.
          scores: see `split.Split`.
          about: what else there is to say of a split.
        """
        ends = np.frombuffer(self._ends, np.int64)
        states = np.frombuffer(self._states, np.int64).reshape(-1, 2)
        labels = self._labels.labels(
            order=order,
            num_classes=len(classes),
            several=scores == taxonomies.SIGMOID,
        )
        parts = [self._names, ends, states, *label_arrays.arrays(labels)]
        return ImageFileSplit(
            size=len(ends),
            fingerprint=split.fingerprint(parts),
            folder=os.fsencode(self._folder),
            names=self._names,
            ends=ends,
            states=states,
            classes=tuple(classes),
            scores=scores,
            labels=labels,
            **about,
        )


def check_case(classes: Iterable[str], where: str) -> None:
    """Raises ValueError where two classes differ in case only."""
    spelt: dict[str, str] = {}
    for name in classes:
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{where} has the classes {other} and {name}, which differ in case "
                "only: make one of them, or rename one."
            )
