"""Predictions by any classifier, from its manifest, its files and its graph."""

import contextlib
import json
import shutil

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from images import model_input
from reuse import precision, predict


@pytest.fixture(scope="module")
def folder(exported):
    return exported("resnet_cifar_20") / "classification" / "1"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": "no"}, "has an invalid manifest"),
        ({"preprocessing": {}}, "has an invalid manifest: 'image_size'"),
        ({"preprocessing": {"image_size": 10**9}}, "has an invalid manifest"),
        (
            {
                "preprocessing": {
                    "image_size": 224,
                    "crop_fraction": 1e9,
                    "interpolation": "bicubic",
                }
            },
            r"manifest: crop_fraction must be in \(0, 1\], not 1000000000",
        ),
        ({"class_index": ["softmax"]}, "has an invalid manifest"),
        (
            {"class_index": {"scores": "tanh"}},
            "manifest: scores must be .*, not 'tanh'",
        ),
        ({"weights": "random"}, "has an invalid manifest"),
    ],
)
def test_manifests_that_make_no_sense_are_one_line(copy, changes, message):
    path = copy / "assets.extra" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message) as caught:
        predict.Classifier(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]"])
def test_a_broken_manifest_is_named(copy, text):
    (copy / "assets.extra" / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        predict.Classifier(copy)


def test_names_of_any_text_are_read(copy):
    name = r"a\tb\nc\rd\\e\q"
    rows = ["index\tid\tname", f"0\tn0\t{name}", "1\tn1\t\u2028\x85"]
    (copy / "assets" / "class_index.tsv").write_text("\n".join(rows) + "\n")
    assert predict.Classifier(copy).classes == [
        ("n0", "a\tb\nc\rd\\e\\q"),
        ("n1", "\u2028\x85"),
    ]


def test_names_are_those_of_the_file_in_the_manifest(copy):
    before = predict.Classifier(copy).classes
    (copy / "assets" / "a_note.txt").write_text("not a class\n")
    assert predict.Classifier(copy).classes == before


def test_missing_names_are_numbers(copy):
    (copy / "assets" / "class_index.tsv").write_text("index\tid\tname\n0\ta\n")
    (predictions,) = predict.Classifier(copy).predict(np.zeros((1, 64, 64, 3), "f4"))
    assert len(predictions) == 5
    assert all(p.name in ("a", f"class {p.index}") for p in predictions)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: tf.reduce_sum(x), "must return floating scores"),
        (lambda x: tf.reduce_mean(x, (1, 2)) / 0.0, "scores that are not finite"),
        (lambda x: tf.strings.as_string(tf.reduce_mean(x, (1, 2))), "floating scores"),
        (lambda x: tf.ensure_shape(x, (7, 7, 7, 3)), "can't take images"),
    ],
)
def test_models_that_classify_nothing_are_one_line(tmp_path, function, message):
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    module.__call__ = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        predict.Classifier(tmp_path).predict(np.zeros((1, 8, 8, 3), np.float32))
    assert "\n" not in str(caught.value)


def test_others_models_work_through_their_signature(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None, 16, 24, 3], tf.float32, name="picture")

    @tf.function(input_signature=[spec])
    def serve(picture):
        return {"scores": tf.reduce_mean(picture, (1, 2)) * [1.0, 2.0, 3.0]}

    tf.saved_model.save(module, str(tmp_path), {"serving_default": serve})
    classifier = predict.Classifier(tmp_path)
    assert (classifier.preprocessing.height, classifier.preprocessing.width) == (16, 24)
    (predictions,) = classifier.predict(np.ones((1, 16, 24, 3), np.float32))
    assert [p.index for p in predictions] == [2, 1, 0]
    assert predictions[0].score == pytest.approx(3.0)


def classifier_of(folder, layers, *, names=(), size=16, dtype="float32", batch=None):
    """Exports a model with Keras, adds an asset of class names; returns the folder."""
    keras.utils.set_random_seed(0)
    images = keras.Input((size, size, 3), batch_size=batch, dtype=dtype)
    x = images
    for layer in layers:
        x = layer(x)
    keras.Model(images, x).export(str(folder), verbose=False)
    if names:
        text = "".join(f"{name}\n" for name in names)
        (folder / "assets").mkdir(exist_ok=True)
        (folder / "assets" / "labels.txt").write_text(text)
    return folder


def head(units, activation, *, scale=None, offset=0.0, spread=1.0):
    """Returns layers: rescaling, a convolution, a dense layer with an activation."""
    layers = keras.layers
    rescaling = [] if scale is None else [layers.Rescaling(scale, offset=offset)]
    return [
        *rescaling,
        layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(stddev=spread),
        ),
    ]


@pytest.fixture
def images():
    return np.random.default_rng(1).random((3, 16, 16, 3), np.float32)


