"""Tests models on Keras' torch backend, in a separate process, against TensorFlow."""

import os
import subprocess
import sys

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity

BUILD = """
import sys
import keras, numpy as np, zoo
from tests.zoo import parity
assert keras.backend.backend() == "torch"
for arch in sys.argv[2:]:
    model = zoo.build(arch)
    parity.randomise(model.classifier)
    logits = model.classifier(np.load(sys.argv[1]))
    np.save(f"{sys.argv[1]}.{arch}.npy", keras.ops.convert_to_numpy(logits))
assert "tensorflow" not in sys.modules
"""
ARCHS = ("mobilenet_v2", "resnet_v1_50", "efficientnet_b0")


@pytest.mark.slow
def test_torch_agrees_with_tensorflow(tmp_path, pytestconfig):
    pytest.importorskip("torch", reason=oracles.HOW)
    images = np.random.default_rng(0).random((2, 65, 96, 3), np.float32)
    path = tmp_path / "images.npy"
    np.save(path, images)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(path), *ARCHS],
        env={**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path)},
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for arch in ARCHS:
        model = zoo.build(arch)
        parity.randomise(model.classifier)
        theirs = np.load(f"{path}.{arch}.npy")
        assert parity.relative(model.classifier(images), theirs) < 1e-4, arch
