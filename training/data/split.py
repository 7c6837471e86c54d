"""Train and test splits: labelled images with random access by number."""

from __future__ import annotations

import abc
import bisect
import dataclasses
import functools
import hashlib
import os
import pathlib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from zoo import taxonomy as taxonomies

TRAIN, TEST = "train", "test"
ALL = "all"
"""Name of a split with all images of a source, labelled or not."""
PIXELS, ENCODED, PATH = "pixels", "encoded", "path"
EVERY = 5
"""If a source has no test split, every fifth example is held out as one."""


class NoSplitError(ValueError):
    """Raised if a source does not have the requested split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(abc.ABC):
    """The examples of one split of a source.

    Attributes:
      source: value of `--data`.
      name: `train` or `test`; `all` for images without labels.
      size: number of examples.
      classes: classes in the order of the labels; empty if the source does not define
        them.
      taxonomy: name of the classes, either a taxonomy of the zoo or a new one.
      scores: `softmax` if each example has one class, `sigmoid` if it may have any
        number of classes.
      fingerprint: hash that changes if the examples change.
      notes: one-line messages for users, such as which files were left out.
      has_labels: whether `fetch` returns labels that the source has.
    """

    source: str
    name: str
    size: int
    classes: tuple[taxonomies.ClassDefinition, ...] = ()
    taxonomy: str = ""
    scores: str = taxonomies.SOFTMAX
    fingerprint: str
    notes: tuple[str, ...] = ()
    has_labels: bool = True

    label_hint = "see --data"
    """Advice for the error message if a label is not a class."""

    image_format: typing.ClassVar[str]
    """Format in which `fetch` returns images: `PIXELS`, `ENCODED` or `PATH`."""

    @abc.abstractmethod
    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images and labels of examples. This method is thread-safe.

        Args:
          numbers: [n] int64, each in [0, size).

        Returns:
          Images and labels. Images are pixels [n, H, W, 3] uint8, or [n] bytes that are
          encoded files (empty if unreadable) or paths. Labels are classes [n] int64, or
          zeros and ones [n, K] int64 if `scores` is `sigmoid`.
        """

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the labels of examples as `fetch` does, without images if it can."""
        return self.fetch(numbers)[1]

    def read_image(self, number: int, reader: typing.Any) -> np.ndarray:
        """Reads and preprocesses an example.

        Args:
          number: number of the example.
          reader: an `images.reader.Reader`.

        Raises:
          ValueError: it is not a readable image; the message says why.
        """
        (image,), _ = self.fetch(np.array([number]))
        if reason := self.failure(number):
            raise ValueError(reason)
        if self.image_format == PATH:
            pixels = reader.read(pathlib.Path(os.fsdecode(image)))
        elif self.image_format == PIXELS:
            pixels = reader.from_pixels(image)
        else:
            pixels = reader.decode(self.describe(number), image)
        return typing.cast(np.ndarray, pixels)

    def failure(self, number: int) -> str:
        """Returns why `fetch` could not read an image; empty if that is not known."""
        return ""

    @property
    def paths(self) -> list[str]:
        """Paths of the images if they are files, else an empty list."""
        if self.image_format != PATH:
            return []
        return [os.fsdecode(path) for path in self.fetch(np.arange(self.size))[0]]

    @property
    def first_path(self) -> str:
        """Path of a file that is an image; empty if images are not files."""
        if self.image_format != PATH:
            return ""
        return os.fsdecode(self.fetch(np.array([0]))[0][0])

    @abc.abstractmethod
    def all_labels(self) -> np.ndarray:
        """Returns one class for each example, [size] integers.

        Of several classes, this is the one that the fewest examples have; of none, -1.
        The result serves to divide the examples by class.
        """

    def class_names(self) -> dict[int, str]:
        """Class names by number, read from the examples if `classes` is empty."""
        return {}

    @abc.abstractmethod
    def describe(self, number: int) -> str:
        """Describes the location of example `number` for messages."""

    def key(self, number: int) -> str:
        """Returns a name of example `number` that does not depend on the machine."""
        return self.describe(number)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelSplit(Split):
    """Examples in memory.

    Attributes:
      images: [N, H, W] uint8 (grey) or [N, H, W, 3] uint8.
      labels: [N] integers.
    """

    images: np.ndarray
    labels: np.ndarray

    image_format = PIXELS

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
    """A subset of the examples of a split.

    Attributes:
      whole: the full split.
      numbers: numbers of the subset's examples in `whole`, ascending.
    """

    whole: Split
    numbers: np.ndarray

    @property
    def image_format(self) -> str:  # type: ignore[override]
        return self.whole.image_format

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.whole.fetch(self.numbers[numbers])

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        return self.whole.labels_of(self.numbers[numbers])

    def failure(self, number: int) -> str:
        return self.whole.failure(int(self.numbers[number]))

    def all_labels(self) -> np.ndarray:
        return self.whole.all_labels()[self.numbers]

    @property
    def labels(self) -> np.ndarray:
        """One class for each example, [size] integers; see `all_labels`."""
        return self.all_labels()

    def class_names(self) -> dict[int, str]:
        return self.whole.class_names()

    def describe(self, number: int) -> str:
        return self.whole.describe(int(self.numbers[number]))

    def key(self, number: int) -> str:
        return self.whole.key(int(self.numbers[number]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joined(Split):
    """The examples of several splits of a source, one split after the other.

    Attributes:
      parts: the splits, of the same classes and image format.
    """

    parts: tuple[Split, ...]

    @property
    def image_format(self) -> str:  # type: ignore[override]
        return self.parts[0].image_format

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(numbers, kind="stable")
        fetched = [part.fetch(local) for part, local in self._divide(numbers[order])]
        images, labels = (
            np.concatenate(arrays) for arrays in zip(*fetched, strict=True)
        )
        back = np.argsort(order, kind="stable")
        return images[back], labels[back]

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        order = np.argsort(numbers, kind="stable")
        labels = [part.labels_of(local) for part, local in self._divide(numbers[order])]
        return np.concatenate(labels)[np.argsort(order, kind="stable")]

    def failure(self, number: int) -> str:
        part, local = self._find(number)
        return part.failure(local)

    def all_labels(self) -> np.ndarray:
        return np.concatenate([part.all_labels() for part in self.parts])

    def class_names(self) -> dict[int, str]:
        return {k: v for part in self.parts for k, v in part.class_names().items()}

    def describe(self, number: int) -> str:
        part, local = self._find(number)
        return part.describe(local)

    def key(self, number: int) -> str:
        part, local = self._find(number)
        return part.key(local)

    @functools.cached_property
    def _firsts(self) -> list[int]:
        """Number of the first example of each part."""
        sizes = [part.size for part in self.parts]
        return np.cumsum([0, *sizes[:-1]]).tolist()

    def _divide(self, numbers: np.ndarray) -> Iterator[tuple[Split, np.ndarray]]:
        """Yields each part that has any of the ascending numbers, with those in it."""
        for part, first in zip(self.parts, self._firsts, strict=True):
            local = numbers - first
            local = local[(local >= 0) & (local < part.size)]
            if local.size:
                yield part, local

    def _find(self, number: int) -> tuple[Split, int]:
        """Returns the part that has an example, and the example's number in it."""
        index = bisect.bisect_right(self._firsts, number) - 1
        return self.parts[index], number - self._firsts[index]


