"""The tools on photographs as phones take them, and on folders of them.

Models only tell whether a photograph is bright at its top or at its bottom. All files
are stored turned, as their EXIF says, so a reader that ignores EXIF classifies wrongly.
"""

import csv
import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from reuse import precision
from tests.images import kinds

SIDE, IMAGES_PER_CLASS = 32, 30
CLASSES = ("bottom", "top")


def photograph(name, number):
    """Returns random pixels [36, 48, 3] uint8 that are bright at the named end."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 90, (36, 48, 3), np.uint8)
    bright_rows = slice(18, None) if name == "bottom" else slice(0, 18)
    pixels[bright_rows] += rng.integers(100, 150, (18, 48, 3), np.uint8)
    return pixels


def turned_file(name, number):
    """Returns a file's bytes and suffix; `number` selects format and orientation."""
    orientation, form = 2 + number % 7, number % 3
    stored = kinds.stored_as(photograph(name, number), orientation)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    form, options = (
        ("JPEG", {"quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    )[form]
    return kinds.encoded(stored, form, exif=exif, **options), f".{form.lower()}"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("phone") / "ends"
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            data, suffix = turned_file(name, 2 * number + label)
            (root / name / f"{number:02}{suffix}").write_bytes(data)
    return root


class Ends(tf.Module):
    """Returns the brightness of both halves, as features or as logits of classes."""

    def __init__(self, folder=None):
        super().__init__()
        self.scale = tf.Variable(20.0, name="scale")
        self.variables_list = [self.scale]
        if folder:
            file = folder / "class_index.tsv"
            rows = [f"{i}\t{name}\t{name}\n" for i, name in enumerate(CLASSES)]
            file.write_text("index\tid\tname\n" + "".join(rows))
            self.class_index = tf.saved_model.Asset(str(file))

    def __call__(self, images, training=False):
        top = tf.reduce_mean(images[:, : SIDE // 2], axis=(1, 2, 3))
        bottom = tf.reduce_mean(images[:, SIDE // 2 :], axis=(1, 2, 3))
        return self.scale * tf.stack([bottom, top], axis=-1)


def save(folder, *, as_classifier):
    model = Ends(folder.parent if as_classifier else None)
    root = tf.train.Checkpoint()
    spec = tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="images")
    root.__call__ = tf.function(model.__call__)
    for training in (False, True):
        root.__call__.get_concrete_function(spec, training=training)
    root.variables = root.trainable_variables = [model.scale]
    root.regularization_losses = []
    if as_classifier:
        root.class_index = model.class_index
    serve = tf.function(lambda images: {"default": model(images)}, [spec])
    tf.saved_model.save(root, str(folder), {"serving_default": serve})
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return save(tmp_path_factory.mktemp("classifier") / "model", as_classifier=True)


@pytest.mark.ci
def test_evaluate_is_right_on_all(tool, classifier, photographs):
    done = tool("evaluate", classifier, f"--data={photographs}", "--format=json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] == 1.0


def test_bfloat16_that_is_not_computed_is_told(tool, classifier, photographs):
    """The model has no ops that TensorFlow converts."""
    if not precision.has_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    data, name = f"--data={photographs}", "--precision=bfloat16"
    for done in (
        tool("evaluate", classifier, data, name),
        tool("predict", classifier, photographs, name),
    ):
        assert done.returncode == 2
        assert "bfloat16 changes nothing" in done.stderr.splitlines()[-1]


def test_predict_is_right_on_all(tool, classifier, photographs):
    done = tool("predict", classifier, photographs, "--format=json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == 2 * IMAGES_PER_CLASS
    for entry in results:
        assert entry["predictions"][0]["name"] == entry["image"].split("/")[-2]


@pytest.mark.slow
def test_retrain_learns_from_upright_ones(tool, photographs, tmp_path):
    """The exported models read the turned files as they are."""
    module = save(tmp_path / "module", as_classifier=False)
    done = tool(
        "retrain",
        f"--module={module}",
        f"--data={photographs}",
        f"--output={tmp_path / 'ends'}",
        *("--epochs=0", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 classes: bottom, top" in done.stderr
    report = json.loads((tmp_path / "ends" / "retraining-1.json").read_text())
    assert report["kept"]["top1"] == 1.0
    assert report["kept"]["loss"] < 0.1
    for kind, width in (("classification", 2), ("feature_vector", 2)):
        model = tf.saved_model.load(str(tmp_path / "ends" / kind / "1"))
        paths = sorted((photographs / "top").iterdir())
        files = tf.constant([path.read_bytes() for path in paths])
        outputs = model.signatures["image_bytes"](image_bytes=files)["default"]
        assert outputs.shape == (IMAGES_PER_CLASS, width)
        assert (outputs.numpy().argmax(-1) == 1).all()
        assert model.preprocess(files).shape == (IMAGES_PER_CLASS, SIDE, SIDE, 3)


@pytest.mark.ci
def test_of_a_folder_images_are_read_and_others_told(tool, classifier, tmp_path):
    for name in ("a/1.png", "b/c/2.PNG", "3.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (40, 40)).save(path)
    (tmp_path / "photos" / "4.heic").write_text("")
    (tmp_path / "photos" / "a" / "5.jpg").write_text("no image")
    done = tool("predict", classifier, tmp_path / "photos", "--format=csv")
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == [
        *("image", "rank", "index", "id", "name", "score", "probability", "error"),
    ]
    names = [row["image"].removeprefix(f"{tmp_path}/photos/") for row in rows]
    assert names == ["3.jpg"] * 2 + ["a/1.png"] * 2 + ["a/5.jpg"] + ["b/c/2.PNG"] * 2
    assert "not a usable image" in rows[4]["error"]
    assert "files left out: 1 .heic" in done.stderr
    (tmp_path / "none").mkdir()
    done = tool("predict", classifier, tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none has no images, which are files that end with .jpg" in done.stderr


@pytest.mark.ci
def test_json_has_an_entry_for_each(tool, classifier, tmp_path):
    shutil.copy(__file__, tmp_path / "bad.jpg")
    PIL.Image.new("RGB", (9, 9)).save(tmp_path / "good.jpg")
    paths = [tmp_path / "bad.jpg", tmp_path / "good.jpg"]
    done = tool("predict", classifier, *paths, "--format=json")
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)
    assert bad == {"image": str(paths[0]), "error": bad["error"]}
    assert [p["index"] for p in good["predictions"]] == [0, 1]
    assert set(good["predictions"][0]) == {
        *("index", "id", "name", "score", "probability"),
    }
    done = tool("predict", classifier, paths[0], "--format=json")
    assert done.returncode == 2
    assert len(json.loads(done.stdout)) == 1


def write_faces(root, counts):
    """Writes `counts` images of classes that differ in brightness; returns `root`."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 60, (20, 20, 3)) + 150 * label
            path = root / name / f"{number:03}.png"
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["evaluate", pytest.param("retrain", marks=pytest.mark.slow)]
)
def test_unreadable_images_are_named_up_to_a_limit(tool, classifier, tmp_path, name):
    root = write_faces(tmp_path / "faces", {"bottom": 60, "top": 60})
    damaged = [root / "top" / f"{number:03}.png" for number in (1, 5, 10, 11, 15)]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:80])
    module = save(tmp_path / "module", as_classifier=False)
    arguments = {
        "evaluate": [classifier, "--format=json"],
        "retrain": [
            f"--module={module}",
            f"--output={tmp_path / 'out'}",
            *("--epochs=0", "--check=none", "--overwrite"),
        ],
    }[name]
    done = tool(name, *arguments, f"--data={root}")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    if name == "retrain":
        text = (tmp_path / "out" / "retraining-1.json").read_text()
    unreadable = json.loads(text)["unreadable"]
    damaged_in_test = [str(path) for path in damaged if int(path.stem) % 5 == 0]
    assert sorted(unreadable) == (
        damaged_in_test if name == "evaluate" else sorted(map(str, damaged))
    )
    for path in unreadable:
        assert f"can't be read: {path}" in done.stderr
    done = tool(name, *arguments, f"--data={root}", "--unreadable=0")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "can't be read, but --unreadable allows only 0" in last
    assert done.stderr.count("can't be read: ") >= 2


@pytest.mark.slow
def test_a_class_that_is_never_recognised_is_told(tool, tmp_path):
    """The rare class looks like the other; the message suggests class weights."""
    root = tmp_path / "faces"
    write_faces(root, {"bottom": 60, "top": 60})
    shutil.rmtree(root / "top")
    rng = np.random.default_rng(1)
    (root / "top").mkdir()
    for number in range(5):
        pixels = rng.integers(0, 60, (20, 20, 3)) + 1
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(
            root / "top" / f"{number}.png"
        )
    module = save(tmp_path / "module", as_classifier=False)
    done = tool(
        "retrain",
        f"--module={module}",
        f"--data={root}",
        f"--output={tmp_path / 'out'}",
        *("--epochs=0", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    assert "NEVER RECOGNISED among the test images: top; --class_weight" in done.stderr
    report = json.loads((tmp_path / "out" / "retraining-1.json").read_text())
    assert report["kept"]["never_recognised"] == ["top"]


@pytest.mark.slow
def test_records_are_retrained_on(tool, tmp_path):
    """Names of fields and classes come from the examples."""
    for split_name, count in (("train", 40), ("test", 12)):
        with tf.io.TFRecordWriter(str(tmp_path / f"{split_name}-0")) as writer:
            for number in range(count):
                name = CLASSES[number % 2]
                example = tf.train.Example()
                feature = example.features.feature
                data, _ = turned_file(name, number)
                feature["picture"].bytes_list.value.append(data)
                feature["image/class/label"].int64_list.value.append(number % 2)
                feature["image/class/text"].bytes_list.value.append(name.encode())
                writer.write(example.SerializeToString())
    module = save(tmp_path / "module", as_classifier=False)
    arguments = [
        f"--module={module}",
        f"--data=tfrecord:{tmp_path}/*-0",
        f"--output={tmp_path / 'out'}",
        *("--epochs=0", "--check=none"),
    ]
    done = tool("retrain", *arguments)
    assert done.returncode == 2
    hint = "Choose one with --gin_binding=tfrecord.image='NAME'."
    assert done.stderr.splitlines()[-1].endswith(hint)
    arguments.append("--gin_binding=tfrecord.image='picture'")
    done = tool("retrain", *arguments)
    assert done.returncode == 2
    assert "set --gin_binding=tfrecord.first_label=0" in done.stderr
    arguments.append("--gin_binding=tfrecord.first_label=0")
    done = tool("retrain", *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "retraining-1.json").read_text())
    assert report["kept"]["top1"] == 1.0
    assert [e["name"] for e in report["kept"]["per_class"]] == list(CLASSES)
