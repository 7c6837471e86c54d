"""Splits, classes and errors of Parquet files and Hugging Face data sets."""

import io
import pathlib

import numpy as np
import PIL.Image
import pytest

from tests.training.data import pipeline_test
from training.data import data_sources, pipeline, split

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def png(number):
    stream = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "png")
    return stream.getvalue()


def write_parquet(path, labels, image="image", label="label", kind=None):
    images = [{"bytes": png(n), "path": f"{n}.png"} for n in range(len(labels))]
    values = pyarrow.array(labels, kind)
    parquet.write_table(pyarrow.table({image: images, label: values}), path)
    return f"parquet:{path}"


def reds(examples):
    images, _ = examples.fetch(np.arange(examples.size))
    return [PIL.Image.open(io.BytesIO(image)).getpixel((0, 0))[0] for image in images]


def labels_of(examples):
    return examples.fetch(np.arange(examples.size))[1].tolist()


@pytest.mark.ci
def test_names_are_classes_and_every_fifth_is_to_test_on(tmp_path):
    source = write_parquet(tmp_path / "flowers.parquet", ["tulip", "rose"] * 6)
    splits = data_sources.open_splits(source)
    assert [c.id for c in splits["train"].classes] == ["rose", "tulip"]
    assert reds(splits["test"]) == [0, 1, 10, 11]
    assert labels_of(splits["test"]) == [1, 0, 1, 0]
    assert splits["train"].describe(0) == f"row 2 of {source}, train"
    stream = pipeline_test.stream_of(splits["train"], num_classes=2, batch_size=4)
    images, labels = next(iter(stream.evaluation()))
    assert pipeline.is_labelled(labels.numpy()).all()
    assert images.numpy()[0, 0, 0, 0] == pytest.approx(2 / 255)


def test_files_are_of_the_split_that_they_begin_with(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [2, 1])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [1])
    splits = data_sources.open_splits(f"parquet:{tmp_path}/*.parquet")
    assert labels_of(splits["train"]) == [0, 1, 2, 2, 1]
    assert labels_of(splits["test"]) == [1]
    assert not splits["train"].classes
    named = data_sources.name_classes(splits)
    assert [c.name for c in named["test"].classes] == ["class 0", "class 1", "class 2"]
    assert named["test"].taxonomy == tmp_path.name


def test_what_is_to_test_on_alone_is_tested_whole(tmp_path):
    source = write_parquet(tmp_path / "test-00000-of-00001.parquet", ["a", "b"] * 5)
    assert data_sources.open_split(source, "test").size == 10
    with pytest.raises(split.NoSplitError):
        data_sources.open_split(source, "train")
    datasets.DatasetDict(test=make_dataset([0, 1, 2])).save_to_disk(tmp_path / "saved")
    assert data_sources.open_split(f"hf:{tmp_path}/saved", "test").size == 3


def test_a_train_split_may_be_alone(tmp_path):
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", ["a", "b"] * 5)
    assert data_sources.open_split(source, "train").size == 10
    with pytest.raises(split.NoSplitError):
        data_sources.open_split(source, "test")


@pytest.mark.parametrize("kind", [None, pyarrow.large_list(pyarrow.large_string())])
def test_lists_are_several_labels(tmp_path, kind):
    labels = [["a"], ["c"], [], None, ["c", "a", "b"], ["c"]]
    splits = data_sources.open_splits(
        write_parquet(tmp_path / "a.parquet", labels, kind=kind)
    )
    examples = splits["train"].whole
    assert examples.scores == "sigmoid"
    assert labels_of(examples) == [
        *([1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1])
    ]
    assert examples.all_labels().tolist() == [0, 2, -1, -1, 1, 2]


def test_lists_of_numbers(tmp_path):
    """Numbers become names, which `evaluation.match_classes` takes for indices."""
    splits = data_sources.open_splits(
        write_parquet(tmp_path / "a.parquet", [[2, 0], [1]] * 6)
    )
    assert [c.name for c in splits["train"].classes] == ["0", "1", "2"]


def test_images_need_no_labels_to_be_predicted(tmp_path):
    images = [{"bytes": png(n)} for n in range(3)]
    for split_name in ("train", "test"):
        parquet.write_table(
            pyarrow.table({"image": images}), tmp_path / f"{split_name}.parquet"
        )
    (examples,) = data_sources.open_images(f"parquet:{tmp_path}/*.parquet")
    assert reds(examples) == [0, 1, 2, 0, 1, 2]
    assert examples.describe(4) == f"row 4 of parquet:{tmp_path}/*.parquet, all"


def make_dataset(labels, names=("a", "b", "c")):
    images = [{"bytes": png(n), "path": None} for n in range(len(labels))]
    features = datasets.Features(
        {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=list(names))}
    )
    columns = {"img": images, "fine_label": labels}
    return datasets.Dataset.from_dict(columns, features=features)


