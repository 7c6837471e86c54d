"""Tables of a classifier's predictions for each image."""

import numpy as np
import pandas
import pytest

from training import predictions
from training.data import split
from zoo import taxonomy as taxonomies

NAMES = ('a "b"', "c\nd", "e,f", "日本", "g", "h", "i")
CLASSES = tuple(
    taxonomies.ClassDefinition(id=f"id{i}", name=name) for i, name in enumerate(NAMES)
)
READ = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}


def make_split(size, scores="softmax"):
    images = np.zeros((size, 4, 4), np.uint8)
    return split.PixelSplit(
        source="dots",
        name="test",
        size=size,
        scores=scores,
        fingerprint="",
        images=images,
        labels=np.zeros(size, int),
    )


def write_table(path, examples, *batches):
    with predictions.Writer(path, examples, CLASSES) as writer:
        for logits, labels in batches:
            writer.add(logits, labels)
    return READ[path.suffix](path)


@pytest.mark.parametrize("suffix", predictions.SUFFIXES)
def test_each_image_has_a_row_for_each_of_five_classes(tmp_path, suffix):
    random = np.random.default_rng(0)
    logits = random.normal(size=(6, 7))
    labels = np.eye(7)[[0, 1, 2, 3, 4, 5]]
    labels[2] = np.nan  # an unreadable image
    labels[5] = np.nan  # padding of the last batch
    batches = [(logits[:3], labels[:3]), (logits[3:], labels[3:])]
    table = write_table(tmp_path / f"a{suffix}", make_split(5), *batches)
    assert table.columns.tolist() == list(predictions.COLUMNS)
    assert len(table) == 4 * 5 + 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for number in (0, 1, 3, 4):
        rows = table[table.image == f"test example {number} of dots"]
        best = np.argsort(-logits[number])[:5]
        assert rows["index"].tolist() == best.tolist()
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5]
        assert rows["label"].tolist() == [f"id{number}"] * 5
        assert rows["id"].tolist() == [f"id{i}" for i in best]
        assert rows["name"].tolist() == [NAMES[i] for i in best]
        np.testing.assert_allclose(rows["score"], logits[number, best], rtol=1e-6)
        np.testing.assert_allclose(
            rows["probability"], probabilities[number, best], rtol=1e-6
        )
    (unreadable_row,) = table[table.image == "test example 2 of dots"].values.tolist()
    assert all(pandas.isna(value) for value in unreadable_row[1:])


def test_several_labels_are_side_by_side_and_probabilities_are_sigmoids(tmp_path):
    logits = np.zeros((2, 7))
    labels = np.array([[1, 0, 1, 0, 0, 0, 0], [0] * 7])
    examples = make_split(2, "sigmoid")
    table = write_table(
        tmp_path / "a.parquet", examples, (logits, labels.astype(float))
    )
    assert table["label"].tolist() == ["id0|id2"] * 5 + [""] * 5
    assert table["probability"].tolist() == [0.5] * 10


@pytest.mark.parametrize("suffix", predictions.SUFFIXES)
def test_what_fails_leaves_the_file_as_it_was(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"before")
    with (
        pytest.raises(IndexError),
        predictions.Writer(path, make_split(2), CLASSES) as writer,
    ):
        writer.add(np.zeros((2, 7)), np.eye(7)[:1])  # only one label
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    writer = predictions.Writer(tmp_path / "a.csv", make_split(1), CLASSES)
    writer.__enter__()
    writer._table._file = open("/dev/full", "w")  # noqa: SIM115 - the writer closes it
    writer._table._file.write("x")
    with pytest.raises(OSError, match=f"Can't write {tmp_path}/a.csv: No space left"):
        writer.__exit__(None)
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with (
        pytest.raises(ImportError, match="run tools/setup datasets"),
        predictions.Writer(tmp_path / "a.parquet", make_split(1), CLASSES),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_more_rows_than_a_group_has(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "_ROW_GROUP", 7)
    batches = [(np.zeros((4, 7)), np.eye(7)[:4])] * 3
    assert len(write_table(tmp_path / "a.parquet", make_split(12), *batches)) == 60
