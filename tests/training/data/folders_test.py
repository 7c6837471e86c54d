"""Folders of images: which of them are splits, classes or neither."""

import os
import pathlib
import unicodedata

import numpy as np
import PIL.Image
import pytest

from images import listing
from training.data import data_sources, split
from zoo import taxonomy as taxonomies


def fill(root, *names, count=5):
    """Creates folders with `count` images each, and returns `root`."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            PIL.Image.new("RGB", (8, 8)).save(root / name / f"{number}.png")
    return root


def names(root, name="train"):
    return [c.name for c in data_sources.open_split(str(root), name).classes]


def size(root, name):
    return data_sources.open_split(str(root), name).size


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("trainset", "testset"),
        ("seg_train", "seg_test"),
        ("Train Images", "Test Images"),
        ("train2017", "val2017"),
        ("train", "valid"),
        ("train", "dev"),
        ("training", "validation"),
        ("traindata", "testdata"),
        ("flowers_train", "flowers_test"),
    ],
)
def test_splits_under_their_usual_names(tmp_path, train, test):
    fill(tmp_path / train, "daisy", "rose", count=6)
    fill(tmp_path / test, "daisy", "rose", count=2)
    assert names(tmp_path) == ["daisy", "rose"]
    assert (size(tmp_path, "train"), size(tmp_path, "test")) == (12, 4)


def test_a_split_in_a_folder_of_its_own_name(tmp_path):
    """Intel's image classification data is like this; its seg_pred has no classes."""
    for part in ("train", "test"):
        fill(tmp_path / f"seg_{part}" / f"seg_{part}", "sea", "street", count=3)
    fill(tmp_path, "seg_pred/seg_pred")
    examples = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in examples.classes] == ["sea", "street"]
    assert examples.size == 6
    assert "folders left out: seg_pred" in examples.notes


def test_test_is_preferred_to_validation(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        fill(tmp_path / part, "a", "b", count=count)
    assert size(tmp_path, "test") == 6


def test_a_split_that_is_not_used_is_told(tmp_path):
    for part in ("train", "val", "test"):
        fill(tmp_path / part, "a", "b")
    examples = data_sources.open_split(str(tmp_path), "train")
    assert examples.notes == ("folders left out: val",)


def test_images_to_test_on_have_labels(tmp_path):
    """The `test` folder of a competition has no labels."""
    for part in ("train", "valid"):
        fill(tmp_path / part, "a", "b", count=4)
    fill(tmp_path, "test")
    assert size(tmp_path, "test") == 8
    examples = data_sources.open_split(str(tmp_path), "test")
    assert examples.notes == ("folders left out: test",)


def test_classes_that_are_split_inside_are_told(tmp_path):
    fill(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    examples = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in examples.classes] == ["cat", "dog"]
    assert examples.notes[0].startswith(
        "CLASSES CONTAIN SPLITS: cat has train and test folders"
    )


@pytest.mark.parametrize("pair", [("train", "test"), ("Training", "valid")])
def test_a_pair_of_splits_never_becomes_two_classes(tmp_path, pair):
    fill(tmp_path, *pair)
    with pytest.raises(ValueError, match="must have a folder for each of two or more"):
        data_sources.open_split(str(tmp_path), "train")


def test_splits_without_one_to_train_on_are_told(tmp_path):
    fill(tmp_path, "test/a", "test/b", "val/a", "val/b")
    with pytest.raises(
        ValueError, match="folders test, val, but must have exactly one "
    ):
        data_sources.open_split(str(tmp_path), "train")


def test_a_training_folder_alone_says_what_to_give(tmp_path):
    fill(tmp_path, "train/a", "train/b")
    assert size(tmp_path, "train") == 10
    with pytest.raises(split.NoSplitError, match="to hold out .* give .*/train itself"):
        data_sources.open_split(str(tmp_path), "test")
    assert size(tmp_path / "train", "test") == 2


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("bus", "test", "train"),
        ("train_station", "bus_station"),
        ("dev_board", "test_board"),
    ],
)
def test_a_class_may_be_called_like_a_split(tmp_path, classes):
    fill(tmp_path, *classes)
    assert names(tmp_path) == sorted(classes)


def test_a_class_called_train_is_one_in_a_split_too(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / part, "bus", "train")
    assert names(tmp_path) == ["bus", "train"]
    assert size(tmp_path, "train") == 10


def test_where_there_is_no_telling_it_is_asked(tmp_path):
    fill(tmp_path, "train/steam", "train/diesel", "bus")
    with pytest.raises(ValueError, match="train may be a split or a class"):
        data_sources.open_split(str(tmp_path), "train")


def test_hidden_folders_are_no_classes(tmp_path):
    fill(tmp_path, "a", "b", "a/deep/er")
    hidden = (".ipynb_checkpoints", ".thumbnails", ".git", "__MACOSX", "a/.thumbnails")
    fill(tmp_path, *hidden, count=2)
    examples = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in examples.classes] == ["a", "b"]
    assert examples.size == 12
    paths, _ = examples.fetch(np.arange(examples.size))
    assert not any(b".thumb" in path or b"__MAC" in path for path in paths)
    assert examples.notes[0] == "files left out: 10 hidden"
    assert examples.notes[1].endswith("each class, 3 of 15, is for testing")


