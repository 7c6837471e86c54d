"""Tests models on Keras' other backends, in a separate process, against TensorFlow."""

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
backend, arch, images, logits = sys.argv[1:]
assert keras.backend.backend() == backend
model = zoo.build(arch)
parity.randomise(model.classifier)
outputs = model.classifier(np.load(images))
np.save(logits, keras.ops.convert_to_numpy(outputs))
assert "tensorflow" not in sys.modules
"""
BACKENDS = {"torch": oracles.HOW, "jax": "tools/setup jax"}
# Different convolution algorithms differ more in networks with many of them.
ARCHS = {
    **dict.fromkeys(("mobilenet_v2", "resnet_v1_50", "efficientnet_b0"), 1e-4),
    **dict.fromkeys(("convnext_v2_atto", "vit_tiny_16", "deit3_small_16"), 1e-5),
    **dict.fromkeys(("deit_tiny_16_distilled", "dinov2_small_14_registers"), 1e-5),
    **dict.fromkeys(("dinov3_small_16", "clip_base_32", "swin_tiny"), 1e-5),
    **dict.fromkeys(("swin_v2_tiny_window8", "mlp_mixer_small_32"), 1e-5),
    **dict.fromkeys(("mobilevit_v1_xxs", "mobilevit_v2_050"), 1e-5),
    "maxvit_tiny": 1e-4,
}


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "limit"), ARCHS.items())
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_with_tensorflow(backend, arch, limit, tmp_path, pytestconfig):
    pytest.importorskip(backend, reason=BACKENDS[backend], exc_type=ImportError)
    shape = (2, 224, 224, 3) if "mixer" in arch else (2, 65, 96, 3)
    images = np.random.default_rng(0).random(shape, np.float32)
    files = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(files[0], images)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, backend, arch, *map(str, files)],
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)},
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model = zoo.build(arch)
    parity.randomise(model.classifier)
    assert parity.relative(model.classifier(images), np.load(files[1])) < limit
