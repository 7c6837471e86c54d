"""A directory with one folder for each class."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
import typing
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from images import files
from training.data import split
from zoo import taxonomy as taxonomies

# What folders are called that hold a split, and not a class.
_WORDS = {
    split.TRAIN: ("train", "training"),
    split.TEST: ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}
# What such names may have besides: `training_set`, `seg_train`, `Train Images`.
_FILLERS = ("set", "data", "dataset", "images", "imgs", "seg", "split")
_Folders = Mapping[str, Sequence[pathlib.Path]]


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

    def all_labels(self) -> np.ndarray:
        return np.asarray(self.labels)

    def describe(self, number: int) -> str:
        return os.fsencode(self.paths[number]).decode(errors="replace")


def open_split(folder: str, name: str, source: str) -> split.Split:
    """Lists the images of a split, class by class.

    Raises:
      NoSplitError: there is a folder to train on, and none to test on.
      ValueError: there are no classes, or one without images.
    """
    root = pathlib.Path(folder)
    splits = _splits(root)
    train = splits.get(split.TRAIN, root)
    if splits and name not in splits:
        raise split.NoSplitError(
            f"{root} has a folder {train.name}, and none called "
            f"{', '.join(_WORDS[name])}. Give {train} itself to have every fifth of "
            "its images for testing."
        )
    chosen = splits.get(name, root)
    classes, own_classes = _classes(train), _classes(chosen)
    for class_name in sorted(set(own_classes) - set(classes)):
        raise ValueError(
            f"{own_classes[class_name][0]} is of a class that {train} does not have."
        )
    skipped = _skipped_beside(chosen, own_classes)
    examples: list[tuple[pathlib.Path, int]] = []
    for label, class_name in enumerate(classes):
        folders = own_classes.get(class_name, [chosen / class_name])
        images = _images(folders, skipped)
        if not splits:
            images = _part(images, name)
        examples += [(path, label) for path in images]
    used = {folder for path in splits.values() for folder in (path, *path.parents)}
    ignored = [f.name for f in _folders(root) if splits and f not in used]
    notes = [
        files.describe_skipped(skipped),
        f"folders left out: {', '.join(ignored)}" if ignored else "",
        _mixed(own_classes),
    ]
    relative = [path.relative_to(root).as_posix() for path, _ in examples]
    sizes = [str(path.stat().st_size) for path, _ in examples]
    return Files(
        source=source,
        name=name,
        size=len(examples),
        classes=tuple(taxonomies.ClassDefinition(id=c, name=c) for c in classes),
        taxonomy=root.resolve().name,
        fingerprint=split.fingerprint(map(os.fsencode, relative + sizes)),
        notes=tuple(filter(None, notes)),
        paths=tuple(str(path) for path, _ in examples),
        labels=tuple(label for _, label in examples),
    )


def _mixed(classes: _Folders) -> str:
    """A line on a class that is split inside, whose parts are read as one."""
    for name, folders in classes.items():
        parts = [_split_name(f.name) for folder in folders for f in _folders(folder)]
        if len({part.split for part in parts if part}) > 1:
            return (
                f"CLASSES ARE SPLIT INSIDE: {name} has folders to train and to test "
                "on, which are mixed; put those of all classes into train and test"
            )
    return ""


def _skipped_beside(
    folder: pathlib.Path, classes: _Folders
) -> collections.Counter[str]:
    """The files that are in no class: in the folder itself, or hidden."""
    names = {path.name for paths in classes.values() for path in paths}
    beside = files.find(folder, except_in=names)
    if beside.images:
        beside.skipped["images in no folder of a class"] += len(beside.images)
    return beside.skipped


def _images(
    folders: Sequence[pathlib.Path], skipped: collections.Counter[str]
) -> list[pathlib.Path]:
    """The images of one class; what else is there is counted.

    Raises:
      ValueError: there are none.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]} is missing: a class that is trained on.")
    listings = [files.find(folder) for folder in folders]
    images = [path for listing in listings for path in listing.images]
    others: collections.Counter[str] = sum(
        (listing.skipped for listing in listings), collections.Counter()
    )
    skipped.update(others)
    if not images:
        left_out = files.describe_skipped(others)
        raise ValueError(
            f"{folders[0]} has no images: files that end with "
            f"{', '.join(files.SUFFIXES)}{f' ({left_out})' if left_out else ''}."
        )
    return images


