"""Reads a directory of images with one folder for each class."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import re
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from images import listing as listing_lib
from training.data import image_files, split
from zoo import taxonomy as taxonomies

# Folder names that stand for a split, not a class; the first of each is preferred.
_SPLIT_WORDS = {
    split.TRAIN: ("train", "training"),
    split.TEST: ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}
# Other words allowed in such names: `training_set`, `Train Images`, and `seg_train` in
# Intel's image classification data.
_FILLERS = ("set", "data", "dataset", "images", "imgs", "seg", "split")
_FoldersByClass = Mapping[str, Sequence[pathlib.Path]]


def opener(folder: str, source: str) -> Callable[[str], split.Split]:
    """Returns a function that lists the images of a split, class by class.

    Without split folders, the images are listed once and then divided.

    Args:
      folder: path of the directory.
      source: value of `--data`, for messages.

    Returns:
      A function that takes the split's name. It raises NoSplitError if there is a train
      folder but no test folder, and ValueError if there are no classes or if a class
      has no images.
    """
    root = pathlib.Path(folder)
    split_folders = _split_folders(root)

    @functools.cache
    def splits() -> dict[str, split.Split]:
        return split.train_and_test(
            _list_split(root, {split.TRAIN: root}, split.TRAIN, source)
        )

    def open_split(name: str) -> split.Split:
        if not split_folders:
            return splits()[name]
        if name not in split_folders:
            train = split_folders[split.TRAIN]
            raise split.NoSplitError(
                f"{root} has a folder {train.name}, but none called "
                f"{', '.join(_SPLIT_WORDS[name])}: to hold out every fifth image for "
                f"testing, give {train} itself."
            )
        return _list_split(root, split_folders, name, source)

    return open_split


def open_images(folder: str, source: str) -> split.Split:
    """Lists all images of a directory at any depth, without labels.

    Raises:
      ValueError: there are no images.
    """
    root = pathlib.Path(folder)
    listing = listing_lib.find(root)
    if not listing.images:
        raise ValueError(_no_images(root, listing.skipped))
    left_out = listing_lib.describe_skipped(listing.skipped)
    collector = image_files.Collector(os.path.join(root, ""))
    for image in listing.images:
        collector.add(image.path, image.stat(), 0)
    return collector.build_split(
        source=source,
        name=split.ALL,
        has_labels=False,
        classes=(),
        notes=tuple(filter(None, [left_out])),
    )


def _list_split(
    root: pathlib.Path,
    split_folders: Mapping[str, pathlib.Path],
    name: str,
    source: str,
) -> image_files.ImageFileSplit:
    """Lists the images in a split's folder, with the classes of the train split."""
    train, folder = split_folders[split.TRAIN], split_folders[name]
    classes, class_folders = list(_class_folders(train)), _class_folders(folder)
    for class_name in sorted(set(class_folders) - set(classes)):
        raise ValueError(
            f"{class_folders[class_name][0]} has no matching class folder in {train}."
        )
    skipped = _skipped_outside(folder, class_folders)
    collector = image_files.Collector(os.path.join(root, ""))
    note = ""
    for label, class_name in enumerate(classes):
        folders = class_folders.get(class_name, [folder / class_name])
        listings = _listings(folders)
        for listing in listings:
            skipped.update(listing.skipped)
        note = note or _note_on_splits(class_name, listings)
        for listing in listings:
            for image in listing.images:
                collector.add(image.path, image.stat(), label)
    # `_unwrap` may have chosen inner folders, so their parents are used, too.
    used = {p for path in split_folders.values() for p in (path, *path.parents)}
    ignored = [f.name for f in _folders(root) if train != root and f not in used]
    notes = [
        listing_lib.describe_skipped(skipped),
        f"folders left out: {', '.join(ignored)}" if ignored else "",
        note,
    ]
    return collector.build_split(
        source=source,
        name=name,
        classes=tuple(taxonomies.ClassDefinition(id=c, name=c) for c in classes),
        taxonomy=root.resolve().name,
        notes=tuple(filter(None, notes)),
    )


def _note_on_splits(class_name: str, listings: Sequence[listing_lib.Listing]) -> str:
    """Returns a warning if a class contains train and test folders, else ""."""
    parsed = [_parse_name(name) for listing in listings for name in listing.folders]
    if len({name.split for name in parsed if name}) < 2:
        return ""
    return (
        f"CLASSES CONTAIN SPLITS: {class_name} has train and test folders, whose "
        "images are mixed; to keep them apart, arrange the folders as "
        f"train/{class_name} and test/{class_name}"
    )


def _skipped_outside(
    folder: pathlib.Path, class_folders: _FoldersByClass
) -> collections.Counter[str]:
    """Counts the files outside all class folders: in the folder itself, or hidden."""
    names = {path.name for paths in class_folders.values() for path in paths}
    outside = listing_lib.find(folder, exclude=names)
    if outside.images:
        outside.skipped["images outside the class folders"] += len(outside.images)
    return outside.skipped


