"""Exports work in programs that import nothing of this project, in new processes."""

import json
import subprocess
import sys

import pytest

NOTHING_OF_OURS = """
import sys
ours = {"images", "zoo", "exporters", "conformance", "reuse", "training", "publishing"}
assert not ours & {name.split(".")[0] for name in sys.modules}, ours
"""

TRAIN = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tensorflow_hub as hub, tf_keras
tf_keras.utils.set_random_seed(0)
layer = hub.KerasLayer(sys.argv[1], trainable=True, input_shape=(64, 64, 3))
model = tf_keras.Sequential([layer, tf_keras.layers.Dense(2)])
assert len(layer.variables) == 260, len(layer.variables)
assert len(layer.trainable_variables) == 156, len(layer.trainable_variables)
assert sum(v.shape.num_elements() for v in layer.variables) == 2257984
assert len(layer.losses) == 1
rng = np.random.default_rng(0)
labels = np.arange(16) % 2
images = (rng.random((16, 64, 64, 3)) * 0.3 + 0.6 * labels[:, None, None, None])
before = [v.numpy() for v in layer.variables]
model.compile(
    optimizer=tf_keras.optimizers.Adam(1e-3),
    loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
history = model.fit(
    images.astype("float32"), labels, batch_size=16, epochs=8, verbose=0
).history["loss"]
still = [v.name for v, b in zip(layer.variables, before) if (v.numpy() == b).all()]
assert not still, still
assert history[-1] < 0.6 * history[0], history
print("trained", history[0], history[-1])
"""

PREDICT = """
import json, sys
import numpy as np, tensorflow_hub as hub
from PIL import Image
model = hub.load(sys.argv[1])
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB")
    w, h = image.size
    c = int(224 / (224 + 32) * min(w, h))
    top, left = (h - c + 1) // 2, (w - c + 1) // 2
    image = image.crop((left, top, left + c, top + c)).resize((224, 224), Image.BICUBIC)
    x = np.asarray(image, np.float32)[None] / 255
    print(json.dumps([float(v) for v in model(x)[0]]))
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script + NOTHING_OF_OURS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_hub_keras_layer_trains_all_variables(exported):
    folder = exported("mobilenet_v2") / "feature_vector" / "1"
    assert run(TRAIN, folder).startswith("trained")


@pytest.mark.slow
def test_real_weights_match_the_torch_code_on_nine_photographs(exported, photographs):
    folder = exported("efficientnet_lite0", "imagenet") / "classification" / "1"
    lines = run(PREDICT, folder, *[path for path, _ in photographs]).splitlines()
    assert len(lines) == len(photographs) == 9
    for line, (path, top5) in zip(lines, photographs, strict=True):
        logits = json.loads(line)
        best = sorted(range(1000), key=lambda c: -logits[c])[:5]
        assert best == [index for index, _, _ in top5], path
        for index, _, logit in top5:
            assert logits[index] == pytest.approx(logit, abs=1e-3), path


@pytest.mark.slow
def test_predict_prints_the_same(exported, photographs, tool):
    folder = exported("efficientnet_lite0", "imagenet") / "classification" / "1"
    done = tool("predict", folder, *[path for path, _ in photographs])
    assert done.returncode == 0, done.stderr
    rows = [line.split(None, 4) for line in done.stdout.splitlines() if line[0] == " "]
    expected = [row for _, top5 in photographs for row in top5]
    assert len(rows) == len(expected) == 45
    for (_, logit, index, _, name), (class_, class_name, value) in zip(
        rows, expected, strict=True
    ):
        assert (int(index), name) == (class_, class_name)
        # One pixel in 10,000 is rounded differently than by Pillow.
        assert float(logit) == pytest.approx(value, abs=2e-3)
