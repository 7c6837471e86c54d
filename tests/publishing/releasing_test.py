"""Exports, checks, publishes and serves models, and loads them as a client."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Arch: weights, options of the export, image size, accuracy on its page.
RELEASES = {
    "resnet_cifar_20": ("fashion_mnist", [], 32, "93.9"),
    "mobilenet_v2_035_96": (
        "fashion_mnist",
        ["--gin_binding=MobileNetV2.image_size=64"],
        64,
        "93.0",
    ),
    "efficientnet_lite0": ("imagenet", [], 224, "as published: 75.1"),
}
CLIENT = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_hub as hub

url, images, logits = sys.argv[1:]
images = np.load(images)
np.save(logits, hub.load(url)(images))
layer = hub.KerasLayer(url, trainable=True)
assert len(layer.trainable_variables) > 10
np.testing.assert_allclose(layer(images), np.load(logits), rtol=1e-5, atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arch", RELEASES)
def test_trained_weights_reach_a_client(tool, tmp_path, arch):
    """The page of the model states the accuracy of the weights."""
    weights, options, side, accuracy = RELEASES[arch]
    exports, hub = tmp_path / "exports", tmp_path / "hub"
    arguments = (f"--arch={arch}", f"--weights={weights}", f"--output={exports}")
    done = tool("export", *arguments, *options, "--check=none")
    assert done.returncode == 0, done.stderr
    done = tool("publish", exports / arch, f"--hub={hub}", timeout=1100)
    assert done.returncode == 0, done.stderr
    handles = done.stdout.split()
    assert handles == [
        f"image-model-zoo/{arch}/{kind}/1"
        for kind in ("feature_vector", "classification")
    ]
    for handle in handles:
        folder = hub / handle.replace("zoo/", "zoo/models/", 1)
        clauses = json.loads((folder / "page.conformance.json").read_text())
        assert clauses == dict.fromkeys(["D01", "D02", "D03", "D04", "D05"], "pass")
        assert accuracy in (folder / "page.md").read_text()
        assert "RANDOM" not in (folder / "page.md").read_text()
    images = np.random.default_rng(0).random((4, side, side, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    serve = [sys.executable, ROOT / "tools" / "serve", hub, "--port=0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1].rstrip("/")
            client = subprocess.run(
                [
                    *(sys.executable, "-I", "-c", CLIENT),
                    f"{address}/{handles[1]}",
                    *(tmp_path / "images.npy", tmp_path / "logits.npy"),
                ],
                env={
                    "TF_USE_LEGACY_KERAS": "1",
                    "TFHUB_CACHE_DIR": str(tmp_path / "c"),
                },
                capture_output=True,
                text=True,
            )
        finally:
            server.terminate()
    assert client.returncode == 0, client.stderr[-2000:]
    model = exports / arch / "classification" / "1"
    import tensorflow as tf

    expected = tf.saved_model.load(str(model))(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-6)
