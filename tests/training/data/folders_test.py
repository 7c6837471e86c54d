"""Folders of images as people keep them: which are splits, classes, or neither."""

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
    """Makes folders, each with so many images."""
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
    """As in the Intel image classification data, whose seg_pred has no classes."""
    for part in ("train", "test"):
        fill(tmp_path / f"seg_{part}" / f"seg_{part}", "sea", "street", count=3)
    fill(tmp_path, "seg_pred/seg_pred")
    found = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in found.classes] == ["sea", "street"]
    assert found.size == 6
    assert "folders left out: seg_pred" in found.notes


def test_test_is_preferred_to_validation(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        fill(tmp_path / part, "a", "b", count=count)
    assert size(tmp_path, "test") == 6


def test_a_split_that_is_not_used_is_told(tmp_path):
    for part in ("train", "val", "test"):
        fill(tmp_path / part, "a", "b")
    found = data_sources.open_split(str(tmp_path), "train")
    assert found.notes == ("folders left out: val",)


def test_images_to_test_on_have_labels(tmp_path):
    """A competition's `test` has none."""
    for part in ("train", "valid"):
        fill(tmp_path / part, "a", "b", count=4)
    fill(tmp_path, "test")
    assert size(tmp_path, "test") == 8
    found = data_sources.open_split(str(tmp_path), "test")
    assert found.notes == ("folders left out: test",)


def test_classes_that_are_split_inside_are_told(tmp_path):
    fill(tmp_path, "cat/train", "cat/test", "dog/train", "dog/test")
    found = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in found.classes] == ["cat", "dog"]
    assert found.notes[0].startswith(
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
    found = data_sources.open_split(str(tmp_path), "train")
    assert [c.name for c in found.classes] == ["a", "b"]
    assert found.size == 12
    paths, _ = found.fetch(np.arange(found.size))
    assert not any(b".thumb" in path or b"__MAC" in path for path in paths)
    assert found.notes[0] == "files left out: 10 hidden"
    assert found.notes[1].endswith("each class, 3 of 15, is for testing")


def test_files_that_are_left_out_are_told_in_a_line(tmp_path):
    fill(tmp_path, "a", "b")
    for name in ("a/1.heic", "a/2.HEIC", "a/notes.txt", "labels.csv", "b/README"):
        (tmp_path / name).write_text("")
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "stray.png")
    found = data_sources.open_split(str(tmp_path), "train")
    assert found.notes[0] == (
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
    """macOS writes é as e and an accent, others as one character."""
    whole = "café"
    composed, decomposed = (unicodedata.normalize(f, whole) for f in ("NFC", "NFD"))
    assert composed != decomposed
    fill(tmp_path / "train", composed, "bar", count=3)
    fill(tmp_path / "test", decomposed, "bar", count=2)
    assert names(tmp_path) == names(tmp_path, "test") == ["bar", composed]
    assert size(tmp_path, "test") == 4
    fill(tmp_path / "train", decomposed, count=2)
    assert names(tmp_path) == ["bar", composed]
    assert size(tmp_path, "train") == 8


# Whose names they are.


def classes_of(root):
    found = data_sources.open_split(str(root), "train")
    return data_sources.taxonomy_of(found)


def test_a_folder_may_be_called_like_a_taxonomy(tmp_path):
    for name in taxonomies.names():
        root = fill(tmp_path / name, "x", "y")
        found = classes_of(root)
        assert found.name not in taxonomies.names()
        assert [c.name for c in found.classes] == ["x", "y"]


def test_numbers_are_nobodys_ids(tmp_path):
    """Those of digits are 0 to 9, whose names are zero to nine."""
    root = fill(tmp_path / "plates", *map(str, range(10)))
    found = classes_of(root)
    assert found.name == "plates"
    assert [c.name for c in found.classes] == [str(i) for i in range(10)]


def test_ids_of_a_taxonomy_have_its_names_and_it_is_said(tmp_path):
    known = taxonomies.load("cifar10")
    root = fill(tmp_path / "mine", *(c.id for c in known.classes), count=2)
    found = data_sources.open_split(str(root), "train")
    assert data_sources.taxonomy_of(found) == known
    fewer = fill(tmp_path / "fewer", *(c.id for c in known.classes[1:]), count=2)
    assert classes_of(fewer).name == "fewer"
    ids = taxonomies.load("ilsvrc_2012").classes
    root = fill(tmp_path / "imagenet", *(c.id for c in ids), count=1)
    found = data_sources.open_split(str(root), "train")
    taxonomy = data_sources.taxonomy_of(found)
    line, note = data_sources.describe(found, taxonomy)
    assert "no class has an image to spare" in note
    assert line.startswith("1000 classes, identified by their ilsvrc_2012 ids: tench")
    assert line.endswith("… and 980 more")


def test_what_is_held_out_has_every_class(tmp_path):
    fill(tmp_path, "many", count=50)
    fill(tmp_path, "rare", count=3)
    fill(tmp_path, "single", count=1)
    whole = data_sources.open_split(str(tmp_path), "train")
    learnt, chosen = split.held_out(whole, 8)
    counts = [np.bincount(part.all_labels(), minlength=3) for part in (learnt, chosen)]
    assert counts[0].tolist() == [35, 1, 1]
    assert counts[1].tolist() == [5, 1, 0]
    assert not set(learnt.numbers) & set(chosen.numbers)
    everything, nothing = split.held_out(whole, None)
    assert (everything.size, nothing.size) == (whole.size, 0)
    again = split.held_out(whole, 8)[1]
    assert np.array_equal(again.numbers, chosen.numbers)


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
    listed = listing.find

    def find(folder, **options):
        found = listed(folder, **options)
        for entry in found.images[:1]:
            pathlib.Path(entry.path).unlink()
        return found

    monkeypatch.setattr(listing, "find", find)
    with pytest.raises(FileNotFoundError) as caught:
        data_sources.open_split(str(tmp_path), "train")
    assert str(tmp_path / "rose") in caught.value.filename
