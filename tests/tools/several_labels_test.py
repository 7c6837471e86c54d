"""Every tool on images with any number of labels, from a CSV file."""

import csv
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

NAMES = ("blue", "green", "red")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a folder of squares, labelled with their colours; some are grey."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    with (folder / "colours.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for number in range(120):
            has_colour = random.random(3) < 0.5
            pixels = random.integers(60, 90, (32, 32, 3))
            pixels[..., ::-1] += 120 * has_colour
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
            label = "|".join(np.array(NAMES)[has_colour])
            rows.writerow([f"{number}.png", label, "train" if number % 4 else "test"])
    return folder


@pytest.fixture(scope="module")
def trained(data, tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = tool(
        "train",
        *("--arch=resnet_cifar_20", "--recipe=digits", f"--model_dir={folder}"),
        f"--data=csv:{data}/colours.csv",
        "--gin_binding=training.run.batch_size=16",
        "--gin_binding=training.run.epochs=14",
        "--gin_binding=Augmentation.mixup_alpha=0.1",
    )
    assert done.returncode == 0, done.stderr
    assert "3 classes, any number per image: blue, green, red" in done.stderr
    return folder / "final.safetensors"


@pytest.fixture(scope="module")
def pair(trained, tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    done = tool(
        "export", "--arch=resnet_cifar_20", f"--weights={trained}", f"--output={folder}"
    )
    assert done.returncode == 0, done.stderr
    return folder / "resnet_cifar_20"


def test_training_is_judged_by_its_mean_average_precision(trained):
    history = json.loads((trained.parent / "history.json").read_text())
    last = history["epochs"][-1]
    assert last["test_mean_average_precision"] > 0.9


def test_the_pair_is_one_of_sigmoids(pair):
    """The export ran the suite, whose clause C02 checks that outputs are logits."""
    folder = pair / "classification" / "1"
    manifest = json.loads((folder / "assets.extra" / "manifest.json").read_text())
    assert manifest["class_index"]["scores"] == "sigmoid"
    metrics = manifest["weights"]["metrics"]
    assert metrics["test_mean_average_precision"] > 0.9


def test_evaluate_finds_what_training_found(tool, pair, trained, data, tmp_path):
    table = tmp_path / "said.csv"
    done = tool(
        *("evaluate", pair, f"--data=csv:{data}/colours.csv", "--format=json"),
        *(f"--predictions={table}", f"--plot={tmp_path / 'precision.png'}"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    history = json.loads((trained.parent / "history.json").read_text())
    expected = history["epochs"][-1]["test_mean_average_precision"]
    assert report["mean_average_precision"] == pytest.approx(expected, abs=1e-3)
    assert report["examples"] == 30
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 * 3
    with (data / "colours.csv").open(newline="") as file:
        labels = {str(data / row["path"]): row["label"] for row in csv.DictReader(file)}
    assert all(labels[row["image"]] == row["label"] for row in rows)
    with PIL.Image.open(tmp_path / "precision.png") as image:
        assert image.size > (300, 100)


def test_predict_shows_sigmoids(tool, pair, data):
    done = tool("predict", pair, data / "0.png", "--format=json")
    assert done.returncode == 0, done.stderr
    ((result,),) = [json.loads(done.stdout)]
    for prediction in result["predictions"]:
        expected = 1 / (1 + np.exp(-prediction["score"]))
        assert prediction["probability"] == pytest.approx(expected, rel=1e-4)


def test_retrain(tool, pair, data, tmp_path):
    output = tmp_path / "colours"
    arguments = [
        *("retrain", f"--module={pair / 'feature_vector' / '1'}", f"--output={output}"),
        *(f"--data=csv:{data}/colours.csv", "--epochs=2", "--image_size=32"),
    ]
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr
    assert "mean average precision" in done.stderr
    report = json.loads((output / "retraining-1.json").read_text())
    assert report["kept"]["mean_average_precision"] > 0.9
    folder = output / "classification" / "1"
    manifest = json.loads((folder / "assets.extra" / "manifest.json").read_text())
    assert manifest["class_index"]["scores"] == "sigmoid"
    assert tf.saved_model.load(str(folder))(tf.zeros([1, 32, 32, 3])).shape == [1, 3]
    done = tool(*arguments, "--class_weight=balanced", "--overwrite")
    assert done.returncode == 2
    assert "--class_weight=balanced needs images with one label" in done.stderr


def test_a_model_of_one_class_an_image_is_refused(tool, exported, data):
    model = exported("resnet_cifar_20", "fashion_mnist")
    rows = (data / "colours.csv").read_text()
    for new, old in zip(("bag", "coat", "dress"), NAMES, strict=True):
        rows = rows.replace(old, new)
    (data / "clothes.csv").write_text(rows)
    done = tool("evaluate", model, f"--data=csv:{data}/clothes.csv")
    assert done.returncode == 2
    assert "the model's classes are mutually exclusive" in done.stderr
