"""Opens data sets of TensorFlow Datasets, which are stored as TFRecord files."""

from __future__ import annotations

import contextlib
import sys

import numpy as np

from training.data import split, tfrecords
from zoo import taxonomy as taxonomies

_FEATURES = tfrecords.Features(image="image", label="label", first_label=0)
_TESTS = ("test", "validation")


def open_split(name: str, split_name: str, source: str) -> split.Split:
    """Opens a split of the data set `name`, downloading and preparing it if necessary.

    The test split is the data set's `test`, or `validation` if `test` is missing or has
    no labels.

    Raises:
      NoSplitError: the data set does not have this split with labels.
      ValueError: there is no such data set, or it does not contain labelled images.
      ImportError: a package is missing.
    """
    try:
        import tensorflow_datasets as datasets
    except ImportError as missing:
        raise ImportError(f"--data=tfds: {missing}: run tools/setup train") from None
    try:
        builder = datasets.builder(name)
        if not builder.data_path.exists():
            with contextlib.redirect_stdout(sys.stderr):  # progress output
                builder.download_and_prepare(file_format="tfrecord")
        features, splits = builder.info.features, builder.info.splits
        if not {"image", "label"} <= set(features or {}):
            raise ValueError("its examples do not have both image and label")
        tests = [t for t in _TESTS if t in splits]
        keys = tests if tests and split_name == split.TEST else [split.TRAIN]
        if builder.info.file_format.value != "tfrecord":
            raise ValueError(
                f"its file format is {builder.info.file_format.value}, must be tfrecord"
            )
        files = {key: [str(p) for p in splits[key].filepaths] for key in keys}
    except Exception as error:
        raise ValueError(
            f"--data: TensorFlow Datasets can't give {name!r}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    classes = tuple(
        taxonomies.ClassDefinition(id=c, name=c) for c in features["label"].names
    )
    for key in keys:
        opened = tfrecords.index(
            files[key],
            split_name,
            source,
            features=_FEATURES,
            classes=classes,
            taxonomy=builder.info.name,
            is_whole=not tests,
        )
        if opened.fetch(np.array([0]))[1][0] >= 0:
            return opened
    raise split.NoSplitError(f"--data: {name!r} has no {split_name} split with labels.")
