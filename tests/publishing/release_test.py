"""From nothing to a stranger's program: exported, judged, published, served, loaded."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ARCH = "resnet_cifar_20"
STRANGER = """
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
def test_trained_weights_reach_a_stranger(tool, tmp_path):
    """With the accuracy that was measured on their page."""
    exports, hub = tmp_path / "exports", tmp_path / "hub"
    arguments = (f"--arch={ARCH}", "--weights=fashion_mnist", f"--output={exports}")
    assert tool("export", *arguments, "--check=none").returncode == 0
    done = tool("publish", exports / ARCH, f"--hub={hub}", timeout=590)
    assert done.returncode == 0, done.stderr
    handles = done.stdout.split()
    assert handles == [
        f"image-model-zoo/{ARCH}/{kind}/1"
        for kind in ("feature_vector", "classification")
    ]
    for handle in handles:
        folder = hub / handle.replace("zoo/", "zoo/models/", 1)
        clauses = json.loads((folder / "page.conformance.json").read_text())
        assert clauses == dict.fromkeys(["D01", "D02", "D03", "D04", "D05"], "pass")
        assert "93.9" in (folder / "page.md").read_text()
        assert "RANDOM" not in (folder / "page.md").read_text()
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    serve = [sys.executable, ROOT / "tools" / "serve", hub, "--port=0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1].rstrip("/")
            stranger = subprocess.run(
                [
                    *(sys.executable, "-I", "-c", STRANGER),
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
    assert stranger.returncode == 0, stranger.stderr[-2000:]
    model = exports / ARCH / "classification" / "1"
    import tensorflow as tf

    expected = tf.saved_model.load(str(model))(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-6)