def outputs_of(folder, images):
    """Returns the outputs of the model's signature."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()
    (outputs,) = signature(**{name: tf.cast(images, spec.dtype)}).values()
    return outputs.numpy()


def test_percentages_of_a_softmax_are_its_own(tmp_path, images):
    """Another softmax would make them nearly equal."""
    folder = classifier_of(tmp_path, head(6, "softmax", scale=4.0))
    model = predict.Classifier(folder)
    assert model.scores == "probabilities"
    expected = outputs_of(folder, images)
    for row, predictions in zip(expected, model.predict(images), strict=True):
        assert [p.index for p in predictions] == np.argsort(-row)[:5].tolist()
        for p in predictions:
            assert p.probability == pytest.approx(row[p.index], rel=1e-6)
    np.testing.assert_allclose(np.exp(model.logits(images)), expected, rtol=1e-5)
    assert not model.remarks


def test_scores_are_computed_in_the_precision(tmp_path, images, monkeypatch):
    @contextlib.contextmanager
    def wrong():
        monkeypatch.setattr(model, "_function", lambda scaled: 3 * usual(scaled))
        yield
        monkeypatch.setattr(model, "_function", usual)

    monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
    monkeypatch.setattr(precision, "bfloat16", wrong)
    folder = classifier_of(tmp_path, head(6, None))
    exact = predict.Classifier(folder)
    model = predict.Classifier(folder, precision="bfloat16")
    usual = model._function
    assert model.scores == "softmax"  # found out with random images, in float32
    assert model.computation.comparison is None
    for rows, others in zip(model.predict(images), exact.predict(images), strict=True):
        scores = {p.index: p.score for p in others}
        for p in rows:
            if p.index in scores:
                assert p.score == pytest.approx(3 * scores[p.index], rel=1e-5)
    np.testing.assert_allclose(model.logits(images), 3 * exact.logits(images), 1e-5)
    assert model.computation.comparison.images == len(images)
    assert "computed in bfloat16" in model.remarks[-1]


@pytest.mark.parametrize("number", [2, 7])
def test_percentages_of_sigmoids_are_their_own(tmp_path, images, number):
    folder = classifier_of(tmp_path, head(number, "sigmoid", scale=2.0, offset=-1.0))
    model = predict.Classifier(folder)
    assert model.scores == "independent probabilities"
    assert model.score_function == "sigmoid"
    expected = outputs_of(folder, images)
    probabilities = 1 / (1 + np.exp(-model.logits(images)))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    for row, predictions in zip(expected, model.predict(images), strict=True):
        for p in predictions:
            assert p.probability == pytest.approx(row[p.index], rel=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_score_is_that_of_the_second_class(tmp_path, images, activation):
    layers = head(1, activation, scale=2.0)
    folder = classifier_of(tmp_path, layers, names=("cat", "dog"))
    model = predict.Classifier(folder)
    expected = outputs_of(folder, images)[:, 0]
    if activation is None:
        expected = 1 / (1 + np.exp(-expected))
    assert (model.num_scores, model.num_classes) == (1, 2)
    for probability, predictions in zip(expected, model.predict(images), strict=True):
        probabilities = {p.name: p.probability for p in predictions}
        assert probabilities == pytest.approx(
            {"dog": probability, "cat": 1 - probability}, abs=1e-6
        )
        assert predictions[0].name == ("dog" if probability > 0.5 else "cat")
    logits = model.logits(images)
    assert logits.shape == (3, 2)
    np.testing.assert_allclose(tf.nn.softmax(logits)[:, 1], expected, rtol=1e-4)


def test_a_score_of_one_named_class_is_that_ones(tmp_path, images):
    folder = classifier_of(tmp_path, head(1, "sigmoid", scale=2.0), names=("cat",))
    (first, *_) = predict.Classifier(folder).predict(images)
    assert [p.name for p in first] == ["cat"]


def test_what_a_model_does_not_say_is_told(tmp_path, images):
    model = predict.Classifier(classifier_of(tmp_path, head(4, None)))
    assert model.scores == "softmax"
    remarks = " ".join(model.remarks)
    assert "does not declare the range of its input: [0, 1] is assumed" in remarks
    assert (
        "does not declare what its scores are: they are taken for logits of a softmax"
        in remarks
    )


def test_probabilities_that_no_op_tells_of_are_known_by_their_sum(tmp_path, images):
    layers = head(4, "relu", scale=2.0)
    layers.append(
        keras.layers.Lambda(lambda x: (x + 1) / tf.reduce_sum(x + 1, -1, True))
    )
    model = predict.Classifier(classifier_of(tmp_path, layers))
    assert model.scores == "probabilities"
    assert "the scores sum to 1" in model.remarks[0]


MEAN = [123.7, 116.8, 103.9]


@pytest.mark.parametrize(
    ("first", "largest"),
    [
        ([keras.layers.Rescaling(1 / 255)], 255),
        ([keras.layers.Rescaling(1 / 127.5, offset=-1)], 255),
        ([keras.layers.Normalization(mean=MEAN, variance=[58.0**2] * 3)], 255),
        ([keras.layers.Normalization(mean=MEAN, variance=[1.0] * 3)], 255),
        ([keras.layers.ZeroPadding2D(1), keras.layers.Rescaling(1 / 255)], 255),
        ([keras.layers.Resizing(12, 12), keras.layers.Rescaling(1 / 255)], 255),
        ([keras.layers.Rescaling(2.0, offset=-1)], 1),
        ([keras.layers.Rescaling(255.0)], 1),
        ([keras.layers.Rescaling(1.0, offset=-0.5)], 1),
        ([keras.layers.Normalization(mean=[0.5] * 3, variance=[0.05] * 3)], 1),
    ],
)
def test_the_range_of_the_input_is_read_from_the_graph(
    tmp_path, images, first, largest
):
    layers = [*first, *head(3, "softmax", spread=0.01)]
    folder = classifier_of(tmp_path, layers)
    model = predict.Classifier(folder)
    assert model.scores == "probabilities"
    assert not model.remarks
    expected = outputs_of(folder, images * largest)
    assert expected.min() > 1e-6  # otherwise, any large input gives the same
    np.testing.assert_allclose(np.exp(model.logits(images)), expected, rtol=1e-4)


def test_the_range_can_be_given(tmp_path, images):
    folder = classifier_of(tmp_path, head(3, "softmax"))
    model = predict.Classifier(folder, input_range="-1,1")
    assert not model.remarks
    expected = outputs_of(folder, images * 2 - 1)
    np.testing.assert_allclose(np.exp(model.logits(images)), expected, rtol=1e-4)


def test_integers_are_of_eight_bits(tmp_path, images):
    layers = [keras.layers.Rescaling(1 / 255), *head(3, "softmax")]
    folder = classifier_of(tmp_path, layers, dtype="uint8")
    model = predict.Classifier(folder)
    expected = outputs_of(folder, np.rint(images * 255))
    np.testing.assert_allclose(np.exp(model.logits(images)), expected, rtol=1e-4)


def test_a_model_of_one_image_at_once_takes_several(tmp_path, images):
    folder = classifier_of(tmp_path, head(3, "softmax", scale=2.0), batch=2)
    model = predict.Classifier(folder)
    logits = model.logits(images)
    assert logits.shape == (3, 3)
    np.testing.assert_allclose(model.logits(images[2:]), logits[2:], rtol=1e-5)


def export_model(folder, inputs, outputs):
    keras.Model(inputs, outputs).export(str(folder), verbose=False)
    return folder


def scores_of(*images):
    x = keras.layers.concatenate([keras.layers.Flatten()(i) for i in images])
    return keras.layers.Dense(3, activation="softmax", name="probs")(x)


@pytest.mark.parametrize(
    ("shapes", "outputs", "message"),
    [
        (
            [(8, 8, 3), (8, 8, 3)],
            ["probs"],
            "must take only images, but takes .* and .*",
        ),
        (
            [(3, 8, 8)],
            ["probs"],
            "must take images .*, but takes .None, 3, 8, 8.",
        ),
        ([(8, 8, 1)], ["probs"], "must take images .*, but takes .None, 8, 8, 1."),
        (
            [(8, 8, 3)],
            ["probs", "boxes"],
            "returns boxes and probs; the scores must be",
        ),
    ],
)
def test_what_is_no_image_classifier_is_refused(tmp_path, shapes, outputs, message):
    """Boxes come first in alphabetical order, and would be shown as classes."""
    images = [keras.Input(shape) for shape in shapes]
    probs = scores_of(*images)
    tensors = {"probs": probs, "boxes": keras.layers.Dense(4, name="boxes")(probs)}
    model_outputs = {name: tensors[name] for name in outputs}
    export_model(tmp_path, images, model_outputs if len(model_outputs) > 1 else probs)
    with pytest.raises(ValueError, match=message):
        predict.Classifier(tmp_path)


def test_files_are_classified_in_batches_and_damaged_ones_are_told(tmp_path):
    sizes = []

    class Counting:
        preprocessing = model_input.Preprocessing(height=8, width=8)

        def predict(self, images):
            sizes.append(len(images))
            return [[round(float(image.mean()) * 255)] for image in images]

    paths = []
    for number in range(11):
        path = tmp_path / f"{number:02}.png"
        PIL.Image.new("RGB", (9, 9), (number,) * 3).save(path)
        paths.append(path)
    paths[4].write_bytes(b"nothing")
    images = [
        (str(path), path.read_bytes()) if number % 3 else path
        for number, path in enumerate(paths)
    ]
    images[4] = predict.Result(name=str(paths[4]), error="it is gone")
    results = list(predict.classify_all(Counting(), iter(images), batch_size=4))
    assert sizes == [4, 3, 3]
    assert results[4] is images[4]
    images[4] = paths[4]
    sizes.clear()
    results = list(predict.classify_all(Counting(), iter(images), batch_size=4))
    assert sizes == [4, 3, 3]
    assert [result.name for result in results] == list(map(str, paths))
    assert "04.png is not a usable image" in results[4].error
    assert [r.predictions for r in results if not r.error] == [
        [number] for number in range(11) if number != 4
    ]
