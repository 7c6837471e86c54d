"""Tests reading weights from checkpoints and SavedModels, also damaged ones."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import zoo
from exporters import manifest
from zoo.weights import checkpoint, weights_file

ARCH = "resnet_cifar_20"


def write(prefix, **values):
    """Writes a checkpoint as TensorFlow 1 does."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=value)
            for name, value in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(
            session, str(prefix), write_meta_graph=False
        )
    return prefix


@pytest.fixture
def prefix(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    return write(tmp_path / "model.ckpt-7", **{"net/kernel": value, "step": 7})


def test_tensors_are_read_by_name_when_asked_for(prefix):
    tensors = weights_file.read(prefix).tensors
    assert {name: t.shape for name, t in tensors.items()} == {
        "net/kernel": (2, 3),
        "step": (),
    }
    assert np.asarray(tensors["net/kernel"])[1, 2] == 5
    assert weights_file.kind(prefix) == "checkpoint"


def test_the_hash_is_of_all_files(prefix):
    before = weights_file.sha256(prefix)
    (data,) = prefix.parent.glob("*.data-*")
    data.write_bytes(data.read_bytes()[::-1])
    assert weights_file.sha256(prefix) != before


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused(prefix, seed):
    rng = np.random.default_rng(seed)
    for path in weights_file.parts(prefix):
        data = bytearray(path.read_bytes())
        for index in rng.integers(0, len(data), 3):
            data[index] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)])
    with pytest.raises(ValueError, match=r"ckpt-7|can't be read") as caught:
        [np.asarray(tensor) for tensor in checkpoint.read(prefix).values()]
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_its_data_is_refused(prefix):
    (data,) = prefix.parent.glob("*.data-*")
    data.unlink()
    with pytest.raises(ValueError, match=r"ckpt-7|can't be read"):
        [np.asarray(tensor) for tensor in checkpoint.read(prefix).values()]


def values(path, **kwargs):
    model = zoo.build(ARCH, weights=str(path), **kwargs)
    return model, {v.path: np.asarray(v) for v in model.classifier.weights}


@pytest.fixture(scope="module")
def exports(exported):
    return exported(ARCH)


def exported_values(exports, kind):
    """Returns an exported model's values by path, read by TensorFlow alone."""
    folder = exports / kind / "1"
    model = tf.saved_model.load(str(folder))
    paths = manifest.read(folder).variables
    return dict(zip(paths, (v.numpy() for v in model.variables), strict=True))


def test_an_exported_classifier_comes_back(exports):
    model, actual = values(exports / "classification" / "1")
    expected = exported_values(exports, "classification")
    assert actual.keys() == expected.keys()
    assert all((actual[path] == expected[path]).all() for path in actual)
    assert model.weights["name"] == "random", "as the export says of itself"


def test_an_exported_feature_vector_comes_back_without_a_head(exports):
    model, actual = values(exports / "feature_vector" / "1", seed=5)
    expected = exported_values(exports, "feature_vector")
    assert actual.keys() - expected.keys() == {"logits/kernel", "logits/bias"}
    assert all((actual[path] == expected[path]).all() for path in expected)
    assert model.weights["head"] == {"name": "random", "seed": 5}


def test_another_archs_export_is_refused(exports):
    with pytest.raises(ValueError, match=f"its record has the arch '{ARCH}'"):
        zoo.build("resnet_cifar_32", weights=str(exports / "classification" / "1"))


def test_damaged_manifests_are_refused(exports, tmp_path):
    folder = shutil.copytree(exports / "classification" / "1", tmp_path / "model")
    for text in ("{", "[]", json.dumps({"arch": ARCH}), "\xff"):
        (folder / manifest.MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match="damaged record|is not text"):
            zoo.build(ARCH, weights=str(folder))
    (folder / manifest.MANIFEST).unlink()
    assert zoo.build(ARCH, weights=str(folder)).weights["name"] == "saved_model"


FINE_TUNE = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras
source, target = sys.argv[1:]
layer = hub.KerasLayer(source, trainable=True, input_shape=(16, 16, 3))
model = tf_keras.Sequential([layer, tf_keras.layers.Dense(2)])
model.compile("adam", "mse")
model.fit(np.ones((4, 16, 16, 3), "float32"), np.ones((4, 2)), verbose=0)
tf.saved_model.save(layer.resolved_object, f"{target}/alone")
model.save(f"{target}/model")
model.save_weights(f"{target}/checkpoint")
model.save_weights(f"{target}/legacy.h5")
values = {v.name.removesuffix(":0"): v.numpy() for v in layer.variables}
np.savez(f"{target}/values.npz", **values)
"""


@pytest.fixture(scope="module")
def fine_tuned(exports, tmp_path_factory):
    target = tmp_path_factory.mktemp("fine_tuned")
    source = exports / "feature_vector" / "1"
    subprocess.run(
        [sys.executable, "-c", FINE_TUNE, source, target], check=True, timeout=300
    )
    return target


@pytest.mark.slow
def test_a_fine_tuned_keras_layer_comes_back(exports, fine_tuned):
    _, actual = values(fine_tuned / "alone")
    before = exported_values(exports, "feature_vector")
    with np.load(fine_tuned / "values.npz") as expected:
        assert len(expected.files) == 95
        for path in expected.files:
            np.testing.assert_array_equal(actual[path], expected[path])
            assert (actual[path] != before[path]).any(), path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "checkpoint", "legacy.h5"])
def test_a_whole_fine_tuned_model_has_a_layer_too_many(fine_tuned, name):
    with pytest.raises(ValueError, match=r"95 matched.*2 unused \(dense/") as caught:
        zoo.build(ARCH, weights=str(fine_tuned / name))
    assert "Save the layer alone" in str(caught.value)


def test_weights_of_ours_without_a_record_are_read_too(exports, tmp_path):
    expected = exported_values(exports, "classification")
    safetensors.numpy.save_file(expected, tmp_path / "bare.safetensors")
    model, actual = values(tmp_path / "bare.safetensors")
    assert all((actual[path] == expected[path]).all() for path in expected)
    assert model.weights["name"] == "safetensors"