def test_the_features_of_a_saved_data_set_are_its_classes(tmp_path):
    saved = datasets.DatasetDict(
        train=make_dataset([0, 1, 2, 0]),
        validation=make_dataset([1]),
        test=make_dataset([-1]),
    )
    saved["test"] = saved["test"].rename_column("fine_label", "label")
    for name in ("train", "validation"):
        saved[name] = saved[name].rename_column("fine_label", "label")
    saved.save_to_disk(tmp_path / "saved")
    splits = data_sources.open_splits(f"hf:{tmp_path}/saved")
    assert [c.name for c in splits["train"].classes] == ["a", "b", "c"]
    assert splits["train"].taxonomy == "saved"
    assert labels_of(splits["train"]) == [0, 1, 2, 0]
    assert labels_of(splits["test"]) == [1]  # the labels of `test` are unknown


def test_columns_of_any_name_are_found_by_what_they_hold(tmp_path):
    make_dataset([0, 1, 2] * 4).save_to_disk(tmp_path / "saved")
    splits = data_sources.open_splits(f"hf:{tmp_path}/saved")
    assert sorted(reds(splits["train"]) + reds(splits["test"])) == list(range(12))


def test_a_folder_of_image_files(tmp_path):
    for split_name, count in (("train", 5), ("test", 2)):
        for name in ("rose", "tulip"):
            for number in range(count):
                path = tmp_path / "flowers" / split_name / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(number))
    splits = data_sources.open_splits(f"hf:{tmp_path}/flowers")
    assert [c.name for c in splits["train"].classes] == ["rose", "tulip"]
    assert sorted(
        zip(labels_of(splits["test"]), reds(splits["test"]), strict=True)
    ) == [*((0, 0), (0, 1), (1, 0), (1, 1))]


def test_paths_in_a_parquet_file_are_not_followed(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    images = [{"bytes": None, "path": str(secret)}] * 4
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(images, kind), "label": list("abab")})
    parquet.write_table(table, tmp_path / "a.parquet")
    examples = data_sources.open_split(f"parquet:{tmp_path}/a.parquet", "train")
    assert examples.fetch(np.arange(examples.size))[0].tolist() == [b""] * examples.size


def test_what_has_changed_has_another_fingerprint(tmp_path):
    path = tmp_path / "a.parquet"
    first = data_sources.open_split(write_parquet(path, list("ab") * 5), "train")
    reopened = data_sources.open_split(f"parquet:{path}", "train")
    assert reopened.fingerprint == first.fingerprint
    images = [{"bytes": png(n + 100)} for n in range(10)]
    parquet.write_table(pyarrow.table({"image": images, "label": list("ab") * 5}), path)
    changed = data_sources.open_split(f"parquet:{path}", "train")
    assert changed.fingerprint != first.fingerprint
    assert reds(changed) == [n + 100 for n in reds(first)]


def write_corrupted(path):
    write_parquet(path, list("ab") * 5)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write_parquet(p, ["a", None, "b"]), "train: row 1 has no label"),
        (
            lambda p: write_parquet(p, ["a", "A", "b"]),
            "A and a, which differ in case only",
        ),
        (
            lambda p: write_parquet(p, [1, -5, 2]),
            "labels must be 0 or above, but they range from -5 to 2",
        ),
        (
            lambda p: write_parquet(p, [0.5, 1.5]),
            "must have a column 'label' with class numbers",
        ),
        (
            lambda p: parquet.write_table(pyarrow.table({"label": ["a", "b"]}), p),
            "must have a column 'image' with the bytes of images; it has label",
        ),
        (lambda p: write_parquet(p, []), "can't be read: "),
        (write_corrupted, "can't be read: "),
        (lambda p: p.write_bytes(b"no parquet"), "can't be read: "),
    ],
)
def test_what_can_not_be_used_is_told_in_a_line(tmp_path, make, message):
    make(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        data_sources.open_splits(f"parquet:{tmp_path}/a.parquet")
    assert "\n" not in str(caught.value)


def test_a_class_of_test_examples_alone_is_an_error_in_training_only(tmp_path):
    write_parquet(tmp_path / "train.parquet", ["a", "b"])
    write_parquet(tmp_path / "test.parquet", ["a", "lily"])
    source = f"parquet:{tmp_path}/*.parquet"
    with pytest.raises(ValueError, match="the train split has no examples of 'lily'"):
        data_sources.open_splits(source)
    test = data_sources.open_split(source, "test")
    assert [c.id for c in test.classes] == ["a", "b", "lily"]
    assert labels_of(test) == [0, 2]


def test_missing_ones_are_told_in_a_line(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no file matches"):
        data_sources.open_split(f"parquet:{tmp_path}/*.parquet", "train")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="hf:nobody/nothing can't be read") as caught:
        data_sources.open_split("hf:nobody/nothing", "train")
    assert "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match="run tools/setup datasets"):
        data_sources.open_split(f"hf:{pathlib.Path(tmp_path)}", "train")
