"""Exports work with the oldest supported TensorFlow, in a separate environment."""

import json
import pathlib
import subprocess
import venv

import numpy as np
import pytest
import tensorflow as tf

import zoo

LOCK = pathlib.Path(__file__).resolve().parents[2] / "requirements" / "oldest.lock"
ARCH = "mobilenet_v2_035_96"

# Prints its results as JSON on the last line.
HUB_MODULE = """
import json, sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub
v1 = tf.compat.v1
spec = hub.load_module_spec(sys.argv[1])
height, width = hub.get_expected_image_size(spec)
with tf.Graph().as_default(), v1.Session() as session:
    channels = hub.get_num_image_channels(spec)
    images = v1.placeholder(tf.float32, [None, height, width, channels])
    module = hub.Module(spec, trainable=True, tags={"train"})
    logits = module(images)
    updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
    losses = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
    labels = np.arange(8) % 2
    loss = v1.losses.sparse_softmax_cross_entropy(labels, logits) + losses[0]
    with tf.control_dependencies(updates):
        step = v1.train.AdamOptimizer(1e-3).minimize(loss)
    session.run(v1.global_variables_initializer())
    before = session.run(v1.global_variables()[: len(module.variable_map)])
    rng = np.random.default_rng(0)
    batch = rng.random((8, height, width, 3)) * 0.3 + 0.6 * labels[:, None, None, None]
    trainable = len(v1.trainable_variables())
    history = [float(session.run([loss, step], {images: batch})[0]) for _ in range(12)]
    after = session.run(v1.global_variables()[: len(module.variable_map)])
    module.export(sys.argv[2], session)
with tf.Graph().as_default(), v1.Session() as session:
    module = hub.Module(sys.argv[1])
    images = v1.placeholder(tf.float32, [None, height, width, 3])
    features = module(images, signature="image_feature_vector")
    endpoints = module(images, signature="image_feature_vector", as_dict=True)
    session.run(v1.global_variables_initializer())
    outputs = session.run(module(images), {images: batch})
    names = sorted(endpoints)
hub.load_module_spec(sys.argv[2])
print(json.dumps({
    "size": [height, width],
    "tags": sorted(map(sorted, spec.get_tags())),
    "signatures": sorted(spec.get_signature_names()),
    "variables": len(before), "trainable": trainable,
    "updates": len(updates), "losses": len(losses), "history": history,
    "unchanged": sum(bool((a == b).all()) for a, b in zip(before, after)),
    "names": names, "features": features.shape.as_list(), "logits": outputs.tolist(),
}))
"""

SAVED_MODEL = """
import json, sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub
rng = np.random.default_rng(0)
labels = np.arange(8) % 2
batch = rng.random((8, 96, 96, 3)) * 0.3 + 0.6 * labels[:, None, None, None]
batch = batch.astype("float32")
logits = hub.load(sys.argv[1])(batch).numpy()
tf.keras.utils.set_random_seed(0)
layer = hub.KerasLayer(
    sys.argv[2], trainable=True, arguments={"batch_norm_momentum": 0.9},
    input_shape=(96, 96, 3),
)
model = tf.keras.Sequential([layer, tf.keras.layers.Dense(2)])
before = [v.numpy() for v in layer.variables]
model.compile(
    tf.keras.optimizers.Adam(1e-3),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
history = model.fit(batch, labels, batch_size=8, epochs=10, verbose=0).history["loss"]
unchanged = sum(bool((v.numpy() == b).all()) for v, b in zip(layer.variables, before))
result = {"logits": logits.tolist(), "history": history, "unchanged": unchanged}
print(json.dumps(result))
"""

ENDPOINT = """
import sys
import numpy as np, tensorflow as tf, tensorflow_hub as hub
v1, name = tf.compat.v1, "InceptionV3/Mixed_5c"
images = np.random.default_rng(0).random((1, 299, 299, 3)).astype("float32")
from_saved_model = hub.load(sys.argv[1])(images, return_endpoints=True)[name].numpy()
with tf.Graph().as_default(), v1.Session() as session:
    module = hub.Module(sys.argv[2])
    endpoints = module(images, signature="image_feature_vector", as_dict=True)
    session.run(v1.global_variables_initializer())
    from_module = session.run(endpoints[name])
np.save(sys.argv[3], np.stack([from_saved_model, from_module]))
print("{}")
"""


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    """Returns a function that runs a script with TensorFlow 2.15.1 and Hub 0.15.0."""
    home = tmp_path_factory.mktemp("oldest")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--require-hashes"]
    done = subprocess.run([*install, "-r", LOCK], capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr

    def run(script, *arguments):
        command = [python, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def folder(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    formats = "--format=saved_model,tf1_hub"
    done = tool(
        "export", f"--arch={ARCH}", formats, "--check=none", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    return output / ARCH


def batch():
    labels = np.arange(8) % 2
    noise = np.random.default_rng(0).random((8, 96, 96, 3))
    return (noise * 0.3 + 0.6 * labels[:, None, None, None]).astype(np.float32)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_hub_module_takes_and_trains_the_tf1_hub_format(oldest, folder, tmp_path):
    result = oldest(HUB_MODULE, folder / "tf1_hub/classification/1", tmp_path / "again")
    assert result["size"] == [96, 96]
    assert result["tags"] == [[], ["train"]]
    assert result["signatures"] == [
        *("default", "image_classification", "image_feature_vector"),
    ]
    counts = {k: result[k] for k in ("variables", "trainable", "updates", "losses")}
    assert counts == {"variables": 262, "trainable": 158, "updates": 104, "losses": 1}
    assert result["unchanged"] == 0
    assert result["history"][-1] < 0.5 * result["history"][0]
    assert result["features"] == [None, 1280]
    assert "MobileNetV2/feature_map" in result["names"]
    model = tf.saved_model.load(str(folder / "classification" / "1"))
    np.testing.assert_allclose(result["logits"], model(batch()), atol=1e-5)


def test_the_pair_loads_and_trains(oldest, folder):
    folders = [folder / kind / "1" for kind in ("classification", "feature_vector")]
    result = oldest(SAVED_MODEL, *folders)
    model = tf.saved_model.load(str(folders[0]))
    np.testing.assert_allclose(result["logits"], model(batch()), atol=1e-5)
    assert result["unchanged"] == 0
    assert result["history"][-1] < 0.5 * result["history"][0]


def test_an_endpoint_has_the_name_that_the_paper_gives_it(oldest, tool, tmp_path):
    done = tool(
        *("export", "--arch=inception_v3", "--format=saved_model,tf1_hub"),
        *("--check=none", f"--output={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    subfolders = ("feature_vector/1", "tf1_hub/feature_vector/1")
    folders = [tmp_path / "inception_v3" / subfolder for subfolder in subfolders]
    oldest(ENDPOINT, *folders, tmp_path / "endpoints.npy")
    images = np.random.default_rng(0).random((1, 299, 299, 3)).astype(np.float32)
    model = zoo.build("inception_v3", seed=0)
    expected = model.endpoints(images)["Mixed_5c"].numpy()
    for actual in np.load(tmp_path / "endpoints.npy"):
        np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
