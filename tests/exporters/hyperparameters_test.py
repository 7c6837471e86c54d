"""Calls an exported model with each keyword argument, and checks its effect."""

import json

import numpy as np
import pytest
import tensorflow as tf

import zoo
from exporters import hyperparameters, manifest

IMAGES = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
# EfficientNet-B0 with ten blocks instead of 16, which takes half the time. The ninth
# block is the last one with a residual.
BINDING = "--gin_binding=EfficientNet.depth_multiplier=0.5"
LAST_RESIDUAL = "stage_6_block_2"
CALM = {"dropout_rate": 0.0, "drop_path_rate": 0.0}


@pytest.fixture(scope="module")
def folder(exported):
    return exported("efficientnet_b0", "random", BINDING) / "classification" / "1"


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder))


@pytest.fixture
def model(loaded):
    """Returns the model, and restores the values of its variables after the test."""
    before = [v.numpy() for v in loaded.variables]
    yield loaded
    for variable, old in zip(loaded.variables, before, strict=True):
        variable.assign(old)


def statistics(model):
    """Returns the moving statistics: all variables that are not trainable."""
    trainable = {id(v) for v in model.trainable_variables}
    return [v for v in model.variables if id(v) not in trainable]


@pytest.mark.ci
def test_the_manifest_lists_the_arguments_with_the_paper_s_defaults(folder):
    arguments = manifest.read(folder).hyperparameters
    defaults = {name: entry["default"] for name, entry in arguments.items()}
    assert defaults == {
        "batch_norm_momentum": 0.99,
        # 0.2 is for a block after the tenth. The rate grows by 0.02 a block, from 0 at
        # the first, and the argument is that of the last block with a residual.
        "drop_path_rate": pytest.approx(0.2 * 8 / 10),
        "dropout_rate": 0.2,
    }
    for entry in arguments.values():
        assert (entry["dtype"], entry["shape"]) == ("float32", [])
        assert entry["range"] == [0, 1]
        assert entry["effect"].startswith("with training=True, the ")
    json.dumps(arguments)


@pytest.mark.ci
@pytest.mark.slow_except("0.25")
@pytest.mark.parametrize("momentum", [0.0, 0.25, 1.0])
def test_moving_statistics_keep_the_share_momentum_of_their_values(model, momentum):
    before = [v.numpy() for v in statistics(model)]
    model(IMAGES, training=True, batch_norm_momentum=0.0, **CALM)
    batch = [v.numpy() for v in statistics(model)]
    for variable, old in zip(statistics(model), before, strict=True):
        variable.assign(old)
    model(IMAGES, training=True, batch_norm_momentum=momentum, **CALM)
    for variable, old, new in zip(statistics(model), before, batch, strict=True):
        expected = momentum * old + (1 - momentum) * new
        scale = np.abs(expected).max() + 1e-6
        assert np.abs(variable.numpy() - expected).max() < 1e-5 * scale, variable.name


@pytest.mark.ci
def test_the_default_momentum_is_used_without_the_argument(model):
    before = [v.numpy() for v in statistics(model)]
    results = []
    for arguments in ({}, {"batch_norm_momentum": 0.99}):
        for variable, old in zip(statistics(model), before, strict=True):
            variable.assign(old)
        model(IMAGES, True, **arguments)
        results.append([v.numpy() for v in statistics(model)])
    first = [v.name for v in statistics(model)].index("stem/norm/moving_mean:0")
    np.testing.assert_array_equal(results[0][first], results[1][first])


@pytest.mark.ci
def test_dropout_rates_from_0_to_1(model):
    def train(rate):
        arguments = {**CALM, "batch_norm_momentum": 1.0, "dropout_rate": rate}
        return model(IMAGES, training=True, **arguments).numpy()

    np.testing.assert_array_equal(train(0.0), train(0.0))
    assert (train(0.5) != train(0.5)).any()
    (bias,) = (v for v in model.variables if v.name == "logits/bias:0")
    bias.assign(tf.range(1000.0))
    np.testing.assert_array_equal(train(1.0), np.tile(bias.numpy(), (4, 1)))
    assert (train(1 - 1e-7) == bias.numpy()).mean() > 0.99


@pytest.mark.slow
def test_with_drop_path_rate_1_the_last_residual_branch_has_no_gradient(model):
    branch = [v for v in model.trainable_variables if LAST_RESIDUAL in v.name]
    assert len(branch) == 13

    def train(rate):
        arguments = {"batch_norm_momentum": 1.0, "dropout_rate": 0.0}
        with tf.GradientTape() as tape:
            outputs = model(IMAGES, True, drop_path_rate=rate, **arguments)
            loss = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(loss, model.trainable_variables)

    for rate in (0.0, 1.0):
        outputs, gradients = train(rate)
        assert np.isfinite(outputs).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        branch_norms = [
            float(tf.norm(gradient))
            for variable, gradient in zip(
                model.trainable_variables, gradients, strict=True
            )
            if LAST_RESIDUAL in variable.name
        ]
        assert any(branch_norms) == (rate == 0.0)


