"""Data sources that --data names: splits, classes and one-line errors."""

import csv
import gzip
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from training.data import data_sources, split, tfrecords
from zoo import taxonomy as taxonomies

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def image_file(path, color, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (side, side), color).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "flowers"
    for label, name in enumerate(("daisy", "rose")):
        for number in range(10):
            image_file(root / name / f"{number}.png", (label * 200, number, 0))
    return root


def write_idx(path, values):
    head = struct.pack(">HBB", 0, 8, values.ndim)
    head += struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture
def fashion(tmp_path):
    random = np.random.default_rng(0)
    for name, number in (("train", 20), ("t10k", 6)):
        images = random.integers(0, 256, (number, 28, 28), np.uint8)
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        labels = random.integers(0, 10, number, np.uint8)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def write_records(path, labels, side=12):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in labels:
            pixels = np.full((side, side, 3), label, np.uint8)
            example = tf.train.Example()
            feature = example.features.feature
            encoded = tf.io.encode_jpeg(pixels).numpy()
            feature["image/encoded"].bytes_list.value.append(encoded)
            feature["image/class/label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())


def labels_of(examples):
    return examples.fetch(np.arange(examples.size))[1].tolist()


def image_of(examples, number):
    (image,), _ = examples.fetch(np.array([number]))
    return image


def paths_of(examples):
    assert examples.image_format == split.PATH
    return examples.paths


def test_every_fifth_digit_is_for_testing():
    train, test = (
        data_sources.open_split("digits", name) for name in ("train", "test")
    )
    assert (train.size, test.size) == (1437, 360)
    assert train.taxonomy == "digits"
    (image,), (label,) = test.fetch(np.array([1]))
    assert image.shape == (8, 8, 3)
    assert label == 5  # the sixth of all digits
    assert train.fingerprint != test.fingerprint


def test_fashion_mnist_has_its_own_splits(fashion):
    train, test = (
        data_sources.open_split(f"fashion_mnist:{fashion}", n)
        for n in ("train", "test")
    )
    assert (train.size, test.size) == (20, 6)
    assert [c.name for c in train.classes][:2] == ["T-shirt/top", "trouser"]


def test_a_folder_of_classes(folder):
    train, test = (
        data_sources.open_split(str(folder), name) for name in ("train", "test")
    )
    assert (train.size, test.size) == (16, 4)
    assert [c.id for c in train.classes] == ["daisy", "rose"]
    assert labels_of(test) == test.labels.tolist() == [0, 0, 1, 1]
    assert not set(paths_of(train)) & set(paths_of(test))
    assert train.taxonomy == "flowers"
    pixels = tf.io.decode_png(tf.io.read_file(image_of(train, 8)))
    assert pixels[0, 0].numpy().tolist() == [200, 1, 0]


def test_a_class_that_training_has_not_is_told(folder, tmp_path):
    root = tmp_path / "splits"
    for split_name in ("train", "test"):
        shutil.copytree(folder, root / split_name)
    assert data_sources.open_split(str(root), "test").size == 20
    shutil.copytree(folder / "rose", root / "test" / "tulip")
    assert data_sources.open_split(str(root), "train").size == 20
    with pytest.raises(
        ValueError, match="test/tulip has no matching class folder in .*train"
    ):
        data_sources.open_split(str(root), "test")


def test_of_one_image_of_a_class_is_learnt(folder):
    image_file(folder / "tulip" / "only.png", "yellow")
    train, test = (
        data_sources.open_split(str(folder), name) for name in ("train", "test")
    )
    assert labels_of(train).count(2) == 1
    assert 2 not in labels_of(test)


def test_what_is_hidden_or_no_file_is_no_image(folder):
    before = paths_of(data_sources.open_split(str(folder), "train"))
    image_file(folder / "rose" / "._0.png", "red")
    (folder / "rose" / "folder.png").mkdir()
    (folder / "rose" / "dangling.png").symlink_to(folder / "nowhere.png")
    assert paths_of(data_sources.open_split(str(folder), "train")) == before


def test_names_need_not_be_utf_8(folder):
    source = next((folder / "rose").iterdir())
    os.rename(source, os.fsencode(folder) + b"/rose/caf\xe9.png")
    examples = data_sources.open_split(str(folder), "train")
    (number,) = (n for n, path in enumerate(paths_of(examples)) if "caf" in path)
    assert tf.io.decode_png(tf.io.read_file(image_of(examples, number))).shape[-1] == 3
    examples.describe(number).encode()


def test_a_folder_with_splits(folder, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    folder.rename(root / "train")
    image_file(root / "val" / "daisy" / "x.png", "white")
    image_file(root / "val" / "rose" / "x.png", "white")
    train, test = (
        data_sources.open_split(str(root), name) for name in ("train", "test")
    )
    assert (train.size, test.size) == (20, 2)


def test_records_are_read_by_number(tmp_path):
    write_records(tmp_path / "train-0.tfrecord", [1, 2, 3])
    write_records(tmp_path / "train-1.tfrecord", [4])
    write_records(tmp_path / "validation-0.tfrecord", [7, 8])
    source = f"tfrecord:{tmp_path}/*.tfrecord"
    train, test = (data_sources.open_split(source, name) for name in ("train", "test"))
    assert labels_of(train) == [0, 1, 2, 3]  # ImageNet's labels count from 1
    assert labels_of(test) == [6, 7]
    assert tf.io.decode_jpeg(image_of(train, 3))[0, 0, 0] == 4
    features = tfrecords.Features(first_label=0)
    assert labels_of(data_sources.open_split(source, "test", features)) == [7, 8]


def test_more_files_than_may_be_open_at_once(tmp_path):
    for number in range(40):
        write_records(tmp_path / f"train-{number}", [1 + number % 10])
    examples = data_sources.open_split(f"tfrecord:{tmp_path}/*", "train")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        assert sorted(labels_of(examples)) == sorted(list(range(10)) * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_other_fields_are_named_and_bound(tmp_path):
    write_records(tmp_path / "train-0", [1])
    source = f"tfrecord:{tmp_path}/*"
    features = tfrecords.features_from_bindings(
        ["tfrecord.label='y'", "tfrecord.first_label=0"]
    )
    assert features == tfrecords.Features(label="y", first_label=0)
    with pytest.raises(
        ValueError, match="has no field 'y'; its fields are image/class/label, "
    ):
        data_sources.open_split(source, "train", features)
    for binding in ("label='y'", "tfrecord.mark=1", "tfrecord.label=y", "tfrecord"):
        with pytest.raises(ValueError, match="must"):
            tfrecords.features_from_bindings([binding])


def test_records_of_other_names_are_halved(tmp_path):
    write_records(tmp_path / "a.tfrecord", range(1, 11))
    source = f"tfrecord:{tmp_path}/a.tfrecord"
    assert labels_of(data_sources.open_split(source, "test")) == [0, 5]
    assert data_sources.open_split(source, "train").size == 8


TFDS = """
import numpy as np
import tensorflow_datasets as tfds
from training.data import data_sources as sources

class Shapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(8, 8, 3))
        label = tfds.features.ClassLabel(names=["round", "square"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        numbers = {"train": 6, "validation": 3}
        return {name: self._generate_examples(n) for name, n in numbers.items()}

    def _generate_examples(self, number):
        for i in range(number):
            yield i, {"image": np.full((8, 8, 3), i, np.uint8), "label": i % 2}

opened = sources.open_split("tfds:shapes", "test")
assert opened.size == 3
assert sorted(opened.fetch(np.arange(3))[1]) == [0, 0, 1]
assert [c.id for c in opened.classes] == ["round", "square"]
assert sources.open_split("tfds:shapes", "train").size == 6
try:
    sources.open_split("tfds:no_such_set", "train")
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_set_of_tensorflow_datasets(tmp_path):
    """The set's own builder prepares it at the first use."""
    done = subprocess.run(
        [sys.executable, "-c", TFDS],
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "--data: TensorFlow Datasets can't give 'no_such_set'" in done.stdout


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "--data is missing"),
        ("digit", "Did you mean 'digits'?"),
        ("{tmp}/nothing", "is not a folder"),
        ("{tmp}/empty", "two or more classes; it has none"),
        ("{tmp}/one", "two or more classes; it has a"),
        ("{tmp}/hollow", "b has no images"),
        ("{tmp}/untested", "none called test, testing, validation"),
        ("fashion_mnist:{tmp}/empty", "t10k-images-idx3-ubyte.gz"),
        ("fashion_mnist:{tmp}/damaged", "is not a complete IDX file"),
        ("fashion_mnist:{tmp}/garbled", "is not a complete IDX file"),
        ("tfrecord:{tmp}/*.none", "no file matches"),
        ("tfrecord:{tmp}/cut.tfrecord", "is cut off in record 2"),
        ("tfrecord:{tmp}/headless.tfrecord", "is cut off in record 2"),
        ("tfrecord:{tmp}/train-only", "there is no test split"),
    ],
)
def test_what_can_not_be_read_is_told_in_a_line(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    image_file(tmp_path / "one" / "a" / "x.png", "red")
    image_file(tmp_path / "hollow" / "a" / "x.png", "red")
    (tmp_path / "hollow" / "b").mkdir()
    image_file(tmp_path / "untested" / "train" / "a" / "x.png", "red")
    image_file(tmp_path / "untested" / "train" / "b" / "x.png", "red")
    (tmp_path / "garbled").mkdir()
    for name in ("images-idx3", "labels-idx1"):
        data = bytearray(gzip.compress(bytes(1000)))
        data[12:20] = b"garbled!"
        (tmp_path / "garbled" / f"t10k-{name}-ubyte.gz").write_bytes(data)
    (tmp_path / "damaged").mkdir()
    for name in ("images-idx3", "labels-idx1"):
        file = tmp_path / "damaged" / f"t10k-{name}-ubyte.gz"
        file.write_bytes(gzip.compress(b"\0\0\x08\x03"))
    write_records(tmp_path / "cut.tfrecord", [1, 2])
    records = (tmp_path / "cut.tfrecord").read_bytes()
    (tmp_path / "cut.tfrecord").write_bytes(records[:-7])
    first_size = 8 + 4 + int.from_bytes(records[:8], "little") + 4
    (tmp_path / "headless.tfrecord").write_bytes(records[: first_size + 5])
    write_records(tmp_path / "train-only", [1])
    with pytest.raises(ValueError, match=".") as caught:
        data_sources.open_split(source.format(tmp=tmp_path), split.TEST)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_that_take_a_taxonomy_s_names_are_told(tmp_path):
    write_records(tmp_path / "train-0", [1, 2])
    examples = data_sources.open_split(f"tfrecord:{tmp_path}/*", "train")
    line, *_ = data_sources.describe(examples, taxonomies.load("cifar10"))
    assert line.startswith("10 classes of cifar10, because the labels are only numbers")


def write_csv(path, rows, header=("path", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return f"csv:{path}"


def keys_of(examples):
    return [examples.key(number) for number in range(examples.size)]


def test_all_images_of_classes_have_labels(folder):
    examples = data_sources.open_all(str(folder))
    assert (examples.size, examples.has_labels) == (20, True)
    assert examples.labels_of(np.arange(20)).tolist() == [0] * 10 + [1] * 10
    assert keys_of(examples)[:2] == ["daisy/0.png", "daisy/1.png"]


def test_all_images_of_two_splits(folder, tmp_path):
    for name in ("train", "test"):
        shutil.copytree(folder, tmp_path / "both" / name)
    examples = data_sources.open_all(str(tmp_path / "both"))
    assert (examples.size, examples.has_labels) == (40, True)
    train, test = (
        data_sources.open_split(str(tmp_path / "both"), name).paths
        for name in ("train", "test")
    )
    assert examples.paths == train + test


def test_an_image_outside_the_classes_leaves_all_without_labels(folder):
    image_file(folder / "outside.png", "red")
    examples = data_sources.open_all(str(folder))
    assert (examples.size, examples.has_labels) == (21, False)
    note = "no labels: only 20 of the 21 images have one"
    assert examples.notes[-1] == note
    (folder / "notes.txt").touch()
    assert data_sources.open_all(str(folder)).notes == (
        "files left out: 1 .txt",
        note,
    )


def test_images_without_classes_are_all_opened(tmp_path):
    image_file(tmp_path / "a.png", "red")
    examples = data_sources.open_all(str(tmp_path))
    assert (examples.size, examples.has_labels) == (1, False)
    (note,) = examples.notes
    assert note.startswith("no labels: ")
    assert "two or more classes" in note
    source = write_csv(tmp_path / "images.csv", [["a.png"]], header=["path"])
    examples = data_sources.open_all(source)
    assert (examples.size, examples.has_labels) == (1, False)
    assert "the header must have path or image, and label" in examples.notes[0]


def test_what_always_has_labels_is_opened_or_refused(folder):
    assert data_sources.open_all("digits").has_labels
    assert data_sources.open_all("digits").size == 1797
    for source, message in (
        (f"{folder}/none", "is not a folder"),
        ("csv:", "needs a value"),
        ("", "--data is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            data_sources.open_all(source)


def test_all_records_with_bound_fields(tmp_path):
    write_records(tmp_path / "data-0", [0, 1])
    source = f"tfrecord:{tmp_path}/*"
    features = tfrecords.Features(first_label=0)
    examples = data_sources.open_all(source, features)
    assert examples.has_labels
    assert labels_of(examples) == [1, 0]  # the train split is first
    splits = data_sources.open_splits(source, names=())
    assert list(splits) == [split.TRAIN, split.TEST]
    unlabelled = data_sources.open_all(source, tfrecords.Features(label="none"))
    assert (unlabelled.size, unlabelled.has_labels) == (2, False)
    (images,) = data_sources.open_images(source)
    assert not images.has_labels
    with pytest.raises(ValueError, match="no field 'none'"):
        data_sources.open_all(source, tfrecords.Features(image="none"))


def test_a_table_means_the_same_from_every_folder(folder, tmp_path, monkeypatch):
    outside = tmp_path / "outside.png"
    image_file(outside, "red")
    rows = [[f"{c}/{n}.png", c] for c in ("daisy", "rose") for n in range(3)]
    rows += [["../outside.png", "rose"], [str(outside), "rose"]]
    rows += [[f"{folder}//daisy/9.png", "daisy"]]
    table = write_csv(folder / "data.csv", rows)
    absolute = data_sources.open_all(table)
    for place, source in ((tmp_path, "csv:flowers/data.csv"), (folder, "csv:data.csv")):
        monkeypatch.chdir(place)
        examples = data_sources.open_all(source)
        assert examples.fingerprint == absolute.fingerprint
        assert keys_of(examples) == keys_of(absolute)
        assert [
            os.path.samefile(a, b)
            for a, b in zip(examples.paths, absolute.paths, strict=True)
        ] == [True] * len(rows)
        assert data_sources.absolute(source) == table
    assert set(keys_of(absolute)) == {path for path, _ in rows}
    (images,) = data_sources.open_images(table)
    assert keys_of(images) == [path for path, _ in rows]
    assert not images.has_labels


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("flowers", "{tmp}/flowers"),
        ("list:a.txt", "list:{tmp}/a.txt"),
        ("csv:/x/a.csv", "csv:/x/a.csv"),
        ("tfrecord:a/*", "tfrecord:{tmp}/a/*"),
        ("parquet:s3://b/*", "parquet:s3://b/*"),
        ("hf:flowers", "hf:{tmp}/flowers"),
        ("hf:user/name", "hf:user/name"),
        ("tfds:flowers", "tfds:flowers"),
        ("digits", "digits"),
        ("wds:", "wds:"),
        ("nowhere", "nowhere"),
        ("other:x", "other:x"),
    ],
)
def test_paths_are_made_absolute(folder, tmp_path, monkeypatch, source, expected):
    monkeypatch.chdir(tmp_path)
    assert data_sources.absolute(source) == expected.format(tmp=tmp_path)
