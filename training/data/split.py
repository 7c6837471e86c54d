"""Labelled images that can be had by number, in any order and again."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
import typing
from collections.abc import Iterable, Sequence

import numpy as np

from zoo import taxonomy as taxonomies

TRAIN, TEST = "train", "test"
ALL = "all"
"""What all images of a source are called, whose labels are not asked for."""
PIXELS, ENCODED, PATH = "pixels", "encoded", "path"
EVERY = 5
"""Where a source has no test split of its own, every fifth example is in it."""


class NoSplitError(ValueError):
    """A source has no such half."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(abc.ABC):
    """The examples of one half of a source.

    Attributes:
      source: what `--data` said.
      name: `train` or `test`.
      size: number of examples.
      classes: what labels count, in order; nothing where the source does not say.
      taxonomy: a name of the zoo's for them, or of one's own.
      scores: `softmax` where each example has one class, `sigmoid` where it has any
        number of them.
      fingerprint: changes where the examples do.
      notes: what users should know, such as which files were left out; a line each.
    """

    source: str
    name: str
    size: int
    classes: tuple[taxonomies.ClassDefinition, ...] = ()
    taxonomy: str = ""
    scores: str = taxonomies.SOFTMAX
    fingerprint: str
    notes: tuple[str, ...] = ()

    label_hint = "see --data"
    """What to look at where labels are no classes."""

    image_is: typing.ClassVar[str]
    """What `fetch` gives of an image: `PIXELS`, `ENCODED` or `PATH`."""

    @abc.abstractmethod
    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of some examples; threads may call it at once.

        Args:
          numbers: [n] int64, each in [0, size).

        Returns:
          Pixels [n, H, W, 3] uint8; or [n] bytes, empty where they can't be had: of
          files, or their paths. And labels: classes [n] int64, or where `scores` is
          `sigmoid` zeros and ones [n, K] int64.
        """

    @property
    def paths(self) -> list[str]:
        """The paths of the images, where they are files; else none."""
        if self.image_is != PATH:
            return []
        return [os.fsdecode(path) for path in self.fetch(np.arange(self.size))[0]]

    @abc.abstractmethod
    def all_labels(self) -> np.ndarray:
        """The class of each example, [size] integers.

        Of several the one that the fewest examples have, and of none -1: for parts in
        which every class has its share.
        """

    def class_names(self) -> dict[int, str]:
        """What examples call classes, by number, where no list of classes does."""
        return {}

    @abc.abstractmethod
    def describe(self, number: int) -> str:
        """Where example `number` is, for messages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelSplit(Split):
    """Examples in memory.

    Attributes:
      images: [N, H, W] or [N, H, W, 3] uint8; the former are grey.
      labels: [N] integers.
    """

    images: np.ndarray
    labels: np.ndarray

    image_is = PIXELS

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = self.images[numbers]
        if images.ndim == 3:
            images = np.repeat(images[..., np.newaxis], 3, axis=-1)
        return images, self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return self.labels

    def describe(self, number: int) -> str:
        return f"{self.name} example {number} of {self.source}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset(Split):
    """Some examples of a split.

    Attributes:
      whole: the split.
      numbers: of the examples there, ascending.
    """

    whole: Split
    numbers: np.ndarray

    @property
    def image_is(self) -> str:  # type: ignore[override]
        return self.whole.image_is

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.whole.fetch(self.numbers[numbers])

    def all_labels(self) -> np.ndarray:
        return self.whole.all_labels()[self.numbers]

    @property
    def labels(self) -> np.ndarray:
        """The class of each example, [size] integers."""
        return self.all_labels()

    def class_names(self) -> dict[int, str]:
        return self.whole.class_names()

    def describe(self, number: int) -> str:
        return self.whole.describe(int(self.numbers[number]))


def held_out(whole: Split, every: int | None) -> tuple[Subset, Subset]:
    """All examples but about one of `every`, and these: the same share of each class.

    Of a class with two or more examples at least one is held out, of a class with one
    none; of all classes none, where `every` is None.
    """
    labels = whole.all_labels()
    random = np.random.default_rng(0)
    chosen = np.zeros(whole.size, bool)
    for label in np.unique(labels):
        numbers = np.flatnonzero(labels == label)
        least = int(len(numbers) > 1)
        count = max(round(len(numbers) / every), least) if every else 0
        chosen[random.permutation(numbers)[:count]] = True

    return (
        subset(whole, np.flatnonzero(~chosen), whole.name),
        subset(whole, np.flatnonzero(chosen), whole.name),
    )


def train_and_test(whole: Split) -> dict[str, Split]:
    """Every fifth example of each class to test on; a single one is to train on."""
    all_labels = whole.all_labels()
    order = np.argsort(all_labels, kind="stable")
    labels = all_labels[order]
    firsts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    counts = np.diff(firsts, append=whole.size)
    places = np.arange(whole.size) - np.repeat(firsts, counts)
    in_test = np.empty(whole.size, bool)
    in_test[order] = (places % EVERY == 0) & (np.repeat(counts, counts) > 1)
    return {
        TRAIN: subset(whole, np.flatnonzero(~in_test), TRAIN),
        TEST: subset(whole, np.flatnonzero(in_test), TEST),
    }


def subset(whole: Split, numbers: np.ndarray, name: str) -> Subset:
    """Some examples of a split, by their numbers there."""
    return Subset(
        source=whole.source,
        name=name,
        size=len(numbers),
        classes=whole.classes,
        taxonomy=whole.taxonomy,
        scores=whole.scores,
        notes=whole.notes,
        fingerprint=fingerprint([whole.fingerprint.encode(), numbers.tobytes()]),
        whole=whole,
        numbers=numbers,
    )


def pixel_split(
    images: np.ndarray, labels: np.ndarray, *, source: str, name: str, taxonomy: str
) -> PixelSplit:
    """A split of images whose classes are a taxonomy of the zoo.

    Raises:
      ValueError: as many labels as images are wanted, all of them classes.
    """
    classes = taxonomies.load(taxonomy).classes
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{source}: {len(images)} images and {len(labels)} labels.")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"{source}: labels go from {labels.min()} to {labels.max()}, and "
            f"{taxonomy} has {len(classes)} classes."
        )
    return PixelSplit(
        source=source,
        name=name,
        size=len(images),
        classes=classes,
        taxonomy=taxonomy,
        fingerprint=fingerprint([images.tobytes(), labels.astype("<i8").tobytes()]),
        images=images,
        labels=labels,
    )


def fingerprint(parts: Iterable[typing.Any]) -> str:
    """SHA-256 of parts, bytes or arrays of numbers, and their lengths."""
    digest = hashlib.sha256()
    for subset in parts:
        view = memoryview(subset)
        digest.update(view.nbytes.to_bytes(8, "little"))
        digest.update(view)
    return digest.hexdigest()


def every_fifth(examples: Sequence, name: str) -> list:
    """Those of `examples` that are in a split, where the source has no other order."""
    in_test = name == TEST
    return [e for i, e in enumerate(examples) if (i % EVERY == 0) == in_test]
