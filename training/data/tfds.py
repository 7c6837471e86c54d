"""Sets of TensorFlow Datasets, which are TFRecord files too."""

from __future__ import annotations

import contextlib
import sys

import numpy as np

from training.data import split, tfrecords
from zoo import taxonomy as taxonomies

_FEATURES = tfrecords.Features(image="image", label="label", first_label=0)
_TESTS = ("test", "validation")


def open_split(name: str, half: str, source: str) -> split.Split:
    """A split of the set `name`, which is downloaded and prepared if it is not there.

    `test` is the set's own, or `validation` where it has none, or one without labels.

    Raises:
      ValueError: there is no such set, or it is not one of labelled images.
      ImportError: a package is missing.
    """
    try:
        import tensorflow_datasets as datasets
    except ImportError as missing:
        raise ImportError(f"--data=tfds: {missing}: run tools/setup train") from None
    try:
        builder = datasets.builder(name)
        if not builder.data_path.exists():
            with contextlib.redirect_stdout(sys.stderr):  # where progress belongs
                builder.download_and_prepare(file_format="tfrecord")
        features, splits = builder.info.features, builder.info.splits
        if not {"image", "label"} <= set(features or {}):
            raise ValueError("its examples have no image and label")
        tests = [t for t in _TESTS if t in splits]
        found = tests if tests and half == split.TEST else [split.TRAIN]
        if builder.info.file_format.value != "tfrecord":
            raise ValueError(f"its files are {builder.info.file_format.value}")
        files = {key: [str(p) for p in splits[key].filepaths] for key in found}
    except Exception as error:
        raise ValueError(
            f"--data: TensorFlow Datasets can't give {name!r}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    classes = tuple(
        taxonomies.ClassDefinition(id=c, name=c) for c in features["label"].names
    )
    for key in found:
        opened = tfrecords.index(
            files[key],
            half,
            source,
            features=_FEATURES,
            classes=classes,
            taxonomy=builder.info.name,
            is_whole=not tests,
        )
        if opened.fetch(np.array([0]))[1][0] >= 0:
            return opened
    raise split.NoSplitError(f"--data: {name!r} has no {half} split with labels.")
