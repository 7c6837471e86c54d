"""WebDataset shards: reading and checking examples in tar files."""

import io
import os
import tarfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests.training.data import pipeline_test
from training.data import data_sources, split


def write(path, examples, *, kind="png", other_files=()):
    """Writes a shard of examples, given as name → label, and returns its path."""
    with tarfile.open(path, "w") as archive:

        def add(name, data):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for number, (name, label) in enumerate(examples.items()):
            stream = io.BytesIO()
            PIL.Image.new("RGB", (8, 8), (number, label, 0)).save(stream, kind)
            add(f"{name}.{kind}", stream.getvalue())
            add(f"{name}.cls", str(label).encode())
        for name in other_files:
            add(name, b"{}")
    return path


def labels_of(examples):
    return examples.fetch(np.arange(examples.size))[1].tolist()


def test_examples_are_read_by_number(tmp_path):
    write(tmp_path / "train-0.tar", {"a/0": 3, "a/1": 1})
    write(tmp_path / "train-1.tar", {"a/0": 2}, kind="webp")
    write(tmp_path / "val-0.tar", {"x": 0, "y": 1})
    train, test = data_sources.open_splits(f"wds:{tmp_path}/*.tar").values()
    assert labels_of(train) == [3, 1, 2]
    assert labels_of(test) == [0, 1]
    assert train.image_format == split.ENCODED
    (image,), _ = train.fetch(np.array([1]))
    assert tf.io.decode_png(image)[0, 0].numpy().tolist() == [1, 1, 0]
    assert train.describe(0).endswith("train-0.tar at byte 512")


@pytest.mark.ci
def test_batches_are_full_and_the_same_from_a_later_step(tmp_path):
    write(tmp_path / "all.tar", {f"{n:02d}": n % 2 for n in range(20)})
    examples = data_sources.open_split(f"wds:{tmp_path}/all.tar", "train")
    assert examples.size == 16
    stream = pipeline_test.stream_of(examples, num_classes=2)
    all_batches = pipeline_test.batches(stream, 0, 8)
    assert [len(images) for images, _ in all_batches] == [4] * 8
    later_batches = pipeline_test.batches(stream, 5, 8)
    for (images, labels), (later_images, later_labels) in zip(
        all_batches[5:], later_batches, strict=True
    ):
        np.testing.assert_array_equal(images, later_images)
        np.testing.assert_array_equal(labels, later_labels)


def test_what_is_no_example_is_counted(tmp_path):
    other_files = ("0.json", "note.txt", "0.left.png", "0.left.cls", "lonely.png")
    write(
        tmp_path / "a.tar", {str(n): n % 2 for n in range(5)}, other_files=other_files
    )
    examples = data_sources.open_split(f"wds:{tmp_path}/a.tar", "train")
    assert examples.size == 4
    assert examples.notes == ("files left out: 5 not part of an example",)


def test_images_need_no_classes_to_be_predicted(tmp_path):
    write(tmp_path / "train-0.tar", {"a/0": 3})
    write(tmp_path / "val-0.tar", {"x": 0}, other_files=["b/1.png", "x.json"])
    (examples,) = data_sources.open_images(f"wds:{tmp_path}/*.tar")
    assert examples.size == 3
    assert examples.notes == ("files left out: 1 not part of an example",)
    assert examples.fetch(np.array([2]))[0].tolist() == [b"{}"]


def test_classes_are_numbered(tmp_path):
    write(tmp_path / "train.tar", {"a": 0, "b": 2})
    write(tmp_path / "test.tar", {"a": 1})
    splits = data_sources.name_classes(
        data_sources.open_splits(f"wds:{tmp_path}/*.tar")
    )
    assert [c.name for c in splits["test"].classes] == ["class 0", "class 1", "class 2"]
    assert labels_of(splits["train"]) == [0, 2]


def test_a_change_is_another_data_set(tmp_path):
    path = write(tmp_path / "a.tar", {"a": 0, "b": 1})
    source = f"wds:{path}"
    before = data_sources.open_split(source, "train").fingerprint
    assert data_sources.open_split(source, "train").fingerprint == before
    os.utime(path, ns=(0, 0))
    assert data_sources.open_split(source, "train").fingerprint != before


def test_a_shard_that_is_no_longer_there_is_unreadable(tmp_path):
    path = write(tmp_path / "a.tar", {"a": 0, "b": 1, "c": 0})
    examples = data_sources.open_split(f"wds:{path}", "train")
    path.unlink()
    images, _ = examples.fetch(np.arange(examples.size))
    assert images.tolist() == [b"", b""]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda whole: whole[:2600], "is cut off, compressed, or not"),
        (lambda whole: whole[:4096], "is cut off, compressed, or not"),
        (lambda whole: b"nonsense" * 100, "is cut off, compressed, or not a tar file"),
        (lambda whole: __import__("gzip").compress(whole), "compressed"),
        (lambda whole: whole.replace(b"1".ljust(512, b"\0"), b"x".ljust(512, b"\0")),
         "b.cls must contain a class number, not b'x'"),
        (lambda whole: b"", "is cut off, compressed, or not a tar file"),
    ],
)  # fmt: skip
def test_what_is_no_shard_is_told(tmp_path, data, message):
    path = write(tmp_path / "a.tar", {"a": 0, "b": 1})
    path.write_bytes(data(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data_sources.open_split(f"wds:{path}", "train")
    assert "\n" not in str(caught.value)


def test_a_shard_without_examples_is_told(tmp_path):
    write(tmp_path / "a.tar", {}, other_files=("a.txt",))
    with pytest.raises(
        ValueError, match="has no examples: each must be an image and a .cls file"
    ):
        data_sources.open_split(f"wds:{tmp_path}/a.tar", "train")
    with pytest.raises(ValueError, match="no file matches"):
        data_sources.open_split(f"wds:{tmp_path}/b.tar", "train")
