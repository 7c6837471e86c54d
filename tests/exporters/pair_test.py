"""Properties of an exported pair that is loaded with `tf.saved_model.load`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from exporters import manifest

FACTS = "tests/data/tfhub_mobilenet_v2_interface.json"
KINDS = ("feature_vector", "classification")


@pytest.fixture(scope="module")
def folders(exported):
    pair = exported("mobilenet_v2")
    return {kind: pair / kind / "1" for kind in KINDS}


@pytest.fixture(scope="module")
def models(folders):
    return {kind: tf.saved_model.load(str(path)) for kind, path in folders.items()}


@pytest.fixture
def trained(models):
    """Returns the models; restores their variables, which a test may change."""
    variables = [v for model in models.values() for v in model.variables]
    before = [v.numpy() for v in variables]
    yield models
    for variable, old in zip(variables, before, strict=True):
        variable.assign(old)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, 96, 64, 3), np.float32)


def size(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def test_variables_are_those_of_the_published_module(models, pytestconfig):
    published = json.loads((pytestconfig.rootpath / FACTS).read_text())
    vector = models["feature_vector"]
    assert len(vector.variables) == published["n_variables"] == 260
    assert len(vector.trainable_variables) == published["n_trainable_variables"] == 156
    assert size(vector.variables) == 2_257_984
    assert len(vector.regularization_losses) == published["n_regularization_losses"]
    assert size(models["classification"].variables) == 3_538_984


def test_outputs_equal_the_keras_models(models, images):
    model = zoo.build("mobilenet_v2", seed=0)
    expected = {
        "feature_vector": model.feature_vector(images),
        "classification": model.classifier(images),
    }
    for kind, value in expected.items():
        actual = models[kind](images)
        assert actual.dtype == tf.float32
        scale = float(np.abs(value).max())
        np.testing.assert_allclose(actual, value, atol=1e-5 * scale)


def test_inference_is_the_default_and_changes_nothing(models, images):
    for model in models.values():
        before = [v.numpy() for v in model.variables]
        np.testing.assert_array_equal(model(images), model(images, training=False))
        for old, new in zip(before, model.variables, strict=True):
            np.testing.assert_array_equal(old, new)


def test_training_moves_batch_statistics_only(trained, images):
    model = trained["classification"]
    trainable = {id(v) for v in model.trainable_variables}
    before = [v.numpy() for v in model.variables]
    model(images, training=True)
    moved = [
        (old != new.numpy()).any()
        for old, new in zip(before, model.variables, strict=True)
    ]
    for variable, has_moved in zip(model.variables, moved, strict=True):
        assert has_moved == (id(variable) not in trainable), variable.name


@pytest.mark.slow
def test_gradients_reach_every_trainable_variable(folders, images):
    for folder in folders.values():
        model = tf.saved_model.load(str(folder))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        assert all(gradient is not None for gradient in gradients)


def test_head_of_features_is_the_classifier(models, images):
    classifier = models["classification"]
    features = models["feature_vector"](images)
    np.testing.assert_allclose(classifier.head(features), classifier(images), atol=1e-6)
    assert [v.name for v in classifier.head.variables] == [
        "logits/kernel:0",
        "logits/bias:0",
    ]
    assert len(classifier.head.trainable_variables) == 2


def test_dropout_is_in_the_classifier_only(trained, images):
    def twice(kind):
        model = trained[kind]
        return np.array(model(images, training=True)), np.array(
            model(images, training=True)
        )

    first, second = twice("feature_vector")
    np.testing.assert_array_equal(first, second)
    first, second = twice("classification")
    assert (first != second).any()


def test_regularization_loss_is_half_the_decayed_squares(models, folders):
    model = models["classification"]
    record = manifest.read(folders["classification"])
    paths = record.variables
    squares = sum(
        float(tf.reduce_sum(variable**2)) / 2
        for path, variable in zip(paths, model.variables, strict=True)
        if path.endswith("/kernel") and "_depthwise/" not in path
    )
    (loss,) = model.regularization_losses
    assert float(loss()) == pytest.approx(4e-5 * squares, rel=1e-5)


@pytest.mark.slow
def test_no_weight_decay_means_no_loss(tool, tmp_path):
    done = tool(
        "export",
        "--arch=resnet_cifar_20",
        "--gin_binding=model.weight_decay=0.0",
        f"--output={tmp_path}",
        "--check=none",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "resnet_cifar_20" / "classification" / "1"
    assert len(tf.saved_model.load(str(folder)).regularization_losses) == 0


def test_signatures(models, images):
    for kind, model in models.items():
        names = {"serving_default", "image_bytes", "image_feature_vector"}
        if kind == "classification":
            names.add("image_classification")
        assert set(model.signatures) == names
        for name in names - {"image_bytes"}:
            (spec,) = model.signatures[name].structured_input_signature[1].values()
            assert spec.name == "images"
            assert spec.shape.as_list() == [None, None, None, 3]
            output_kind = "feature_vector" if name == "image_feature_vector" else kind
            expected = models[output_kind](images, return_endpoints=True)
            if name == "serving_default":
                expected = {"default": expected["default"]}
            outputs = model.signatures[name](images=tf.constant(images))
            assert outputs.keys() == expected.keys()
            for key, value in outputs.items():
                np.testing.assert_allclose(value, expected[key], atol=1e-5)


def test_encoded_images_are_preprocessed_and_classified(models):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    encoded = tf.stack([tf.io.encode_png(pixels), tf.io.encode_png(pixels[::-1])])
    for model in models.values():
        (spec,) = model.signatures["image_bytes"].structured_input_signature[1].values()
        assert (spec.name, spec.shape.as_list(), spec.dtype) == (
            *("image_bytes", [None]),
            tf.string,
        )
        outputs = model.signatures["image_bytes"](image_bytes=encoded)
        images = model.preprocess(encoded)
        assert images.shape == (2, 224, 224, 3)
        np.testing.assert_allclose(outputs["default"], model(images), atol=1e-5)


def test_the_class_index_travels_inside(models, folders):
    path = models["classification"].class_index.asset_path.numpy().decode()
    lines = tf.io.read_file(path).numpy().decode().splitlines()
    assert lines[0] == "index\tid\tname"
    assert len(lines) == 1001
    assert lines[1] == "0\tn01440764\ttench"
    assets = folders["feature_vector"] / "assets"
    assert [path.name for path in assets.iterdir()] == ["model.json"]


@pytest.mark.parametrize(
    "shape", [(1, 32, 32), (7, 33, 81), (1, 1024, 32), (1, 32, 1024)]
)
def test_batches_and_sizes(models, shape):
    images = np.random.default_rng(0).random((*shape, 3), np.float32)
    assert models["classification"](images).shape == (shape[0], 1000)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64, tf.uint8])
def test_other_dtypes_are_refused(models, dtype):
    with pytest.raises(ValueError, match="Could not find matching"):
        models["classification"](tf.zeros((1, 32, 32, 3), dtype))


def test_manifests_describe_the_models(folders, models):
    records = {kind: manifest.read(folder) for kind, folder in folders.items()}
    for kind, record in records.items():
        (other,) = set(KINDS) - {kind}
        assert record.files == manifest.file_hashes(folders[kind])
        assert record.pair == {
            "kind": other,
            "sha256": manifest.content_hash(manifest.file_hashes(folders[other])),
        }
        assert record.weights == {"name": "random", "seed": 0}
        assert record.params == {
            "all": size(models[kind].variables),
            "trainable": size(models[kind].trainable_variables),
        }
        names = [v.name.removesuffix(":0") for v in models[kind].variables]
        assert record.variables == names
        assert record.input["height_range"] == [32, 1024]
    assert records["classification"].multiply_adds == 300_774_272
    assert records["feature_vector"].class_index is None
    assert records["classification"].class_index == {
        "file": "assets/class_index.tsv",
        "taxonomy": "ilsvrc_2012",
        "background_class": False,
        "scores": "softmax",
    }


def test_no_random_state_is_saved(models):
    for model in models.values():
        assert all(v.dtype == tf.float32 for v in model.variables)
        captured = {
            id(tensor)
            for function in model.__call__.concrete_functions
            for tensor in function.captured_inputs
        }
        assert captured <= {id(v.handle) for v in model.variables}


def test_keras_is_the_backend_this_test_thinks():
    assert keras.backend.backend() == "tensorflow"
