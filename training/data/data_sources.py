"""What `--data` names: a folder of classes, TFRecords, or a known set of images."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

from common import messages
from training.data import (
    csv_table,
    folders,
    hugging_face,
    idx,
    split,
    tfds,
    tfrecords,
    webdataset,
)
from training.data.split import Split
from zoo import taxonomy as taxonomies

_SHOWN_CLASSES = 20
FORMS = (
    *("DIRECTORY", "csv:FILE", "parquet:GLOB", "hf:NAME_OR_FOLDER", "wds:GLOB"),
    *("tfrecord:GLOB", "tfds:NAME", "digits", "fashion_mnist:DIRECTORY"),
)
_KINDS = tuple(form.partition(":")[0] for form in FORMS if ":" in form)


def open_split(
    source: str, name: str, features: tfrecords.Features = tfrecords.IMAGENET
) -> Split:
    """Opens one split of a source.

    Args:
      source: one of `FORMS`. A directory has a folder for each class, or such folders
        below `train` and one of `test`, `validation`, `val`. Of TFRecord files, Parquet
        files and WebDataset shards, those whose names begin with `train` are for
        training, and those that begin with `validation`, `val` or `test` for testing.
        A CSV file may have a column `split`. Where a source has no such halves, every
        fifth example is for testing, and never trained on.
      name: `train` or `test`.
      features: what the fields of TFRecord examples are called.

    Raises:
      NoSplitError: the source has no such half.
      ValueError: there is nothing that can be read; the message is one line.
      ImportError: a package is missing.
    """
    return _opener(source, features)(name)


def open_splits(
    source: str,
    features: tfrecords.Features = tfrecords.IMAGENET,
    *,
    names: Sequence[str] = (split.TRAIN,),
) -> dict[str, Split]:
    """The splits of a source by their names, as far as there are such.

    Args:
      source: see `open_split`.
      features: likewise.
      names: of those that have to be there.

    Raises:
      NoSplitError: one of them is not.
      ValueError: as `open_split`.
      ImportError: likewise.
    """
    open_one = _opener(source, features)
    found = {name: open_one(name) for name in names}
    for name in {split.TRAIN, split.TEST} - found.keys():
        with contextlib.suppress(split.NoSplitError):
            found[name] = open_one(name)
    return found


def open_images(
    source: str, features: tfrecords.Features = tfrecords.IMAGENET
) -> list[Split]:
    """All images of a table, of shards or of a data set; they need no labels.

    Raises:
      ValueError: there is nothing that can be read; the message is one line.
      ImportError: a package is missing.
    """
    kind, _, rest = source.partition(":")
    if not rest:
        raise ValueError(f"{source} names nothing after the colon.")
    if kind == "csv":
        return [csv_table.open_images(rest, source)]
    if kind in ("parquet", "hf"):
        return hugging_face.open_images(kind, rest, source)
    if kind == "wds":
        return [webdataset.open_images(rest, source)]
    if kind == "tfrecord":
        return [tfrecords.open_images(rest, source, features=features)]
    return list(open_splits(source, features).values())


def _opener(source: str, features: tfrecords.Features) -> Callable[[str], Split]:
    """What opens a source's splits by name; it may remember what both need."""
    if not source:
        raise ValueError(f"--data is missing: one of {', '.join(FORMS)}.")
    kind, colon, rest = source.partition(":")
    if colon and kind in _KINDS:
        if not rest:
            raise ValueError(f"--data={source} names nothing after the colon.")
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
        known = _KINDS if colon else ("digits", *_KINDS)
        raise ValueError(
            f"--data must be one of {', '.join(FORMS)}, and {source!r} is no folder."
            f"{messages.did_you_mean(kind, [f'{k}:' if colon else k for k in known])}"
        )
    return folders.opener(source, source)


def named(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The same splits with classes, where these are numbers alone.

    There is one more than the largest label to train on. A class is called as its
    first example says, or by its number.

    Raises:
      ValueError: labels are negative, or two classes share a name.
    """
    train = splits[split.TRAIN]
    if train.classes:
        return dict(splits)
    labels = train.all_labels()
    if labels.min() < 0:
        raise ValueError(
            f"{train.source} has labels below the first class: {train.label_hint}."
        )
    names = train.class_names()
    texts = [names.get(n, f"class {n}") for n in range(int(labels.max()) + 1)]
    for text, count in collections.Counter(texts).items():
        if count > 1:
            raise ValueError(f"{train.source}: {count} classes are called {text!r}.")
    classes = tuple(taxonomies.ClassDefinition(id=t, name=t) for t in texts)
    return {
        name: dataclasses.replace(half, classes=classes, taxonomy=train.taxonomy)
        for name, half in splits.items()
    }


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
        if known.scores != examples.scores:
            continue
        if known.classes == examples.classes:
            return known
        has_ids = [definition.id for definition in known.classes] == ids
        if has_ids and not all(id_.isdecimal() for id_ in ids):
            return known
    is_taken = examples.taxonomy in taxonomies.names()
    name = f"{examples.taxonomy}_folder" if is_taken else examples.taxonomy
    return taxonomies.Taxonomy(name, examples.classes, examples.scores)


def describe(examples: Split, taxonomy: taxonomies.Taxonomy) -> list[str]:
    """Lines on a split for users: its classes, and what was left out of it."""
    names = [definition.name for definition in taxonomy.classes]
    some = ", ".join(names[:_SHOWN_CLASSES])
    rest = f", … and {len(names) - _SHOWN_CLASSES} more" * (len(names) > _SHOWN_CLASSES)
    renamed = [definition.id for definition in examples.classes] != [
        definition.name for definition in taxonomy.classes
    ]
    known = f" by the ids of {taxonomy.name}" if renamed and examples.classes else ""
    if not examples.classes:
        known = f" of {taxonomy.name}, since the images have numbers alone"
    several = ", any number an image" * (examples.scores == taxonomies.SIGMOID)
    return [f"{len(names)} classes{known}{several}: {some}{rest}", *examples.notes]


def _digits(name: str) -> Split:
    """1797 handwritten digits of 8 × 8 pixels, which scikit-learn brings along."""
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
