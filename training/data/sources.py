"""What `--data` names: a folder of classes, TFRecords, or a known set of images."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable

from training.data import folders, idx, records, split, tables, tfds, webdataset
from training.data.split import Split
from zoo import config
from zoo import taxonomy as taxonomies

_SHOWN_CLASSES = 20
FORMS = (
    "DIRECTORY",
    "csv:FILE",
    "tfrecord:GLOB",
    "tfds:NAME",
    "digits",
    "fashion_mnist:DIRECTORY",
)


def open_split(
    source: str, name: str, features: records.Features = records.IMAGENET
) -> Split:
    """Opens one split of a source.

    Args:
      source: one of `FORMS`. A directory has a folder for each class, or such folders
        below `train` and one of `test`, `validation`, `val`. Of TFRecord files and
        WebDataset shards, those whose names begin with `train` are for training, and
        those that begin with `validation`, `val` or `test` for testing. A CSV file may
        have a column `split`. Where a source has no such halves, every fifth example is
        for testing, and never trained on.
      name: `train` or `test`.
      features: what the fields of TFRecord examples are called.

    Raises:
      NoSplitError: the source has no such half.
      ValueError: there is nothing that can be read; the message is one line.
      ImportError: a package is missing.
    """
    if not source:
        raise ValueError(f"--data is missing: one of {', '.join(FORMS)}.")
    kind, colon, rest = source.partition(":")
    kinds: dict[str, Callable[[str, str, str], Split]] = {
        "csv": tables.open_split,
        "tfrecord": functools.partial(records.open_split, features=features),
        "tfds": tfds.open_split,
        "wds": webdataset.open_split,
        "fashion_mnist": idx.open_split,
    }
    if colon and kind in kinds:
        return kinds[kind](rest, name, source)
    if source == "digits":
        return _digits(name)
    if not pathlib.Path(source).is_dir():
        raise ValueError(
            f"--data must be one of {', '.join(FORMS)}, and {source!r} is no folder."
            f"{config.did_you_mean(source, ('digits', *(f'{k}:' for k in kinds)))}"
        )
    return folders.open_split(source, name, source)


def open_splits(
    source: str, features: records.Features = records.IMAGENET
) -> dict[str, Split]:
    """The splits of a source: `train`, and `test` if there is one.

    Raises:
      ValueError: as `open_split`.
      ImportError: likewise.
    """
    kind, _, rest = source.partition(":")
    if kind == "csv":  # which is read once for both halves
        return tables.open_splits(rest, source)
    if pathlib.Path(source).is_dir():  # which is listed once for both
        return folders.open_splits(source, source)
    found = {split.TRAIN: open_split(source, split.TRAIN, features)}
    with contextlib.suppress(split.NoSplitError):
        found[split.TEST] = open_split(source, split.TEST, features)
    return found


def taxonomy_of(examples: Split) -> taxonomies.Taxonomy:
    """The classes of a source, as a taxonomy.

    It is one of the zoo's where the classes are that one's, or where all of them are
    named by its ids; else one of their own. Numbers are nobody's ids.

    Raises:
      ValueError: the source does not say what its classes are.
    """
    if not examples.classes:
        raise ValueError(f"{examples.source} does not say what its classes are.")
    ids = [definition.id for definition in examples.classes]
    for name in taxonomies.names():
        known = taxonomies.load(name)
        if known.classes == examples.classes:
            return known
        has_ids = [definition.id for definition in known.classes] == ids
        if has_ids and not all(id_.isdecimal() for id_ in ids):
            return known
    is_taken = examples.taxonomy in taxonomies.names()
    name = f"{examples.taxonomy}_folder" if is_taken else examples.taxonomy
    return taxonomies.Taxonomy(name, examples.classes)


def describe(examples: Split, taxonomy: taxonomies.Taxonomy) -> list[str]:
    """Lines on a split for users: its classes, and what was left out of it."""
    names = [definition.name for definition in taxonomy.classes]
    some = ", ".join(names[:_SHOWN_CLASSES])
    rest = f", … and {len(names) - _SHOWN_CLASSES} more" * (len(names) > _SHOWN_CLASSES)
    renamed = [definition.id for definition in examples.classes] != [
        definition.name for definition in taxonomy.classes
    ]
    known = f" by the ids of {taxonomy.name}" if renamed and examples.classes else ""
    return [f"{len(names)} classes{known}: {some}{rest}", *examples.notes]


def _digits(name: str) -> Split:
    """1797 handwritten digits of 8 × 8 pixels, which scikit-learn brings along."""
    try:
        from sklearn import datasets
    except ImportError as missing:
        raise ImportError(f"--data=digits: {missing}: run tools/setup train") from None
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")
    numbers = split.every_fifth(range(len(images)), name)
    return split.pixels(
        images[numbers],
        labels[numbers],
        source="digits",
        name=name,
        taxonomy="digits",
    )
