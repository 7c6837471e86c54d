"""A directory with one folder for each class."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
import re
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from images import listing as files
from training.data import image_files, split
from zoo import taxonomy as taxonomies

# What folders are called that hold a split, and not a class.
_WORDS = {
    split.TRAIN: ("train", "training"),
    split.TEST: ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}
# What such names may have besides: `training_set`, `seg_train`, `Train Images`.
_FILLERS = ("set", "data", "dataset", "images", "imgs", "seg", "split")
_Folders = Mapping[str, Sequence[pathlib.Path]]


def opener(folder: str, source: str) -> Callable[[str], split.Split]:
    """What lists a split's images, class by class; without split folders, once for all.

    Returns:
      A function of the split's name. It raises NoSplitError where there is a folder to
      train on and none to test on, and ValueError where there are no classes, or one
      without images.
    """
    root = pathlib.Path(folder)
    splits = _splits(root)

    @functools.cache
    def halves() -> dict[str, split.Split]:
        return split.train_and_test(
            _listed(root, {split.TRAIN: root}, split.TRAIN, source)
        )

    def open_split(name: str) -> split.Split:
        if not splits:
            return halves()[name]
        if name not in splits:
            train = splits[split.TRAIN]
            raise split.NoSplitError(
                f"{root} has a folder {train.name}, and none called "
                f"{', '.join(_WORDS[name])}. Give {train} itself to have every fifth "
                "of its images for testing."
            )
        return _listed(root, splits, name, source)

    return open_split


def _listed(
    root: pathlib.Path, splits: Mapping[str, pathlib.Path], name: str, source: str
) -> image_files.ImageFileSplit:
    """The images in the folder of a split, of the classes of the one to train on."""
    train, folder = splits[split.TRAIN], splits[name]
    classes, own_classes = list(_classes(train)), _classes(folder)
    for class_name in sorted(set(own_classes) - set(classes)):
        raise ValueError(
            f"{own_classes[class_name][0]} is of a class that {train} does not have."
        )
    skipped = _skipped_beside(folder, own_classes)
    collector = image_files.Collector(os.path.join(root, ""))
    mixed = ""
    for label, class_name in enumerate(classes):
        folders = own_classes.get(class_name, [folder / class_name])
        listings = _listings(folders)
        for listing in listings:
            skipped.update(listing.skipped)
        mixed = mixed or _mixed(class_name, listings)
        for listing in listings:
            for image in listing.images:
                collector.add(image.path, image.stat(), label)
    used = {place for path in splits.values() for place in (path, *path.parents)}
    ignored = [f.name for f in _folders(root) if train != root and f not in used]
    notes = [
        files.describe_skipped(skipped),
        f"folders left out: {', '.join(ignored)}" if ignored else "",
        mixed,
    ]
    return collector.files(
        source=source,
        name=name,
        classes=tuple(taxonomies.ClassDefinition(id=c, name=c) for c in classes),
        taxonomy=root.resolve().name,
        notes=tuple(filter(None, notes)),
    )


def _mixed(class_name: str, listings: Sequence[files.Listing]) -> str:
    """A line on a class that is split inside, whose parts are read as one."""
    parts = [_split_name(name) for listing in listings for name in listing.folders]
    if len({part.split for part in parts if part}) < 2:
        return ""
    return (
        f"CLASSES ARE SPLIT INSIDE: {class_name} has folders to train and to test on, "
        "which are mixed; put those of all classes into train and test"
    )


def _skipped_beside(
    folder: pathlib.Path, classes: _Folders
) -> collections.Counter[str]:
    """The files that are in no class: in the folder itself, or hidden."""
    names = {path.name for paths in classes.values() for path in paths}
    beside = files.find(folder, except_in=names)
    if beside.images:
        beside.skipped["images in no folder of a class"] += len(beside.images)
    return beside.skipped


def _listings(folders: Sequence[pathlib.Path]) -> list[files.Listing]:
    """What is in the folders of one class.

    Raises:
      ValueError: there are no images.
    """
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]} is missing: a class that is trained on.")
    listings = [files.find(folder) for folder in folders]
    if not any(listing.images for listing in listings):
        others: collections.Counter[str] = sum(
            (listing.skipped for listing in listings), collections.Counter()
        )
        left_out = files.describe_skipped(others)
        raise ValueError(
            f"{folders[0]} has no images: files that end with "
            f"{', '.join(files.SUFFIXES)}{f' ({left_out})' if left_out else ''}."
        )
    return listings


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


def split_of(name: str) -> str:
    """`train` or `test`, by any of the names that folders of them have; or nothing."""
    found = _split_name(name)
    return found.split if found else ""


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
    image_files.check_case(classes, str(folder))
    if len(classes) < 2:
        raise ValueError(
            f"{folder} must have a folder for each of two or more classes; it has "
            f"{', '.join(classes) or 'none'}."
        )
    return dict(sorted(classes.items()))


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and not files.is_hidden(e.name)]
    return [folder / name for name in sorted(names)]


def _has_images(folder: pathlib.Path) -> bool:
    """Whether image files are in the folder itself."""
    names = [path.name for path in _folders(folder)]
    return bool(files.find(folder, except_in=names).images)
