"""CSV files that name images and their classes: splits, labels and errors."""

import csv
import os

import numpy as np
import PIL.Image
import pytest

from training.data import data_sources, file_changes, split

ROWS = [(f"images/{number}.png", "rose" if number % 2 else "tulip")
        for number in range(12)]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(12):
        image = PIL.Image.new("RGB", (8, 8), (number, 0, 0))
        image.save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def write_csv(folder, rows, header=("path", "label"), encoding="utf-8"):
    path = folder / "flowers.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return f"csv:{path}"


def names_and_labels(examples):
    paths, labels = examples.fetch(np.arange(examples.size))
    return [
        (os.path.basename(path).decode(), int(label))
        for path, label in zip(paths, labels, strict=True)
    ]


def test_every_fifth_image_of_a_class_is_to_test_on(folder):
    splits = data_sources.open_splits(write_csv(folder, ROWS))
    assert [c.id for c in splits["train"].classes] == ["rose", "tulip"]
    assert names_and_labels(splits["test"]) == [
        *[("0.png", 1), ("1.png", 0), ("10.png", 1), ("11.png", 0)]
    ]
    all_rows = names_and_labels(splits["train"]) + names_and_labels(splits["test"])
    assert sorted(all_rows) == sorted(
        (os.path.basename(path), int(label == "tulip")) for path, label in ROWS
    )
    assert splits["train"].taxonomy == "flowers"
    assert splits["train"].image_format == split.PATH


def test_a_folder_of_the_same_images_gives_the_same_splits(folder):
    for path, label in ROWS:
        target = folder / "classes" / label / os.path.basename(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / path, target)
    ordered = sorted(ROWS, key=lambda row: (row[1], row[0]))
    table_splits = data_sources.open_splits(write_csv(folder, ordered))
    folder_splits = data_sources.open_splits(str(folder / "classes"))
    assert table_splits["train"].classes == folder_splits["train"].classes
    for name in ("train", "test"):
        assert names_and_labels(table_splits[name]) == names_and_labels(
            folder_splits[name]
        )


def test_a_column_says_what_is_to_test_on(folder):
    rows = [(*row, ("val" if i > 8 else "Training")) for i, row in enumerate(ROWS)]
    splits = data_sources.open_splits(
        write_csv(folder, rows, ("image", "label", "split"))
    )
    assert [name for name, _ in names_and_labels(splits["test"])] == [
        "9.png",
        "10.png",
        "11.png",
    ]
    assert splits["train"].size == 9


def test_without_rows_to_test_on_there_is_no_such_split(folder):
    rows = [(*row, "train") for row in ROWS]
    source = write_csv(folder, rows, ("path", "label", "split"))
    assert list(data_sources.open_splits(source)) == ["train"]
    with pytest.raises(split.NoSplitError, match="no row whose split is test"):
        data_sources.open_split(source, "test")


def test_rows_to_test_on_alone_are_tested_whole(folder):
    rows = [(*row, "test") for row in ROWS]
    source = write_csv(folder, rows, ("path", "label", "split"))
    assert data_sources.open_split(source, "test").size == 12
    with pytest.raises(split.NoSplitError):
        data_sources.open_split(source, "train")


def test_images_need_no_labels_to_be_predicted(folder):
    source = write_csv(folder, [(path,) for path, _ in ROWS], ("image",))
    (examples,) = data_sources.open_images(source)
    assert [os.path.basename(path) for path in examples.paths] == [
        os.path.basename(path) for path, _ in ROWS
    ]
    with pytest.raises(ValueError, match="line 2: none.png is missing, and 1 more"):
        data_sources.open_images(write_csv(folder, [("none.png",)] * 2, ("path",)))
    with pytest.raises(ValueError, match="line 1: the header must have path or image;"):
        data_sources.open_images(write_csv(folder, ROWS, ("file", "label")))
    with pytest.raises(ValueError, match="has no images"):
        data_sources.open_images(write_csv(folder, [], ("path",)))


def test_spreadsheets_and_other_columns_are_taken(folder):
    rows = [(label, "x, y", str(folder / path), "") for path, label in ROWS]
    header = ("Label", "note", " Path ", "")
    source = write_csv(folder, rows, header, encoding="utf-8-sig")
    assert data_sources.open_split(source, "train").size == 8


def test_images_of_several_labels(folder):
    rows = [(f"images/{n}.png", label, "train" if n % 4 else "test")
            for n, label in enumerate(["a", "a|b", " b | c ", "", "c|a|c", "a|b|c"] * 2)
           ]  # fmt: skip
    splits = data_sources.open_splits(
        write_csv(folder, rows, ("path", "label", "split"))
    )
    train = splits["train"]
    assert train.scores == "sigmoid"
    assert [c.name for c in train.classes] == ["a", "b", "c"]
    _, labels = train.fetch(np.arange(train.size))
    assert ["".join("abc"[i] for i in np.flatnonzero(row)) for row in labels] == [
        *("ab", "bc", "", "abc", "a", "ab", "", "ac", "abc")
    ]
    backwards = np.arange(train.size)[::-1]
    np.testing.assert_array_equal(train.fetch(backwards)[1], labels[::-1])
    assert data_sources.taxonomy_of(train).scores == "sigmoid"
    assert (
        "any number per image"
        in data_sources.describe(train, data_sources.taxonomy_of(train))[0]
    )


