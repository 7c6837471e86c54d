"""Tests ResNet V2 against keras.applications."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import parity
from tests.zoo.resnet import keras_side
from zoo import facts, multiply_adds

BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
SIZES = {"default_size": (224, 224), "odd_size": (97, 131)}
slow = pytest.mark.slow


def keras_name(path):
    """Returns keras.applications' layer of our layer path."""
    layer, _, kind = path.partition("/")
    fixed = {"stem": "conv1_conv", "feature_map": "post_bn", "logits": "predictions"}
    if layer in fixed:
        return fixed[layer]
    _, stage, _, block, part = layer.split("_")
    if part == "preact":
        number, kind = "preact", "norm"
    else:
        number = ("shortcut", "reduce", "middle", "expand").index(part)
    kind = {"norm": "bn"}.get(kind, "conv")
    return f"conv{int(stage) + 1}_block{block}_{number}_{kind}"


@pytest.mark.ci
@pytest.mark.slow_except("50-same-odd_size")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("depth", "padding"),
    [
        (50, "same"),
        pytest.param(50, "symmetric", marks=slow),  # resnet_v1_test.py tests it
        pytest.param(101, "same", marks=slow),
        pytest.param(152, "same", marks=slow),
    ],
)
def test_v2_equals_keras_applications(depth, padding, size):
    bindings = [
        "ResNetV2.batch_norm_epsilon = 1.001e-5",
        f"ResNetV2.pool_padding = '{padding}'",
    ]
    ours = zoo.build(f"resnet_v2_{depth}", gin_bindings=bindings)
    shape = (*size, 3)
    theirs = getattr(keras.applications, f"ResNet{depth}V2")(
        input_shape=shape, weights=None, classifier_activation=None
    )
    if padding == "same":
        theirs = keras_side.with_same_pool(theirs)
    assert ours.classifier.count_params() == theirs.count_params()
    parity.randomise(ours.classifier)
    keras_side.copy_variables(ours.classifier, theirs, keras_name)
    layer_names = {
        "stem": "pool1_pool",
        **{
            f"stage_{s}": f"conv{s + 1}_block{b}_out"
            for s, b in enumerate(BLOCKS[depth], start=1)
        },
        "feature_map": "post_relu",
        "feature_vector": "avg_pool",
        "logits": "predictions",
    }
    keras_side.assert_same(ours, theirs, layer_names, shape)


def test_multiply_adds_are_those_of_keras_applications():
    theirs = keras.applications.ResNet50V2(weights=None)
    count = multiply_adds.multiply_adds(theirs, input_shape=(224, 224, 3))
    assert count == facts.value(facts.load("resnet_v2_50"), "multiply_adds")


def test_what_has_biases():
    model = zoo.build("resnet_v2_50").backbone
    biases = {v.path.split("/")[0] for v in model.weights if v.path.endswith("/bias")}
    parts = {name.rpartition("_")[2] for name in biases}
    assert parts == {"stem", "shortcut", "expand"}


def test_strides_are_in_the_last_blocks():
    model = zoo.build("resnet_v2_50")
    endpoints = model.backbone(np.zeros((1, 224, 224, 3), np.float32))
    heights = {name: e.shape[1] for name, e in endpoints.items() if e.ndim == 4}
    assert list(heights.values()) == [56, 28, 14, 7, 7, 7]
