"""Third-party tools run our SavedModels unchanged and give the same logits."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

ARCHS = {"mobilenet_v2": "random", "efficientnet_lite0": "imagenet"}
SIDE = 224

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("arch", ARCHS)]


@pytest.fixture
def folder(exported, arch):
    path = exported(arch, ARCHS[arch])
    return str(path / "classification" / "1")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)


def logits(folder, images):
    return tf.saved_model.load(folder)(images).numpy()


def assert_near(actual, expected):
    """Asserts that arrays agree to 1e-4 of the largest expected value."""
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def command(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_saved_model_cli(folder, images, tmp_path):
    program = str(pathlib.Path(sys.executable).with_name("saved_model_cli"))
    description = command(program, "show", f"--dir={folder}", "--all")
    for name in ("serving_default", "image_classification", "image_feature_vector"):
        assert f"signature_def['{name}']" in description
    assert "shape: (-1, -1, -1, 3)" in description
    np.save(tmp_path / "images.npy", images)
    command(
        *(program, "run", f"--dir={folder}", "--tag_set=serve"),
        *("--signature_def=serving_default", f"--outdir={tmp_path}"),
        f"--inputs=images={tmp_path / 'images.npy'}",
    )
    assert_near(np.load(tmp_path / "default.npy"), logits(folder, images))


def test_tfsm_layer(folder, images):
    import keras

    layer = keras.layers.TFSMLayer(folder, call_endpoint="serving_default")
    expected = logits(folder, images)
    assert_near(layer(images)["default"], expected)
    inputs = keras.Input((SIDE, SIDE, 3))
    network = keras.Model(inputs, layer(inputs)["default"])
    assert_near(network.predict(images, verbose=0), expected)


def test_tf2onnx(folder, images, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    command(
        *(sys.executable, "-m", "tf2onnx.convert", "--saved-model", folder),
        *("--output", str(file), "--opset", "17"),
    )
    session = onnxruntime.InferenceSession(str(file))
    (actual,) = session.run(["default"], {"images": images})
    assert_near(actual, logits(folder, images))


def test_litert_converter(folder, images):
    """Converts `serving_default` only: LiteRT has no ops that decode `image_bytes`."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        folder, signature_keys=["serving_default"]
    )
    converted = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=converted)
    run = interpreter.get_signature_runner("serving_default")
    assert_near(run(images=images)["default"], logits(folder, images))