def test_of_several_labels_the_rarest_decides_on_the_split(folder):
    """All images have `common`; every fifth of each other class is for testing."""
    rows = [(path, f"common|{label}") for path, label in ROWS]
    splits = data_sources.open_splits(write_csv(folder, rows))
    single_label_splits = data_sources.open_splits(write_csv(folder, ROWS))
    for name in ("train", "test"):
        assert splits[name].paths == single_label_splits[name].paths
        assert (splits[name].fetch(np.arange(splits[name].size))[1][:, 0] == 1).all()


def test_changes_are_named(folder):
    source = write_csv(folder, ROWS)
    file_changes.save(folder / "data.npz", data_sources.open_splits(source))
    os.utime(folder / "images" / "3.png", ns=(0, 0))
    difference = file_changes.difference(
        folder / "data.npz", data_sources.open_splits(source)
    )
    assert difference == "1 changed: images/3.png"


def test_labels_that_changed_are_told_where_no_file_did(folder):
    file_changes.save(
        folder / "data.npz", data_sources.open_splits(write_csv(folder, ROWS))
    )
    rows = [*ROWS[:-1], (ROWS[-1][0], "tulip")]
    splits = data_sources.open_splits(write_csv(folder, rows))
    assert "but the labels or the splits differ" in file_changes.explain(
        folder / "data.npz", splits
    )
    os.utime(folder / "images" / "3.png", ns=(0, 0))
    splits = data_sources.open_splits(write_csv(folder, rows))
    assert file_changes.explain(folder / "data.npz", splits).startswith("1 changed")
    digits = data_sources.open_splits("digits")
    file_changes.save(folder / "digits.npz", digits)
    assert file_changes.explain(folder / "digits.npz", digits) == ""


def test_a_class_to_test_on_alone_is_for_models_that_know_it(folder):
    """Such a table is only for evaluation: training on it is refused."""
    rows = [*((*row, "train") for row in ROWS), ("images/2.png", "lily", "test")]
    source = write_csv(folder, rows, ("path", "label", "split"))
    examples = data_sources.open_split(source, "test")
    names = [c.name for c in examples.classes]
    assert names == sorted({*(label for _, label in ROWS), "lily"})
    _, (label,) = examples.fetch(np.array([0]))
    assert names[label] == "lily"
    with pytest.raises(ValueError, match="the train split has no rows of 'lily'"):
        data_sources.open_split(source, "train")


def test_images_in_both_halves_are_told(folder):
    rows = [*((*row, "train") for row in ROWS), (*ROWS[0], "test"), (*ROWS[3], "test")]
    source = write_csv(folder, rows, ("path", "label", "split"))
    (note,) = data_sources.open_split(source, "train").notes
    assert note.startswith("2 images of ")


def test_spaces_around_a_label_are_none_of_it(folder):
    rows = [(path, f" {label}\t") for path, label in ROWS]
    examples = data_sources.open_split(
        write_csv(folder, rows, ("path", "label")), "train"
    )
    assert {c.name for c in examples.classes} == {label for _, label in ROWS}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, ("file", "class"), "line 1: .* path or image, and label; it has"),
        (ROWS, ("path", "class"), "it has path, class"),
        (ROWS, ("path;label", "more"), "must be separated by commas, not ';'"),
        ([*ROWS, ("none.png", "rose")], None, "line 14: none.png is missing\\.$"),
        ([("a", "b"), ("c", "d"), *ROWS], None, "a is missing, and 1 more"),
        ([*ROWS, ("images/1.png", "")], None, "line 14: the label is missing"),
        ([*ROWS, ("", "rose")], None, "line 14: the image path is missing"),
        ([*ROWS, ("images/1.png",)], None, "line 14: it has 1 cells, but the header"),
        ([*ROWS, ("images/1.png", "Rose")], None, "Rose and rose, which differ"),
        ([("images/1.png", "a|")], None, "two or more classes; it has a"),
        (ROWS[:1], None, "two or more classes; it has tulip"),
        ([], None, "it has none"),
        (
            [*((*row, "train") for row in ROWS[:2]), ("images/2.png", "lily", "test")],
            ("path", "label", "split"),
            "line 4: the train split has no rows of 'lily'",
        ),
        (
            [(*ROWS[0], "maybe")],
            ("path", "label", "split"),
            "line 2: split must be train or test, not 'maybe'",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_told_with_its_line(folder, rows, header, message):
    source = write_csv(folder, rows, header or ("path", "label"))
    with pytest.raises(ValueError, match=message) as caught:
        data_sources.open_splits(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cvs:a.csv", "and 'cvs:a.csv' is not a folder. Did you mean 'csv:'?"),
        ("wsd:a.tar", "Did you mean 'wds:'?"),
        ("digit", "Did you mean 'digits'?"),
        ("csv:", "--data=csv: needs a value after the colon."),
        ("nowhere", "csv:FILE, parquet:GLOB, hf:NAME_OR_FOLDER, wds:GLOB"),
    ],
)
def test_a_misspelt_source_is_told_with_what_there_is(source, message):
    with pytest.raises(ValueError, match=".") as caught:
        data_sources.open_split(source, "train")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has nothing"),
        (b"path,label\n\xff\xfe,x\n", "is not UTF-8"),
        (b'path,label\nimages/1.png,"x', "line 2: unexpected end of data"),
        (b"path,label\n" + b"x" * 2_000_000, "field larger"),
        (None, "No such file"),
    ],
)
def test_what_is_no_csv_is_told(folder, data, message):
    path = folder / "bad.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        data_sources.open_split(f"csv:{path}", "train")
