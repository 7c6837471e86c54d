"""Fused ops compute what Keras' own layers do, in both modes, from live variables."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

import zoo
from exporters import fused
from tests.exporters import generations

IMAGES = np.random.default_rng(0).random((6, 64, 64, 3), np.float32)
SAMPLE = ("mobilenet_v2_035_96", "efficientnet_lite0", "resnet_v2_50")


# Of training at 64 pixels: the last statistics are over 24 places, and deviations
# near zero magnify what is rounded.
LIMIT = 1e-3


def built(arch):
    """A model whose statistics and gammas are not those that it began with."""
    model = zoo.build(arch, seed=0)
    random = np.random.default_rng(1)
    for variable in model.backbone.weights:
        low, high = {
            "moving_variance": (0.5, 2),
            "gamma": (0.5, 1.5),
            "moving_mean": (-0.3, 0.3),
            "beta": (-0.3, 0.3),
        }.get(variable.name, (None, None))
        if low is not None:
            variable.assign(random.uniform(low, high, variable.shape))
    # Nothing is left to chance.
    for layer in model.backbone._flatten_layers():
        if hasattr(layer, "rate"):
            layer.rate = 0.0
    return model


def traced(model, *, training):
    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model.backbone, training=training):
            return model.endpoints(images, training=training)

    return call


def assert_close(found, expected, name, limit=2e-5):
    found, expected = np.asarray(found), np.asarray(expected)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < limit, f"{name}: {difference:.1e}"


def statistics(model):
    return {v.path: v.numpy() for v in model.backbone.non_trainable_weights}


@pytest.mark.slow_except("mobilenet_v2_035_96")
@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=() if arch in SAMPLE else pytest.mark.slow)
        for arch in dict.fromkeys((*SAMPLE, *generations.ARCHS))
    ],
)
def test_fused_ops_compute_what_keras_does(arch):
    model = built(arch)
    before = model.backbone.get_weights()
    call = traced(model, training=False)
    expected = model.endpoints(IMAGES)
    found = call(IMAGES)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, f"{arch} {name}")

    kernel = next(v for v in model.backbone.weights if v.name == "kernel")
    kernel.assign(kernel * 1.5)
    variance = next(v for v in model.backbone.weights if v.name == "moving_variance")
    variance.assign(variance * 3.0)
    assert_close(
        call(IMAGES)["feature_vector"],
        model.endpoints(IMAGES)["feature_vector"],
        f"{arch}, assigned",
    )

    model.backbone.set_weights(before)
    expected = model.endpoints(IMAGES, training=True)
    kept = statistics(model)
    model.backbone.set_weights(before)
    found = traced(model, training=True)(IMAGES)
    for name, value in expected.items():
        assert_close(found[name], value, f"{arch} {name}, training", limit=LIMIT)
    for path, value in statistics(model).items():
        assert_close(value, kept[path], path, limit=LIMIT)


def test_training_gradients_are_those_of_keras():
    """Of an architecture without kinks, at which rounding decides on gradients."""
    model = built("efficientnet_b0")
    weights = np.random.default_rng(2).normal(size=(6, 1280)).astype(np.float32)
    variables = [v.value for v in model.backbone.trainable_weights]

    def gradients(call):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(IMAGES)["feature_vector"] * weights)
        return tape.gradient(loss, variables)

    found = gradients(traced(model, training=True))
    expected = gradients(lambda images: model.endpoints(images, training=True))
    scale = max(float(tf.norm(gradient)) for gradient in expected)
    for variable, ours, theirs in zip(variables, found, expected, strict=True):
        assert float(tf.norm(ours - theirs)) < 1e-3 * scale, variable.name


def test_layers_are_their_own_again_afterwards():
    model = built("mobilenet_v2_035_96")
    layers = list(model.backbone._flatten_layers())

    def changed():
        return [layer.name for layer in layers if "call" in vars(layer)]

    with (
        contextlib.suppress(KeyError),
        fused.use_fused_ops(model.backbone, training=False),
    ):
        assert len(changed()) > 50
        raise KeyError
    assert not changed()
