"""Memory-efficient lists of image files with labels."""

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
    """Image files; each takes some dozens of bytes of memory.

    Attributes:
      folder: prefix of all paths that are not absolute in `names`.
      names: concatenated paths, relative to `folder` or absolute.
      ends: end of each path in `names`, [N] int64.
      states: size in bytes and modification time in ns, [N, 2] int64.
      labels: class of each file, [N] int32, or sets of classes.
    """

    folder: bytes
    names: bytearray
    ends: np.ndarray
    states: np.ndarray
    labels: label_arrays.Labels

    image_format = split.PATH

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ends = self.ends[numbers].tolist()
        starts = np.where(numbers, self.ends[numbers - 1], 0).tolist()
        names, folder = self.names, self.folder
        paths = np.empty(len(numbers), object)
        paths[:] = [
            os.path.join(folder, bytes(names[a:b]))
            for a, b in zip(starts, ends, strict=True)
        ]
        return paths, self.labels_of(numbers)

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        return self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return label_arrays.rarest(self.labels)

    def describe(self, number: int) -> str:
        (path,), _ = self.fetch(np.array([number]))
        return path.decode(errors="replace")

    def key(self, number: int) -> str:
        """Returns the path as in `names`; other bytes than UTF-8 are escaped."""
        start = int(self.ends[number - 1]) if number else 0
        name = self.names[start : int(self.ends[number])]
        return name.decode(errors="backslashreplace")


class Collector:
    """Collects files one by one and builds an `ImageFileSplit`.

    Args:
      folder: prefix of relative paths, such as `data/`; may be empty.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._names = bytearray()
        self._ends, self._states = array.array("q"), array.array("q")
        self._labels = label_arrays.Collector()

    def add(self, path: str, state: os.stat_result, *labels: int) -> None:
        """Adds a file with its class or classes.

        Args:
          path: begins with the prefix, or is absolute.
          state: size and modification time of the file.
          labels: classes of the image.
        """
        name = path.removeprefix(self._folder)
        self._names += os.fsencode(path if os.path.isabs(name) else name)
        self._ends.append(len(self._names))
        self._states.append(state.st_size)
        self._states.append(state.st_mtime_ns)
        self._labels.add(labels)

    def build_split(
        self,
        *,
        classes: Sequence[taxonomies.ClassDefinition],
        order: Sequence[int] | None = None,
        scores: str = taxonomies.SOFTMAX,
        **attributes: typing.Any,
    ) -> ImageFileSplit:
        """Returns all added files as a split.

        The fingerprint is a hash of their names, sizes, modification times and labels.

        Args:
          classes: see `split.Split`.
          order: maps each added label to its class; None keeps the labels as added.
          scores: see `split.Split`.
          attributes: other attributes of `split.Split`.
        """
        ends = np.frombuffer(self._ends, np.int64)
        states = np.frombuffer(self._states, np.int64).reshape(-1, 2)
        labels = self._labels.build(
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
            **attributes,
        )


def check_case(classes: Iterable[str], where: str) -> None:
    """Raises ValueError if two class names differ in case only."""
    spellings: dict[str, str] = {}
    for name in classes:
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{where} has the classes {other} and {name}, which differ in case "
                "only: merge the two, or rename one."
            )
