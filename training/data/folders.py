"""A directory with one folder for each class."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing

from training.data import split
from zoo import taxonomy as taxonomies

_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
_NAMES = {split.TRAIN: ("train",), split.TEST: ("test", "validation", "val")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(split.Split):
    """Image files.

    Attributes:
      paths: of each example.
      labels: of each example.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def is_encoded(self) -> bool:
        return True

    @property
    def _encoded(self) -> list[bytes]:
        """The paths; apart, since AutoGraph warns of a function that it can't read."""
        return [os.fsencode(path) for path in self.paths]

    def example(self, number: typing.Any) -> tuple[typing.Any, typing.Any]:
        import tensorflow as tf

        path = tf.gather(tf.constant(self._encoded, tf.string), number)
        label = tf.gather(tf.constant(self.labels, tf.int64), number)
        return tf.io.read_file(path), label

    def describe(self, number: int) -> str:
        return os.fsencode(self.paths[number]).decode(errors="replace")


def open_split(folder: str, name: str, source: str) -> split.Split:
    """Lists the images of a split, class by class.

    Raises:
      ValueError: there are no classes, or one without images.
    """
    root = pathlib.Path(folder)
    halves = {
        half: next((root / word for word in words if (root / word).is_dir()), None)
        for half, words in _NAMES.items()
    }
    classes = _classes(halves[split.TRAIN] or root)
    half = halves[name] if halves[split.TRAIN] else root
    if half is None:
        raise split.NoSplitError(
            f"{root} has a folder train, and none of {', '.join(_NAMES[split.TEST])}."
        )
    strange = sorted(set(_names(half)) - set(classes)) if half != root else []
    if strange:
        raise ValueError(
            f"{half / strange[0]} is of a class that the training half has not."
        )
    examples = []
    for label, class_name in enumerate(classes):
        found = _images(half / class_name)
        if half == root and len(found) > 1:
            found = split.every_fifth(found, name)
        elif half == root and name == split.TEST:
            found = []  # the only image of a class is to be learnt
        examples += [(path, label) for path in found]
    relative = [path.relative_to(root).as_posix() for path, _ in examples]
    sizes = [str(path.stat().st_size) for path, _ in examples]
    return Files(
        source=source,
        name=name,
        size=len(examples),
        classes=tuple(taxonomies.ClassDefinition(id=c, name=c) for c in classes),
        taxonomy=root.resolve().name,
        fingerprint=split.fingerprint(map(os.fsencode, relative + sizes)),
        paths=tuple(str(path) for path, _ in examples),
        labels=tuple(label for _, label in examples),
    )


def _classes(folder: pathlib.Path) -> list[str]:
    found = _names(folder)
    if len(found) < 2:
        raise ValueError(
            f"{folder} must have a folder for each of two or more classes; it has "
            f"{', '.join(found) or 'none'}."
        )
    return found


def _names(folder: pathlib.Path) -> list[str]:
    """Of the folders that may be classes."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: a class of the training half.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not found:
        raise ValueError(
            f"{folder} has no images: files that end with {', '.join(_SUFFIXES)}."
        )
    return found