def _listings(folders: Sequence[pathlib.Path]) -> list[listing_lib.Listing]:
    """Lists the files in the folders of one class.

    Raises:
      ValueError: a folder is missing, or there are no images.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]} is missing: the train split has this class.")
    listings = [listing_lib.find(folder) for folder in folders]
    if not any(listing.images for listing in listings):
        skipped: collections.Counter[str] = sum(
            (listing.skipped for listing in listings), collections.Counter()
        )
        raise ValueError(_no_images(folders[0], skipped))
    return listings


def _no_images(folder: pathlib.Path, skipped: collections.Counter[str]) -> str:
    """Returns the message for a folder without images."""
    left_out = listing_lib.describe_skipped(skipped)
    return (
        f"{folder} has no images: no file name ends with "
        f"{', '.join(listing_lib.SUFFIXES)}{f' ({left_out})' if left_out else ''}."
    )


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the split folders in a folder; none if it contains class folders.

    Folders with split names are splits only if two of them form a pair, such as
    `flowers_train` and `flowers_test`, or if none has other words in its name. If there
    are folders with other names, too, there must be a pair whose train folder contains
    folders; otherwise `train` is the name of a class. For the test split, a folder that
    contains folders is preferred, because `test` may hold images without labels.

    Raises:
      ValueError: the folders are ambiguous, or none is the train split.
    """
    names = {path.name: _parse_name(path.name) for path in _folders(root)}
    split_names = {name: parsed for name, parsed in names.items() if parsed}
    chosen: dict[str, str] = {}
    with_folders = {name for name in split_names if _folders(root / name)}
    for name in sorted(
        split_names, key=lambda n: (n not in with_folders, split_names[n].rank)
    ):
        chosen.setdefault(split_names[name].split, name)
    train, test = chosen.get(split.TRAIN), chosen.get(split.TEST)
    is_pair = bool(train and test and split_names[train].rest == split_names[test].rest)
    have_no_rest = all(not parsed.rest for parsed in split_names.values())
    if not split_names or not (is_pair or have_no_rest):
        return {}
    train_folder = root / (train or "")
    has_folders = bool(train and _folders(train_folder))
    if len(split_names) < len(names) and not (is_pair and has_folders):
        if has_folders and not _has_images(train_folder):
            raise ValueError(
                f"{train_folder} may be a split or a class, because it contains "
                "folders: if these are the classes, pass it as --data; otherwise "
                "rename it."
            )
        return {}
    if not train or sum(p.split == split.TRAIN for p in split_names.values()) > 1:
        raise ValueError(
            f"{root} has the folders {', '.join(names)}, but must have exactly one "
            f"train split, called {' or '.join(_SPLIT_WORDS[split.TRAIN])}."
        )
    return {kind: _unwrap(root / name) for kind, name in chosen.items()}


def split_from_name(name: str) -> str:
    """Returns `train` or `test` for the name of a split folder, else ""."""
    parsed = _parse_name(name)
    return parsed.split if parsed else ""


class _ParsedName(typing.NamedTuple):
    """Result of parsing the name of a split folder.

    Attributes:
      split: `train` or `test`.
      rank: position of the split's word in `_SPLIT_WORDS`; 0 is preferred.
      rest: other words of the name, without fillers; a train and a test folder with the
        same `rest` form a pair.
    """

    split: str
    rank: int
    rest: tuple[str, ...]


def _parse_name(name: str) -> _ParsedName | None:
    """Parses names such as `Training`, `test_set` or `seg_train`; None for others."""
    text = unicodedata.normalize("NFC", name).casefold()
    words = [word for word in re.split(r"[\W\d_]+", text) if word]
    split_words = {
        word: (s, rank)
        for s, ws in _SPLIT_WORDS.items()
        for rank, word in enumerate(ws)
    }
    for filler in _FILLERS:  # `trainset` is `train` and the filler `set`
        words = [
            stem if (stem := word.removesuffix(filler)) in split_words else word
            for word in words
        ]
    matches = [word for word in words if word in split_words]
    if len(matches) != 1:
        return None
    rest = tuple(word for word in words if word not in (*matches, *_FILLERS))
    return _ParsedName(*split_words[matches[0]], rest)


def _unwrap(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of classes: for `seg_train/seg_train`, the inner folder."""
    inner = _folders(folder)
    while len(inner) == 1 and _parse_name(inner[0].name) == _parse_name(folder.name):
        folder, inner = inner[0], _folders(inner[0])
    return folder


def _class_folders(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the folders of each class by its name, sorted.

    Names that differ only in Unicode normalization are one class: operating systems
    encode accents differently.
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
    image_files.check_case(classes, str(folder))
    if len(classes) < 2:
        raise ValueError(
            f"{folder} must have a folder for each of two or more classes; it has "
            f"{', '.join(classes) or 'none'}."
        )
    return dict(sorted(classes.items()))


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    with os.scandir(folder) as entries:
        names = [
            e.name for e in entries if e.is_dir() and not listing_lib.is_hidden(e.name)
        ]
    return [folder / name for name in sorted(names)]


def _has_images(folder: pathlib.Path) -> bool:
    """Whether the folder itself contains image files."""
    names = [path.name for path in _folders(folder)]
    return bool(listing_lib.find(folder, exclude=names).images)
