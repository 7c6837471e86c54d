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
assert keras.backend.backend() == sys.argv[1]
for arch in sys.argv[3:]:
    model = zoo.build(arch)
    parity.randomise(model.classifier)
    images = np.load(f"{sys.argv[2]}/{'only_224' if 'mixer' in arch else 'any'}.npy")
    logits = model.classifier(images)
    np.save(f"{sys.argv[2]}/{arch}.npy", keras.ops.convert_to_numpy(logits))
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
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_with_tensorflow(backend, tmp_path, pytestconfig):
    pytest.importorskip(backend, reason=BACKENDS[backend], exc_type=ImportError)
    random = np.random.default_rng(0)
    images = {"any": (2, 65, 96, 3), "only_224": (2, 224, 224, 3)}
    for name, shape in images.items():
        images[name] = random.random(shape, np.float32)
        np.save(tmp_path / f"{name}.npy", images[name])
    done = subprocess.run(
        [sys.executable, "-c", BUILD, backend, str(tmp_path), *ARCHS],
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)},
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for arch, limit in ARCHS.items():
        model = zoo.build(arch)
        parity.randomise(model.classifier)
        logits = model.classifier(images["only_224" if "mixer" in arch else "any"])
        theirs = np.load(tmp_path / f"{arch}.npy")
        assert parity.relative(logits, theirs) < limit, arch