def join(splits: Sequence[Split]) -> Split:
    """Returns the examples of all splits of a source as one split.

    Splits that divide one source in two are undone.
    """
    wholes = [part.whole if isinstance(part, Subset) else part for part in splits]
    parts = list({id(part): part for part in wholes}.values())
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Joined(
        source=first.source,
        name=ALL,
        size=sum(part.size for part in parts),
        classes=first.classes,
        taxonomy=first.taxonomy,
        scores=first.scores,
        fingerprint=fingerprint([part.fingerprint.encode() for part in parts]),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        has_labels=all(part.has_labels for part in parts),
        parts=tuple(parts),
    )


def held_out(whole: Split, every: int | None) -> tuple[Subset, Subset]:
    """Holds out about one of `every` examples of each class.

    At least one example is held out of each class that has two or more examples, and
    none of a class with a single example. If `every` is None, nothing is held out.

    Returns:
      The remaining examples and the held-out ones.
    """
    labels = whole.all_labels()
    random = np.random.default_rng(0)
    is_held_out = np.zeros(whole.size, bool)
    for label in np.unique(labels):
        numbers = np.flatnonzero(labels == label)
        least = int(len(numbers) > 1)
        count = max(round(len(numbers) / every), least) if every else 0
        is_held_out[random.permutation(numbers)[:count]] = True

    return (
        subset(whole, np.flatnonzero(~is_held_out), whole.name),
        subset(whole, np.flatnonzero(is_held_out), whole.name),
    )


