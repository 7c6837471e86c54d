"""The same file gives the same tensor in training, evaluation, prediction and exports.

| kind of file | train | evaluate, retrain | TFRecords | predict | `image_bytes` |
|---|---|---|---|---|---|
| each of `kinds.every_kind()` | yes | yes | yes | yes | yes, or refused |
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from images import model_input, reader
from tests.images import kinds
from training.data import augmentation, data_sources, pipeline, reading, tfrecords

KINDS = kinds.every_kind()
NAMES = sorted(KINDS)
PREPROCESSING = model_input.Preprocessing(
    height=24, width=24, crop_fraction=0.875, interpolation="bicubic"
)


@pytest.fixture(scope="module")
def expected():
    """Returns the expected tensor of each kind of file, by name."""
    return {
        name: PREPROCESSING.from_pixels(tf.constant(kind.pixels)).numpy()
        for name, kind in KINDS.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder of all files in two classes, each named .jpg, whatever it is."""
    root = tmp_path_factory.mktemp("kinds")
    for number, name in enumerate(NAMES):
        path = root / "train" / f"class_{number % 2}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(KINDS[name].data)
    (root / "test").symlink_to(root / "train")
    return root


def assert_equal(images, expected, names=NAMES):
    """Asserts that images are equal, but for one 8-bit step where alpha is rounded."""
    unequal = []
    for name, image in zip(names, images, strict=True):
        tolerance = 1.01 / 255 if "alpha" in name else 0
        if np.abs(image - expected[name]).max() > tolerance:
            unequal.append(name)
    assert not unequal


def stream_of(split, size=24):
    return pipeline.Stream(
        split=split,
        num_classes=2,
        preprocessing=dataclasses.replace(PREPROCESSING, height=size, width=size),
        batch_size=split.size,
        unreadable_images=pipeline.UnreadableImages(split, num_classes=2, limit=0.0),
    )


def in_order(split):
    """Returns the names of a split's files, in the order of the split."""
    paths, _ = split.fetch(np.arange(split.size))
    return [NAMES[int(path[-8:-4])] for path in paths]


@pytest.mark.ci
def test_training(folder, expected):
    split = data_sources.open_split(str(folder), "train")
    stream = stream_of(split)
    plain = augmentation.Augmentation()
    ((images, _),) = stream.training(first=0, last=1, seed=0, augment=plain)
    stream.unreadable_images.check()
    image_bytes = sorted(image.tobytes() for image in images.numpy())
    exact = [name for name in NAMES if "alpha" not in name]
    missing = [n for n in exact if expected[n].tobytes() not in image_bytes]
    assert not missing


@pytest.mark.ci
@pytest.mark.slow_except("500")
@pytest.mark.parametrize("small", [1 << 18, 500])
def test_evaluation_and_retraining(folder, expected, monkeypatch, small):
    """Includes files that are too large to be read as a group."""
    monkeypatch.setattr(reading, "_SMALL_FILE", small)
    split = data_sources.open_split(str(folder), "test")
    stream = stream_of(split)
    ((images, _),) = stream.evaluation()
    stream.unreadable_images.check()
    assert_equal(images.numpy(), expected, in_order(split))


@pytest.mark.slow_except("jpeg turned 6 <")
@pytest.mark.parametrize("other", ["jpeg progressive", "jpeg turned 6 <"])
def test_plain_files_among_themselves_and_with_a_turned_one(tmp_path, other):
    """Groups of one kind are read without branches; the two sizes give two kinds."""
    names = ["jpeg", "jpeg 4:4:4", "jpeg grey", other]
    for number, name in enumerate(names):
        path = tmp_path / "test" / f"class_{number % 2}" / f"{NAMES.index(name):04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(KINDS[name].data)
    (tmp_path / "train").symlink_to(tmp_path / "test")
    split = data_sources.open_split(str(tmp_path), "test")
    for size, kind in ((24, model_input.Kind.LARGE_JPEG), (40, model_input.Kind.JPEG)):
        stream = stream_of(split, size)
        data = KINDS["jpeg"].data
        assert stream.preprocessing.kind(data) == kind
        ((images, _),) = stream.evaluation()
        preprocessing = stream.preprocessing
        expected_images = {
            name: preprocessing.from_pixels(tf.constant(KINDS[name].pixels)).numpy()
            for name in names
        }
        assert_equal(images.numpy(), expected_images, in_order(split))


@pytest.mark.ci
def test_records(tmp_path, expected):
    with tf.io.TFRecordWriter(str(tmp_path / "train-0")) as writer:
        for name in NAMES:
            example = tf.train.Example()
            feature = example.features.feature
            feature["image/encoded"].bytes_list.value.append(KINDS[name].data)
            feature["image/class/label"].int64_list.value.append(1)
            writer.write(example.SerializeToString())
    split = data_sources.open_split(f"tfrecord:{tmp_path}/*", "train")
    assert isinstance(split, tfrecords.TFRecordSplit)
    stream = stream_of(split)
    ((images, _),) = stream.evaluation()
    stream.unreadable_images.check()
    assert_equal(images.numpy(), expected)


def test_prediction(tmp_path, expected):
    read = reader.Reader(PREPROCESSING).read
    images = []
    for name in NAMES:
        path = tmp_path / "image"
        path.write_bytes(KINDS[name].data)
        images.append(read(path))
    assert_equal(images, expected)


def test_exported_models(tmp_path, expected):
    root = tf.Module()
    root.preprocess = PREPROCESSING.named_callable()
    tf.saved_model.save(root, str(tmp_path))
    preprocess = tf.saved_model.load(str(tmp_path)).preprocess
    names = [name for name in NAMES if KINDS[name].in_exports]
    images = preprocess(tf.constant([KINDS[name].data for name in names])).numpy()
    assert images.dtype == np.float32
    assert_equal(images, expected, names)
    for name in set(NAMES) - set(names):
        with pytest.raises(tf.errors.InvalidArgumentError):
            preprocess(tf.constant([KINDS[name].data]))


def test_pixels_that_are_no_file(expected):
    """IDX files and scikit-learn's digits provide pixels."""
    image = tf.constant(kinds.photograph())
    actual = PREPROCESSING.central_crop(image, model_input.Kind.PIXELS).numpy()
    assert np.array_equal(actual, expected["png"])
