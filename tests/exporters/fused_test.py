"""Fused ops match Keras' layers in both modes, and follow changes of variables."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from exporters import fused
from tests.exporters import generations
from zoo import facts
from zoo.layers import conv_norm, norm_activation

IMAGES = np.random.default_rng(0).random((6, 64, 64, 3), np.float32)
SAMPLE = ("mobilenet_v2_035_96", "efficientnet_lite0", "resnet_v2_50")


# For training at 64 pixels: the last statistics are over 24 positions, and deviations
# near zero magnify rounding errors.
LIMIT = 1e-3
# Compared with float64, Keras' ops differ by 4.8e-5 here, and the fused ones by 5.2e-5.
INFERENCE_LIMITS = {"se_resnet_50": 1e-4}
# In training, 6.8e-3 and 1.2e-2.
TRAINING_LIMITS = {"inception_v4": 2e-2}


def built(arch):
    """Builds a model with random statistics, scales and biases, and without dropout."""
    model = zoo.build(arch, seed=0)
    randomise(model.backbone)
    # Makes training deterministic.
    for layer in model.backbone._flatten_layers():
        if hasattr(layer, "rate"):
            layer.rate = 0.0
    return model


def images_for(arch):
    """Returns images of 64 px, or of the size that the arch needs.

    At three times the smallest size, the last statistics are over more than one
    position. The archs that take no images below 128 px have no norms there.
    """
    smallest_size = facts.value(facts.load(arch), "height_range")[0]
    if smallest_size <= 64:
        return IMAGES
    size, number = (3 * smallest_size, 6) if smallest_size < 128 else (smallest_size, 2)
    return np.random.default_rng(0).random((number, size, size, 3), np.float32)


def randomise(model):
    random = np.random.default_rng(1)
    for variable in model.weights:
        low, high = {
            "moving_variance": (0.5, 2),
            "gamma": (0.5, 1.5),
            "moving_mean": (-0.3, 0.3),
            "beta": (-0.3, 0.3),
            "bias": (-0.3, 0.3),
        }.get(variable.name, (None, None))
        if low is not None:
            variable.assign(random.uniform(low, high, variable.shape))


def traced(model, *, training):
    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model.backbone, training=training):
            return model.endpoints(images, training=training)

    return call


def assert_close(actual, expected, name, limit=2e-5):
    actual, expected = np.asarray(actual), np.asarray(expected)
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
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
    model, images = built(arch), images_for(arch)
    before = model.backbone.get_weights()
    call = traced(model, training=False)
    expected = model.endpoints(images)
    outputs = call(images)
    assert outputs.keys() == expected.keys()
    limit = INFERENCE_LIMITS.get(arch, 2e-5)
    training_limit = TRAINING_LIMITS.get(arch, LIMIT)
    for name, value in expected.items():
        assert_close(outputs[name], value, f"{arch} {name}", limit=limit)

    kernel = next(v for v in model.backbone.weights if v.name == "kernel")
    kernel.assign(kernel * 1.5)
    for variable in model.backbone.weights:
        if variable.name == "moving_variance":
            variable.assign(variable * 3.0)
            break
    assert_close(
        call(images)["feature_vector"],
        model.endpoints(images)["feature_vector"],
        f"{arch}, assigned",
        limit=limit,
    )

    model.backbone.set_weights(before)
    expected = model.endpoints(images, training=True)
    expected_statistics = statistics(model)
    model.backbone.set_weights(before)
    outputs = traced(model, training=True)(images)
    for name, value in expected.items():
        assert_close(
            outputs[name], value, f"{arch} {name}, training", limit=training_limit
        )
    for path, value in statistics(model).items():
        assert_close(value, expected_statistics[path], path, limit=training_limit)


@pytest.mark.ci
def test_training_gradients_are_those_of_keras():
    """Uses an architecture without kinks, where rounding would decide the gradients."""
    model = built("efficientnet_b0")
    weights = np.random.default_rng(2).normal(size=(6, 1280)).astype(np.float32)
    variables = [v.value for v in model.backbone.trainable_weights]

    def gradients(call):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(IMAGES)["feature_vector"] * weights)
        return tape.gradient(loss, variables)

    fused_gradients = gradients(traced(model, training=True))
    keras_gradients = gradients(lambda images: model.endpoints(images, training=True))
    scale = max(float(tf.norm(gradient)) for gradient in keras_gradients)
    for variable, ours, theirs in zip(
        variables, fused_gradients, keras_gradients, strict=True
    ):
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


def options():
    """Builds a small network with each option of `ConvNorm` and `NormActivation`."""
    plain = {"activation": "relu", "norm_momentum": 0.9, "norm_epsilon": 1e-3}
    plain |= {"initializer": "he_normal", "depthwise_initializer": "he_normal"}
    style = conv_norm.Style(**plain)
    unscaled = conv_norm.Style(**plain, norm_scale=False, padding="symmetric")
    biased = conv_norm.Style(**plain, bias=True, padding="valid")
    images = keras.Input((None, None, 3))
    x = conv_norm.ConvNorm(8, kernel_size=(3, 5), style=biased, name="valid")(images)
    x = conv_norm.ConvNorm(None, kernel_size=3, style=biased, name="depthwise")(x)
    x = conv_norm.ConvNorm(
        8, kernel_size=(1, 7), strides=2, style=unscaled, name="wide"
    )(x)
    x = conv_norm.ConvNorm(16, kernel_size=(7, 1), style=unscaled, name="high")(x)
    x = conv_norm.ConvNorm(8, kernel_size=3, groups=4, style=style, name="groups")(x)
    x = conv_norm.ConvNorm(
        8, kernel_size=3, strides=2, padding="valid", style=style, name="other"
    )(x)
    x = norm_activation.NormActivation(style=unscaled, name="norm")(x)
    model = keras.Model(images, x)
    randomise(model)
    return model


@pytest.mark.parametrize("largest", [0, fused.LARGEST_FOLDED], ids=["scaled", "folded"])
@pytest.mark.parametrize("constant", [False, True])
def test_every_option_of_convolutions_is_computed(largest, constant, monkeypatch):
    monkeypatch.setattr(fused, "LARGEST_FOLDED", largest)
    model = options()
    paths = {variable.path for variable in model.weights}
    assert {"valid/conv/bias", "valid/norm/gamma", "wide/norm/beta"} <= paths
    assert not {"wide/conv/bias", "wide/norm/gamma"} & paths
    expected = model(IMAGES)

    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model, training=False, constant=constant):
            return model(images)

    assert_close(call(IMAGES), expected, "inference")


def test_every_option_of_convolutions_is_trained():
    model = options()
    before = model.get_weights()
    with tf.GradientTape() as tape:
        expected = model(IMAGES, training=True)
        loss = tf.reduce_sum(expected**2)
    keras_gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    expected_statistics = {v.path: v.numpy() for v in model.non_trainable_weights}
    model.set_weights(before)

    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model, training=True):
            return model(images, training=True)

    with tf.GradientTape() as tape:
        outputs = call(IMAGES)
        loss = tf.reduce_sum(outputs**2)
    assert_close(outputs, expected, "training")
    fused_gradients = tape.gradient(loss, [v.value for v in model.trainable_weights])
    for variable, actual, reference in zip(
        model.trainable_weights, fused_gradients, keras_gradients, strict=True
    ):
        # A bias before batch norm has no effect except for rounding.
        if variable.path.endswith("conv/bias"):
            continue
        assert_close(actual, reference, variable.path, limit=LIMIT)
    for variable in model.non_trainable_weights:
        assert_close(
            variable.numpy(), expected_statistics[variable.path], variable.path
        )


def without_norms():
    """Builds a small network with the layers of VGG and of transformers."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(images)
    x = keras.layers.Conv2D(8, (3, 5), padding="same", activation="gelu")(x)
    x = keras.layers.Conv2D(8, 1, activation="gelu", name="expand")(x)
    x = keras.layers.Conv2D(6, (5, 3), activation="relu", name="fc6")(x)
    x = keras.layers.Conv2D(6, 1, activation="relu", use_bias=False, name="fc7")(x)
    x = keras.layers.Conv2D(6, 2, dilation_rate=2, name="dilated")(x)
    x = keras.layers.Dense(9, activation="gelu")(x)
    x = keras.layers.Dense(4, use_bias=False)(x)
    model = keras.Model(images, x)
    randomise(model)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_layers_without_norms_are_computed(training, monkeypatch):
    monkeypatch.setattr(fused, "SMALLEST_MULTIPLIED", 20)
    model = without_norms()

    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model, training=training):
            return model(images, training=training)

    for images in (IMAGES, IMAGES[:1, :19, :15]):
        variables = [v.value for v in model.trainable_weights]
        with tf.GradientTape(persistent=True) as tape:
            outputs, expected = call(images), model(images)
            losses = [tf.reduce_sum(x**2) for x in (outputs, expected)]
        assert_close(outputs, expected, "outputs")
        gradients = [tape.gradient(loss, variables) for loss in losses]
        for variable, ours, theirs in zip(variables, *gradients, strict=True):
            assert_close(ours, theirs, variable.name, limit=1e-4)
    graph = call.get_concrete_function(tf.TensorSpec([None, None, None, 3])).graph
    kinds = [op.type for op in graph.get_operations()]
    # As products: `expand`, fc6, fc7 and both dense layers.
    assert (kinds.count("ExtractImagePatches"), kinds.count("Conv2D")) == (1, 3)
    assert kinds.count("MatMul") == 5


def test_a_sum_that_two_layers_read_is_not_fused():
    """TensorFlow's optimizer fails if it fuses that sum with the convolution."""
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 1, name="shortcut")(images)
    total = keras.layers.Add(name="total")([x, keras.layers.Conv2D(4, 1)(images)])
    activated = keras.layers.Activation("relu")(total)
    outputs = keras.layers.Add(name="last")([activated, total])
    model = keras.Model(images, outputs)
    randomise(model)

    @tf.function(autograph=False)
    def call(images):
        with fused.use_fused_ops(model, training=False):
            return model(images)

    assert_close(call(IMAGES), model(IMAGES), "inference")
    graph = call.get_concrete_function(tf.TensorSpec([None, None, None, 3])).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("EnsureShape") == 2  # the inputs of `total` alone