def cached_opener(
    read: Callable[[], tuple[Mapping[str, Split], str]],
    *,
    missing: Callable[[str], str],
) -> Callable[[str], Split]:
    """Returns a function that opens a split by its name, and reads the source once.

    The function raises NoSplitError if there is no such split. A class without train
    examples is an error only if the train split is opened: a model that was trained
    elsewhere may know it.

    Args:
      read: returns the splits by name, and a message if a class has no train examples.
      missing: returns the message for the name of a split that is not there.
    """
    read_once = functools.cache(read)

    def open_split(name: str) -> Split:
        by_name, untrained = read_once()
        if name not in by_name:
            raise NoSplitError(missing(name))
        if untrained and name == TRAIN:
            raise ValueError(untrained)
        return by_name[name]

    return open_split


def train_and_test(whole: Split) -> dict[str, Split]:
    """Puts every fifth example of each class into the test split, and notes that.

    The only example of a class is in the train split.
    """
    all_labels = whole.all_labels()
    order = np.argsort(all_labels, kind="stable")
    labels = all_labels[order]
    firsts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))
    counts = np.diff(firsts, append=whole.size)
    positions = np.arange(whole.size) - np.repeat(firsts, counts)  # within the class
    in_test = np.empty(whole.size, bool)
    in_test[order] = (positions % EVERY == 0) & (np.repeat(counts, counts) > 1)
    note = (
        f"{whole.source} has no test split, and no class has an image to spare for it"
    )
    if count := in_test.sum():
        note = (
            f"{whole.source} has no test split: every fifth image of each class, "
            f"{count} of {whole.size}, is for testing"
        )
    parts = {TRAIN: np.flatnonzero(~in_test), TEST: np.flatnonzero(in_test)}
    return {
        name: dataclasses.replace(
            subset(whole, numbers, name), notes=(*whole.notes, note)
        )
        for name, numbers in parts.items()
    }


def subset(whole: Split, numbers: np.ndarray, name: str) -> Subset:
    """Returns the examples of a split that have the given numbers."""
    return Subset(
        source=whole.source,
        name=name,
        size=len(numbers),
        classes=whole.classes,
        taxonomy=whole.taxonomy,
        scores=whole.scores,
        notes=whole.notes,
        has_labels=whole.has_labels,
        fingerprint=fingerprint([whole.fingerprint.encode(), numbers.tobytes()]),
        whole=whole,
        numbers=numbers,
    )


def pixel_split(
    images: np.ndarray, labels: np.ndarray, *, source: str, name: str, taxonomy: str
) -> PixelSplit:
    """Returns a split of images whose classes are a taxonomy of the zoo.

    Raises:
      ValueError: the numbers of images and labels differ or are 0, or a label is not a
        class.
    """
    classes = taxonomies.load(taxonomy).classes
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"{source} must have one label per image, but has {len(images)} images and "
            f"{len(labels)} labels."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"{source}: labels must be from 0 to {len(classes) - 1}, the classes of "
            f"{taxonomy}, but they range from {labels.min()} to {labels.max()}."
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
    """Returns the SHA-256 of bytes or number arrays, including their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        view = memoryview(part)
        digest.update(view.nbytes.to_bytes(8, "little"))
        digest.update(view)
    return digest.hexdigest()


def every_fifth(examples: Sequence, name: str) -> list:
    """Returns the examples of a split if every fifth example is in the test split."""
    in_test = name == TEST
    return [e for i, e in enumerate(examples) if (i % EVERY == 0) == in_test]
