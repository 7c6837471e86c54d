"""What others' tools do with our SavedModels, as they are: everywhere equal logits."""

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


def near(found, wanted):
    """To a 10,000th of the largest."""
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def command(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_saved_model_cli(folder, images, tmp_path):
    program = str(pathlib.Path(sys.executable).with_name("saved_model_cli"))
    shown = command(program, "show", f"--dir={folder}", "--all")
    for name in ("serving_default", "image_classification", "image_feature_vector"):
        assert f"signature_def['{name}']" in shown
    assert "shape: (-1, -1, -1, 3)" in shown
    np.save(tmp_path / "images.npy", images)
    command(
        *(program, "run", f"--dir={folder}", "--tag_set=serve"),
        *("--signature_def=serving_default", f"--outdir={tmp_path}"),
        f"--inputs=images={tmp_path / 'images.npy'}",
    )
    near(np.load(tmp_path / "default.npy"), logits(folder, images))


def test_tfsm_layer(folder, images):
    import keras

    layer = keras.layers.TFSMLayer(folder, call_endpoint="serving_default")
    wanted = logits(folder, images)
    near(layer(images)["default"], wanted)
    placed = keras.Input((SIDE, SIDE, 3))
    network = keras.Model(placed, layer(placed)["default"])
    near(network.predict(images, verbose=0), wanted)


def test_tf2onnx(folder, images, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    command(
        *(sys.executable, "-m", "tf2onnx.convert", "--saved-model", folder),
        *("--output", str(file), "--opset", "17"),
    )
    session = onnxruntime.InferenceSession(str(file))
    (found,) = session.run(["default"], {"images": images})
    near(found, logits(folder, images))


def test_litert_converter(folder, images):
    """Of `serving_default` alone: LiteRT has no ops for the files of `image_bytes`."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        folder, signature_keys=["serving_default"]
    )
    converted = converter.convert()
    interpreter = tf.lite.Interpreter(model_content=converted)
    run = interpreter.get_signature_runner("serving_default")
    near(run(images=images)["default"], logits(folder, images))
