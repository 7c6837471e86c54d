"""Fine-tuning with the layer from a URL: accuracy and variables, with real weights."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import reuse
from conformance.clients import hub_load
from training.data import data_sources, split

FASHION_MNIST = "fashion_mnist:/usr/share/datasets/fashion-mnist"
SIZE = 96
RELOADS = """
import sys
import keras
import numpy as np
from reuse import KerasLayer

model, images, outputs = sys.argv[1:]
np.save(outputs, keras.models.load_model(model)(np.load(images)))
"""


def examples(source, name, count):
    """Returns at most `count` images of 96 × 96 pixels, and their labels."""
    opened = data_sources.open_split(source, name)
    chosen = np.random.default_rng(0).permutation(opened.size)[:count]
    images, labels = opened.fetch(chosen)
    images = tf.image.resize(images, (SIZE, SIZE), "bicubic")
    return tf.clip_by_value(images / 255, 0, 1).numpy(), labels


def values(variables):
    return [variable.numpy() for variable in variables]


def moved(before, variables):
    pairs = zip(before, values(variables), strict=True)
    return [not np.array_equal(*pair) for pair in pairs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "frozen", "tuned"),
    [("digits", 0.88, 0.93), (FASHION_MNIST, 0.75, 0.82)],
    ids=["digits", "fashion_mnist"],
)
def test_frozen_and_fine_tuned(exported, tmp_path, monkeypatch, source, frozen, tuned):
    """Measures accuracy on held-out images.

    Training a head moves no variable of the layer, and fine-tuning moves all.
    """
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    try:
        images, labels = examples(source, split.TRAIN, 2500)
    except ValueError:
        pytest.skip(f"{source} is not here")
    test = examples(source, split.TEST, 1000)
    keras.utils.set_random_seed(0)
    pair = exported("efficientnet_lite0", "imagenet")
    layer = reuse.KerasLayer(
        hub_load.serve(str(pair / "feature_vector" / "1")),
        arguments={"batch_norm_momentum": 0.9},
    )
    layers = [keras.Input((SIZE, SIZE, 3)), layer, keras.layers.BatchNormalization()]
    network = keras.Sequential([*layers, keras.layers.Dense(10)])

    def fit(rate, epochs):
        steps = epochs * -(-len(images) // 32)
        network.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        network.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
        return network.evaluate(*test, verbose=0)[1]

    before = values(layer.variables)
    frozen_accuracy = fit(3e-3, 2)
    assert not any(moved(before, layer.variables))
    assert frozen_accuracy > frozen
    layer.trainable = True
    trainable, non_trainable = layer.trainable_variables, layer.non_trainable_variables
    old_trainable, old_non_trainable = values(trainable), values(non_trainable)
    tuned_accuracy = fit(1e-3, 8)
    assert all(moved(old_trainable, trainable))
    assert all(moved(old_non_trainable, non_trainable))
    print(f"{source}: {frozen_accuracy:.4f} frozen, {tuned_accuracy:.4f} fine-tuned")
    assert tuned_accuracy > max(frozen_accuracy, tuned)
    paths = [tmp_path / name for name in ("m.keras", "images.npy", "outputs.npy")]
    network.save(paths[0])
    np.save(paths[1], images[:8])
    command = [sys.executable, "-c", RELOADS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(paths[2]), network(images[:8]), rtol=1e-4, atol=1e-4
    )