def _part(images: list[pathlib.Path], name: str) -> list[pathlib.Path]:
    """Those of a class that are in a split; a single one is for training."""
    if len(images) > 1:
        return split.every_fifth(images, name)
    return images if name == split.TRAIN else []


def _splits(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The folders of the splits below a folder; none where it has classes itself.

    Folders that are called like splits are splits, if there are no others. Beside
    others they are, if there is a pair of them and the one to train on has folders;
    else `train` is a class that is called so. To test on is one with folders, if there
    is any: `test` may hold images without labels.

    Raises:
      ValueError: there is no telling, or no folder to train on.
    """
    names = {path.name: _split_name(path.name) for path in _folders(root)}
    known = {name: parts for name, parts in names.items() if parts}
    found: dict[str, str] = {}
    with_folders = {name for name in known if _folders(root / name)}
    for name in sorted(known, key=lambda n: (n not in with_folders, known[n].rank)):
        parts = known[name]
        found.setdefault(parts.split, name)
    train, test = found.get(split.TRAIN), found.get(split.TEST)
    is_pair = bool(train and test and known[train].rest == known[test].rest)
    is_plain = all(not parts.rest for parts in known.values())
    if not known or not (is_pair or is_plain):
        return {}
    train_folder = root / (train or "")
    has_folders = bool(train and _folders(train_folder))
    if len(known) < len(names) and not (is_pair and has_folders):
        if has_folders and not _has_images(train_folder):
            raise ValueError(
                f"{train_folder} has folders itself: it is a split or a class. Give it "
                "alone if its folders are the classes, or rename it."
            )
        return {}
    if not train or sum(p.split == split.TRAIN for p in known.values()) > 1:
        raise ValueError(
            f"{root} has the folders {', '.join(names)}: there must be one to train "
            f"on, called {' or '.join(_WORDS[split.TRAIN])}."
        )
    return {kind: _unwrapped(root / name) for kind, name in found.items()}


class _SplitName(typing.NamedTuple):
    """What a folder's name says of a split.

    Attributes:
      split: `train` or `test`.
      rank: of its word in `_WORDS`; the first is preferred.
      rest: other words of the name.
    """

    split: str
    rank: int
    rest: tuple[str, ...]


def _split_name(name: str) -> _SplitName | None:
    """`Training`, `test_set`, `seg_train` and the like; None for all other names."""
    text = unicodedata.normalize("NFC", name).casefold()
    words = [word for word in re.split(r"[\W\d_]+", text) if word]
    known = {
        word: (s, rank) for s, ws in _WORDS.items() for rank, word in enumerate(ws)
    }
    for filler in _FILLERS:  # trainset
        words = [
            word.removesuffix(filler) if word.removesuffix(filler) in known else word
            for word in words
        ]
    found = [word for word in words if word in known]
    if len(found) != 1:
        return None
    rest = tuple(word for word in words if word not in (*found, *_FILLERS))
    return _SplitName(*known[found[0]], rest)


def _unwrapped(folder: pathlib.Path) -> pathlib.Path:
    """The folder of classes: `seg_train/seg_train` is the inner one."""
    inner = _folders(folder)
    while len(inner) == 1 and _split_name(inner[0].name) == _split_name(folder.name):
        folder, inner = inner[0], _folders(inner[0])
    return folder


def _classes(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The folders of each class, by its name, in order.

    Names that look alike are one class: systems differ in how they write an accent.
    """
    classes: dict[str, list[pathlib.Path]] = {}
    for path in _folders(folder):
        try:
            name = os.fsencode(path.name).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(
                f"{folder} has a folder {os.fsencode(path.name)!r}, whose name is not "
                "UTF-8: rename it."
            ) from None
        classes.setdefault(unicodedata.normalize("NFC", name), []).append(path)
    spelt: dict[str, str] = {}
    for name in classes:
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{folder} has the classes {other} and {name}, which differ in case "
                "only: put them into one folder, or rename one."
            )
    if len(classes) < 2:
        raise ValueError(
            f"{folder} must have a folder for each of two or more classes; it has "
            f"{', '.join(classes) or 'none'}."
        )
    return dict(sorted(classes.items()))


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not files.is_hidden(path.name)
    )


def _has_images(folder: pathlib.Path) -> bool:
    """Whether image files are in the folder itself."""
    names = [path.name for path in _folders(folder)]
    return bool(files.find(folder, except_in=names).images)
