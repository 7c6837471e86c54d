"""Opens the data source given by `--data`: folders, tables, TFRecords, data sets."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from foundation import messages
from training.data import (
    csv_table,
    folders,
    hugging_face,
    idx,
    image_list,
    split,
    tfds,
    tfrecords,
    webdataset,
)
from training.data.split import Split
from zoo import taxonomy as taxonomies

_SHOWN_CLASSES = 20
FORMS = (
    *("FOLDER", "csv:FILE", "parquet:GLOB", "hf:NAME_OR_FOLDER", "wds:GLOB"),
    *("tfrecord:GLOB", "tfds:NAME", "digits", "fashion_mnist:FOLDER", "list:FILE"),
)
UNLABELLED = ("csv", "parquet", "hf", "wds", "tfrecord", "list")
"""Kinds of sources whose images may lack labels; they stand before a colon."""

_LIST = "list"  # a kind that has no labels
_REMOTE = ("hf", "tfds")  # kinds whose value may be a name, not a path
_KINDS = tuple(form.partition(":")[0] for form in FORMS if ":" in form)


def open_split(
    source: str, name: str, features: tfrecords.Features = tfrecords.IMAGENET
) -> Split:
    """Opens one split of a source.

    Args:
      source: one of `FORMS`. A folder contains a folder for each class, either
        directly or inside folders for the splits, under any of their usual names.
        TFRecord files, Parquet files and WebDataset shards whose names begin with
        `train` are the train split, those that begin with `validation`, `val` or `test`
        the test split. A CSV file may have a column `split`. If a source has no splits,
        every fifth example is in the test split and never used for training.
      name: `train` or `test`.
      features: field names of the TFRecord examples.

    Raises:
      NoSplitError: the source does not have this split.
      ValueError: the source can't be read; the message is one line.
      ImportError: a package is missing.
    """
    return _opener(source, features)(name)


def open_splits(
    source: str,
    features: tfrecords.Features = tfrecords.IMAGENET,
    *,
    names: Sequence[str] = (split.TRAIN,),
) -> dict[str, Split]:
    """Opens all splits that a source has, and returns them by name.

    Args:
      source: see `open_split`.
      features: see `open_split`.
      names: names of the required splits.

    Raises:
      NoSplitError: a required split is missing.
      ValueError: the source can't be read; the message is one line.
      ImportError: a package is missing.
    """
    open_one = _opener(source, features)
    splits = {name: open_one(name) for name in names}
    for name in (split.TRAIN, split.TEST):
        if name in splits:
            continue
        with contextlib.suppress(split.NoSplitError):
            splits[name] = open_one(name)
    return splits


def open_images(
    source: str, features: tfrecords.Features = tfrecords.IMAGENET
) -> list[Split]:
    """Opens all images of a source; they do not need labels.

    Raises:
      ValueError: the source can't be read; the message is one line.
      ImportError: a package is missing.
    """
    kind, colon, rest = source.partition(":")
    if colon and not rest:
        raise ValueError(f"{source} needs a value after the colon.")
    if kind == "csv":
        return [csv_table.open_images(rest, source)]
    if kind in ("parquet", "hf"):
        return hugging_face.open_images(kind, rest, source)
    if kind == "wds":
        return [webdataset.open_images(rest, source)]
    if kind == "tfrecord":
        return [tfrecords.open_images(rest, source, features=features)]
    if kind == _LIST:
        return [image_list.open_images(rest, source)]
    if os.path.isdir(source):
        return [folders.open_images(source, source)]
    return list(open_splits(source, features).values())


def open_all(source: str, features: tfrecords.Features = tfrecords.IMAGENET) -> Split:
    """Opens all images of a source as one split.

    It has the labels of `open_split`, if that opens as many images as there are. A note
    says if it opens fewer.

    Raises:
      ValueError: the source can't be read; the message is one line.
      ImportError: a package is missing.
    """
    if source.startswith(f"{_LIST}:"):
        return split.join(open_images(source))
    may_lack_labels, reason = _may_lack_labels(source), ""
    try:
        splits = [*open_splits(source, features, names=()).values()]
    except ValueError as error:
        if not may_lack_labels:
            raise
        splits, reason = [], str(error)
    if splits and not may_lack_labels:
        return split.join(splits)
    images = split.join(open_images(source, features))
    if splits:
        labelled = split.join(splits)
        if labelled.size == images.size:
            return labelled
        reason = f"only {labelled.size} of the {images.size} images have one"
    return dataclasses.replace(images, notes=(*images.notes, f"no labels: {reason}"))


def absolute(source: str) -> str:
    """Returns a source whose path, if it has one, is absolute."""
    kind, colon, rest = source.partition(":")
    if not colon or kind not in _KINDS:
        return str(pathlib.Path(source).absolute()) if os.path.isdir(source) else source
    is_path = rest and "://" not in rest
    if kind in _REMOTE:
        is_path = kind == "hf" and os.path.exists(rest)
    return f"{kind}:{pathlib.Path(rest).absolute()}" if is_path else source


def _may_lack_labels(source: str) -> bool:
    """Whether `open_images` opens images of the source that have no labels."""
    return source.partition(":")[0] in UNLABELLED or os.path.isdir(source)


def _opener(source: str, features: tfrecords.Features) -> Callable[[str], Split]:
    """Returns a function that opens a split by name; it may cache shared data."""
    if not source:
        raise ValueError(f"--data is missing: it must be one of {', '.join(FORMS)}.")
    kind, colon, rest = source.partition(":")
    if colon and kind in _KINDS:
        if not rest:
            raise ValueError(f"--data={source} needs a value after the colon.")
        if kind == _LIST:
            raise ValueError(
                f"--data={source} has no labels: write a table with the columns path "
                "and label, and give csv:FILE."
            )
        if kind == "csv":
            return csv_table.opener(rest, source)
        if kind in ("parquet", "hf"):
            return hugging_face.opener(kind, rest, source)
        by_kind: dict[str, Callable[..., Split]] = {
            "wds": webdataset.open_split,
            "tfrecord": functools.partial(tfrecords.open_split, features=features),
            "tfds": tfds.open_split,
            "fashion_mnist": idx.open_split,
        }
        return lambda name: by_kind[kind](rest, name, source)
    if source == "digits":
        return _digits
    if not pathlib.Path(source).is_dir():
        choices = [f"{kind}:" for kind in _KINDS] if colon else ["digits", *_KINDS]
        raise ValueError(
            f"--data must be one of {', '.join(FORMS)}, and {source!r} is not a "
            f"folder.{messages.did_you_mean(kind, choices)}"
        )
    return folders.opener(source, source)


def name_classes(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Returns the splits with named classes, if their labels are only numbers.

    The number of classes is the largest label of the train split plus one. The name of
    a class comes from its first example that has a name, else from its number.

    Raises:
      ValueError: a label is negative, or two classes have the same name.
    """
    train = splits[split.TRAIN]
    if train.classes:
        return dict(splits)
    labels = train.all_labels()
    if labels.min() < 0:
        raise ValueError(
            f"{train.source} has labels below that of the first class: "
            f"{train.label_hint}."
        )
    names = train.class_names()
    texts = [names.get(n, f"class {n}") for n in range(int(labels.max()) + 1)]
    for text, count in collections.Counter(texts).items():
        if count > 1:
            raise ValueError(f"{train.source}: {count} classes have the name {text!r}.")
    classes = tuple(taxonomies.ClassDefinition(id=t, name=t) for t in texts)
    return {
        name: dataclasses.replace(examples, classes=classes, taxonomy=train.taxonomy)
        for name, examples in splits.items()
    }