def test_files_that_are_left_out_are_told_in_a_line(tmp_path):
    fill(tmp_path, "a", "b")
    for name in ("a/1.heic", "a/2.HEIC", "a/notes.txt", "labels.csv", "b/README"):
        (tmp_path / name).write_text("")
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "stray.png")
    examples = data_sources.open_split(str(tmp_path), "train")
    assert examples.notes[0] == (
        "files left out: 2 .heic, 1 .csv, 1 .txt, 1 images outside the class folders, "
        "1 without suffix; "
        "convert HEIC files first, for example to JPEG"
    )


def test_a_class_of_other_files_says_which(tmp_path):
    fill(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.heic").write_text("")
    with pytest.raises(ValueError, match=r"c has no images: .*left out: 1 \.heic"):
        data_sources.open_split(str(tmp_path), "train")


def test_names_of_both_forms_of_unicode_are_one_class(tmp_path):
    """macOS writes é as e and an accent, other systems as one character."""
    name = "café"
    composed, decomposed = (unicodedata.normalize(f, name) for f in ("NFC", "NFD"))
    assert composed != decomposed
    fill(tmp_path / "train", composed, "bar", count=3)
    fill(tmp_path / "test", decomposed, "bar", count=2)
    assert names(tmp_path) == names(tmp_path, "test") == ["bar", composed]
    assert size(tmp_path, "test") == 4
    fill(tmp_path / "train", decomposed, count=2)
    assert names(tmp_path) == ["bar", composed]
    assert size(tmp_path, "train") == 8


# Whether the classes of a folder are those of a known taxonomy.


def taxonomy_of(root):
    examples = data_sources.open_split(str(root), "train")
    return data_sources.taxonomy_of(examples)


def test_a_folder_may_be_called_like_a_taxonomy(tmp_path):
    for name in taxonomies.names():
        root = fill(tmp_path / name, "x", "y")
        taxonomy = taxonomy_of(root)
        assert taxonomy.name not in taxonomies.names()
        assert [c.name for c in taxonomy.classes] == ["x", "y"]


def test_numbers_are_nobodys_ids(tmp_path):
    """Numbers do not select the taxonomy `digits`, although its ids are 0 to 9."""
    root = fill(tmp_path / "plates", *map(str, range(10)))
    taxonomy = taxonomy_of(root)
    assert taxonomy.name == "plates"
    assert [c.name for c in taxonomy.classes] == [str(i) for i in range(10)]


def test_ids_of_a_taxonomy_have_its_names_and_it_is_said(tmp_path):
    cifar10 = taxonomies.load("cifar10")
    root = fill(tmp_path / "mine", *(c.id for c in cifar10.classes), count=2)
    examples = data_sources.open_split(str(root), "train")
    assert data_sources.taxonomy_of(examples) == cifar10
    fewer = fill(tmp_path / "fewer", *(c.id for c in cifar10.classes[1:]), count=2)
    assert taxonomy_of(fewer).name == "fewer"
    imagenet_classes = taxonomies.load("ilsvrc_2012").classes
    root = fill(tmp_path / "imagenet", *(c.id for c in imagenet_classes), count=1)
    examples = data_sources.open_split(str(root), "train")
    taxonomy = data_sources.taxonomy_of(examples)
    line, note = data_sources.describe(examples, taxonomy)
    assert "no class has an image to spare" in note
    assert line.startswith("1000 classes, identified by their ilsvrc_2012 ids: tench")
    assert line.endswith("… and 980 more")


def test_what_is_held_out_has_every_class(tmp_path):
    fill(tmp_path, "many", count=50)
    fill(tmp_path, "rare", count=3)
    fill(tmp_path, "single", count=1)
    whole = data_sources.open_split(str(tmp_path), "train")
    train_part, held_out = split.held_out(whole, 8)
    counts = [
        np.bincount(part.all_labels(), minlength=3) for part in (train_part, held_out)
    ]
    assert counts[0].tolist() == [35, 1, 1]
    assert counts[1].tolist() == [5, 1, 0]
    assert not set(train_part.numbers) & set(held_out.numbers)
    all_examples, no_examples = split.held_out(whole, None)
    assert (all_examples.size, no_examples.size) == (whole.size, 0)
    held_out_again = split.held_out(whole, 8)[1]
    assert np.array_equal(held_out_again.numbers, held_out.numbers)


def test_classes_that_differ_in_case_only_are_refused(tmp_path):
    fill(tmp_path, "Rose", "rose", "tulip")
    with pytest.raises(ValueError, match="classes Rose and rose, which differ in case"):
        data_sources.open_split(str(tmp_path), "train")


def test_a_class_whose_name_is_no_text_is_refused(tmp_path):
    fill(tmp_path, "rose", "tulip")
    os.rename(tmp_path / "tulip", os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(
        ValueError, match=r"folder b'caf\\xe9', whose name is not UTF-8"
    ):
        data_sources.open_split(str(tmp_path), "train")


def test_a_file_that_goes_while_its_folder_is_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "rose", "tulip")
    find_images = listing.find

    def find(folder, **options):
        files = find_images(folder, **options)
        for entry in files.images[:1]:
            pathlib.Path(entry.path).unlink()
        return files

    monkeypatch.setattr(listing, "find", find)
    with pytest.raises(FileNotFoundError) as caught:
        data_sources.open_split(str(tmp_path), "train")
    assert str(tmp_path / "rose") in caught.value.filename
