"""Tests ResNet V1 and V1.5 against keras.applications and transformers."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from tests.zoo.resnet import keras_side
from zoo import facts

BLOCKS = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}
SIZES = {"default_size": (224, 224), "odd_size": (97, 131)}
slow = pytest.mark.slow


def keras_name(path):
    """Returns keras.applications' layer of our layer path."""
    layer, _, kind = path.partition("/")
    fixed = {"stem": "conv1", "logits": "predictions"}
    if layer in fixed:
        return fixed[layer] + ({"conv": "_conv", "norm": "_bn"}.get(kind, ""))
    _, stage, _, block, part = layer.split("_")
    number = ("shortcut", "reduce", "middle", "expand").index(part)
    kind = {"conv": "conv", "norm": "bn"}[kind]
    return f"conv{int(stage) + 1}_block{block}_{number}_{kind}"


@pytest.mark.ci
@pytest.mark.slow_except("50-symmetric-odd_size")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("depth", "padding"),
    [
        (50, "symmetric"),
        pytest.param(50, "same", marks=slow),  # resnet_v2_test.py tests it by default
        pytest.param(101, "symmetric", marks=slow),
        pytest.param(152, "symmetric", marks=slow),
    ],
)
def test_v1_equals_keras_applications(depth, padding, size):
    ours = zoo.build(
        f"resnet_v1_{depth}",
        gin_bindings=[
            "ResNetV1.batch_norm_epsilon = 1.001e-5",
            f"ResNetV1.pool_padding = '{padding}'",
        ],
    )
    shape = (*size, 3)
    theirs = getattr(keras.applications, f"ResNet{depth}")(
        input_shape=shape, weights=None, classifier_activation=None
    )
    if padding == "same":
        theirs = keras_side.with_same_pool(theirs)
    biases = keras_side.random_biases(theirs)
    surplus = theirs.count_params() - ours.classifier.count_params()
    assert surplus == sum(bias.size for bias in biases.values())
    parity.randomise(ours.classifier)
    keras_side.copy_variables(ours.classifier, theirs, keras_name, biases)
    layer_names = {
        "stem": "pool1_pool",
        **{
            f"stage_{s}": f"conv{s + 1}_block{b}_out"
            for s, b in enumerate(BLOCKS[depth], start=1)
        },
        "feature_vector": "avg_pool",
        "logits": "predictions",
    }
    keras_side.assert_same(ours, theirs, layer_names, shape)


def transformers_name(path):
    """Returns the module of our layer path in transformers' ResNet."""
    layer, _, kind = path.partition("/")
    if layer == "logits":
        return "classifier.1"
    kind = {"conv": "convolution", "norm": "normalization"}[kind]
    if layer == "stem":
        return f"resnet.embedder.embedder.{kind}"
    _, stage, _, block, part = layer.split("_", 4)
    number = {"reduce": 0, "middle": 1, "expand": 2, "conv_1": 0, "conv_2": 1}.get(part)
    part = "shortcut" if number is None else f"layer.{number}"
    return (
        f"resnet.encoder.stages.{int(stage) - 1}.layers.{int(block) - 1}.{part}.{kind}"
    )


def transformers_model(depth, *, stride_in):
    transformers = oracles.transformers()
    basic = depth < 50
    widths = [64, 128, 256, 512]
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            layer_type="basic" if basic else "bottleneck",
            depths=BLOCKS[depth],
            hidden_sizes=widths if basic else [4 * width for width in widths],
            downsample_in_bottleneck=stride_in == "1x1",
            num_labels=1000,
        )
    )


@pytest.mark.ci_except("resnet_v1_18-3x3-odd_size")
@pytest.mark.slow_except("resnet_v1_18-3x3-odd_size", "resnet_v1_5_50-3x3-odd_size")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("arch", "stride_in"),
    [
        ("resnet_v1_18", "3x3"),
        pytest.param("resnet_v1_34", "3x3", marks=slow),
        pytest.param("resnet_v1_50", "1x1", marks=slow),
        ("resnet_v1_5_50", "3x3"),
        pytest.param("resnet_v1_5_101", "3x3", marks=slow),
        pytest.param("resnet_v1_5_152", "3x3", marks=slow),
    ],
)
def test_v1_and_v1_5_equal_transformers(arch, stride_in, size):
    pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    ours = zoo.build(arch)
    theirs = transformers_model(ours.spec.depth, stride_in=stride_in)
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    parity.randomise(ours.classifier)
    torch_side.copy_variables(ours.classifier, theirs, transformers_name)
    normalised = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    modules = {
        "stem": "resnet.embedder",
        **{f"stage_{n}": f"resnet.encoder.stages.{n - 1}" for n in range(1, 5)},
        "feature_vector": "resnet.pooler",
    }
    our_parts = torch_side.with_our_logits(ours, normalised)
    for name, part in torch_side.outputs(theirs, normalised, modules).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 51", "depth must be one of 18, 34, 50, 101, 152, not 51."),
        ("stride_in = '7x7'", "stride_in must be one of 1x1, 3x3, not '7x7'."),
        (
            "pool_padding = 'valid'",
            "pool_padding must be one of same, symmetric, not 'valid'.",
        ),
    ],
)
def test_what_there_is_not(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("resnet_v1_50", gin_bindings=[f"ResNetV1.{binding}"])


def test_a_zero_last_gamma_leaves_the_shortcut_alone():
    model = zoo.build("resnet_v1_18", gin_bindings=["ResNetV1.zero_last_gamma = True"])
    endpoints = model.backbone(np.ones((1, 64, 64, 3), np.float32))
    # Stage 1 has no projection, so it returns the stem's output after ReLU unchanged.
    np.testing.assert_array_equal(endpoints["stem"], endpoints["stage_1"])


def test_weight_decay_is_the_recipes():
    slim = zoo.build("resnet_v1_50")
    decayed = [v.path for v in slim.decayed(slim.classifier)]
    # TF-Slim decays the 53 convolutions' kernels and the logits'.
    assert len(decayed) == 54
    assert all(path.endswith("/kernel") for path in decayed)
    torch = zoo.build("resnet_v1_18")
    assert len(torch.decayed(torch.classifier)) == len(
        torch.classifier.trainable_weights
    )