@pytest.mark.ci
def test_endpoints_are_named_after_the_architecture(model):
    endpoints = model(IMAGES, return_endpoints=True)
    stages = (f"stage_{number}" for number in range(1, 8))
    names = {"stem", *stages, "feature_map", "feature_vector"}
    assert set(endpoints) == {"default", *(f"EfficientNet/{name}" for name in names)}
    np.testing.assert_array_equal(endpoints["default"], model(IMAGES))
    stage = endpoints["EfficientNet/stage_3"]
    assert stage.shape == (4, 8, 8, 40)
    features = endpoints["EfficientNet/feature_vector"]
    np.testing.assert_allclose(model.head(features), endpoints["default"], atol=1e-6)
    pooled = tf.reduce_mean(endpoints["EfficientNet/feature_map"], [1, 2])
    np.testing.assert_allclose(pooled, features, atol=1e-5)
    assert model(IMAGES, training=True, return_endpoints=True).keys() == (
        endpoints.keys()
    )


@pytest.mark.ci
@pytest.mark.parametrize("eagerly", [False, True])
def test_numbers_and_tensors_are_taken_eagerly_and_in_functions(model, eagerly):
    def call():
        first = model(IMAGES, training=True, batch_norm_momentum=1, **CALM)
        momentum = tf.constant(1.0)
        return first, model(IMAGES, training=True, batch_norm_momentum=momentum, **CALM)

    before = [v.numpy() for v in model.variables]
    tf.config.run_functions_eagerly(eagerly)
    try:
        first, second = call()
        in_function = tf.function(call)()
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(in_function[0], first, atol=1e-4)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


@pytest.mark.ci
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_other_dtypes_are_refused(model, dtype):
    rate = tf.constant(0.5, dtype)
    with pytest.raises(ValueError, match="Could not find matching"):
        model(IMAGES, training=True, dropout_rate=rate)


@pytest.mark.slow
def test_a_model_without_dropout_does_not_take_its_arguments(exported):
    features = tf.saved_model.load(
        str(exported("resnet_cifar_20") / "feature_vector" / "1")
    )
    with pytest.raises(TypeError, match="drop_path_rate"):
        features(IMAGES, drop_path_rate=0.0)
    with pytest.raises(TypeError, match="dropout_rate"):
        features(IMAGES, dropout_rate=0.0)
    features(IMAGES, training=True, batch_norm_momentum=0.9)


@pytest.mark.parametrize(
    ("arch", "kind", "effect"),
    [
        ("mobilenet_v2_035_96", "classification", "before the last dense layer"),
        ("squeezenet_1_1", "classification", "each dropout layer"),
        ("alexnet", "feature_vector", "each dropout layer"),
        ("alexnet", "classification", "each dropout layer"),
    ],
)
def test_the_effect_of_dropout_names_the_layers_that_drop(arch, kind, effect):
    described = hyperparameters.describe(zoo.build(arch).parts[kind])
    assert effect in described["dropout_rate"]["effect"]


@pytest.mark.parametrize(
    ("arch", "bindings", "before", "after"),
    [
        (
            "vit_tiny_16",
            ("ViT.depth = 3", "ViT.channels = 24", "ViT.drop_path_rate = 0.1"),
            *("block_2", "block_3"),
        ),
        (
            "convnext_tiny",
            (
                *("ConvNeXt.depths = (1, 2)", "ConvNeXt.channels = (8, 16)"),
                "ConvNeXt.scale_start = 1.0",
            ),
            *("stage_1", "stage_2"),
        ),
    ],
)
def test_transformers_and_convnext_take_a_drop_path_rate(arch, bindings, before, after):
    """Rate 0 drops nothing, rate 1 the last block; without batch norm, no momentum."""
    model = zoo.build(arch, gin_bindings=bindings, seed=0)
    assert hyperparameters.defaults(model.backbone) == {"drop_path_rate": 0.1}

    def call(rate):
        with hyperparameters.override(model.backbone, {"drop_path_rate": rate}):
            return model.endpoints(IMAGES, training=True)

    expected = model.endpoints(IMAGES)
    np.testing.assert_array_equal(call(0.0)[after], expected[after])
    dropped = call(1.0)
    assert np.abs(dropped[after] - expected[after]).max() > 1e-3
    if dropped[before].shape == dropped[after].shape:
        np.testing.assert_array_equal(dropped[after], dropped[before])


def test_a_rate_of_zero_keeps_the_shares_of_the_blocks():
    """ViT is published without drop path, and fine-tuned with it."""
    bindings = ("ViT.depth = 3", "ViT.channels = 24")
    model = zoo.build("vit_tiny_16", gin_bindings=bindings).backbone
    assert hyperparameters.defaults(model) == {"drop_path_rate": 0.0}
    layers = [x for x in model.layers if x.name.endswith("mlp_drop_path")]
    with hyperparameters.override(model, {"drop_path_rate": 0.4}):
        assert [layer.rate for layer in layers] == [0.2, 0.4]  # none in the first
    assert [layer.rate for layer in layers] == [0.0, 0.0]
