"""Image files with one label each; millions of them in little memory."""

from __future__ import annotations

import array
import dataclasses
import os
import typing
from collections.abc import Iterable, Sequence

import numpy as np

from training.data import split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(split.Split):
    """Image files; millions of them take some dozens of bytes each.

    Attributes:
      folder: that all of them are in.
      names: their paths in it, one after the other.
      ends: where in `names` each ends, [N] int64.
      states: their bytes, and the time of their last change in ns, [N, 2] int64.
      labels: of each, [N] int32.
    """

    folder: bytes
    names: bytearray
    ends: np.ndarray
    states: np.ndarray
    labels: np.ndarray

    image_is = split.PATH

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = self.ends[numbers].tolist()
        starts = np.where(numbers, self.ends[numbers - 1], 0).tolist()
        names, folder = self.names, self.folder
        paths = np.empty(len(numbers), object)
        paths[:] = [folder + names[a:b] for a, b in zip(starts, ends, strict=True)]
        return paths, self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return self.labels

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
        self._labels = array.array("i")

    def add(self, path: str, state: os.stat_result, label: int) -> None:
        """Adds a file."""
        self._names += os.fsencode(path[len(self._folder) :])
        self._ends.append(len(self._names))
        self._states.append(state.st_size)
        self._states.append(state.st_mtime_ns)
        self._labels.append(label)

    def files(
        self, *, order: Sequence[int] | None = None, **about: typing.Any
    ) -> Files:
        """All that was added.

        The fingerprint is of their names, sizes, times and labels.

        Args:
          order: which label each that was given stands for; None for the same.
          about: what else there is to say of a split.
        """
        ends = np.frombuffer(self._ends, np.int64)
        states = np.frombuffer(self._states, np.int64).reshape(-1, 2)
        labels = np.frombuffer(self._labels, np.int32)
        if order is not None:
            labels = np.array(order, np.int32)[labels]
        return Files(
            size=len(ends),
            fingerprint=split.fingerprint([self._names, ends, states, labels]),
            folder=os.fsencode(self._folder),
            names=self._names,
            ends=ends,
            states=states,
            labels=labels,
            **about,
        )


def halves(whole: Files) -> dict[str, split.Split]:
    """Every fifth image of each class to test on; a single one is to train on."""
    order = np.argsort(whole.labels, kind="stable")
    labels = whole.labels[order]
    firsts = np.flatnonzero(np.diff(labels, prepend=-1))
    counts = np.diff(firsts, append=whole.size)
    places = np.arange(whole.size) - np.repeat(firsts, counts)
    in_test = np.empty(whole.size, bool)
    in_test[order] = (places % split.EVERY == 0) & (np.repeat(counts, counts) > 1)
    return {
        split.TRAIN: split.part(whole, np.flatnonzero(~in_test), split.TRAIN),
        split.TEST: split.part(whole, np.flatnonzero(in_test), split.TEST),
    }


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