def taxonomy_of(examples: Split) -> taxonomies.Taxonomy:
    """Returns the classes of a source as a taxonomy.

    This is a taxonomy of the zoo if it has the same classes, or if its class ids are
    the names of the classes; else a new taxonomy. Decimal numbers do not count as ids.

    Raises:
      ValueError: the source does not define its classes.
    """
    if not examples.classes:
        raise ValueError(f"{examples.source} does not define its classes.")
    ids = [definition.id for definition in examples.classes]
    for name in taxonomies.names():
        taxonomy = taxonomies.load(name)
        if taxonomy.scores != examples.scores:
            continue
        if taxonomy.classes == examples.classes:
            return taxonomy
        has_ids = [definition.id for definition in taxonomy.classes] == ids
        if has_ids and not all(id_.isdecimal() for id_ in ids):
            return taxonomy
    is_taken = examples.taxonomy in taxonomies.names()
    name = f"{examples.taxonomy}_folder" if is_taken else examples.taxonomy
    return taxonomies.Taxonomy(name, examples.classes, examples.scores)


def describe(examples: Split, taxonomy: taxonomies.Taxonomy) -> list[str]:
    """Describes a split in messages for users: its classes and skipped files."""
    names = [definition.name for definition in taxonomy.classes]
    shown = ", ".join(names[:_SHOWN_CLASSES])
    rest = f", … and {len(names) - _SHOWN_CLASSES} more" * (len(names) > _SHOWN_CLASSES)
    renamed = [definition.id for definition in examples.classes] != [
        definition.name for definition in taxonomy.classes
    ]
    origin = ""
    if not examples.classes:
        origin = f" of {taxonomy.name}, because the labels are only numbers"
    elif renamed:
        origin = f", identified by their {taxonomy.name} ids"
    several = ", any number per image" * (examples.scores == taxonomies.SIGMOID)
    return [f"{len(names)} classes{origin}{several}: {shown}{rest}", *examples.notes]


def _digits(name: str) -> Split:
    """Opens scikit-learn's 1797 handwritten digits of 8 × 8 pixels."""
    try:
        from sklearn import datasets
    except ImportError as missing:
        raise ImportError(f"--data=digits: {missing}: run tools/setup train") from None
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")
    numbers = split.every_fifth(range(len(images)), name)
    return split.pixel_split(
        images[numbers],
        labels[numbers],
        source="digits",
        name=name,
        taxonomy="digits",
    )
