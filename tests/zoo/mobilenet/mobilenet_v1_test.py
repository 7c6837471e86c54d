"""Tests MobileNetV1 against keras.applications and timm."""

import keras
import pytest

import zoo
from tests.zoo import parity
from tests.zoo.mobilenet import keras_side, timm_side

# One arch per width: the other image sizes of a width have the same layers.
WIDTHS = {
    0.25: "mobilenet_v1_025_128",
    0.5: "mobilenet_v1_050_160",
    0.75: "mobilenet_v1_075_192",
    1.0: "mobilenet_v1",
}
LAYERS = {
    "stem": "conv1_relu",
    "stage_1": "conv_pw_1_relu",
    "stage_3": "conv_pw_5_relu",
    "stage_4": "conv_pw_11_relu",
    "feature_map": "conv_pw_13_relu",
    "feature_vector": "global_average_pooling2d",
}
BLOCKS_BEFORE = (0, 1, 3, 5, 11)


def keras_name(path):
    """Returns the layer of our variable in keras.applications' MobileNet."""
    layer, *kind = path.split("/")[:-1]
    bn = "_bn" if kind == ["norm"] else ""
    if layer == "stem":
        return f"conv1{bn}"
    if layer == "logits":
        return "conv_preds"
    _, stage, _, block, part = layer.split("_")
    index = BLOCKS_BEFORE[int(stage) - 1] + int(block)
    part_name = {"depthwise": "dw", "pointwise": "pw"}[part]
    return f"conv_{part_name}_{index}{bn}"


def differences(width, shape=None):
    ours = zoo.build(WIDTHS[width])
    size = ours.spec.image_size
    keras.backend.clear_session()  # so that the unnamed pooling layer gets no number
    theirs = keras.applications.MobileNet(
        input_shape=shape or (size, size, 3),
        alpha=width,
        weights=None,
        classifier_activation=None,
    )
    parity.randomise(ours.classifier)
    return keras_side.differences(ours, theirs, name=keras_name, layers=LAYERS)


@pytest.mark.ci
@pytest.mark.parametrize(
    "width",
    [pytest.param(w, marks=[] if w == 1.0 else pytest.mark.slow) for w in WIDTHS],
)
def test_equals_keras_applications_at_default_size(width):
    endpoint_differences = differences(width)
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences


@pytest.mark.parametrize(
    "width",
    [pytest.param(w, marks=[] if w == 0.25 else pytest.mark.slow) for w in WIDTHS],
)
def test_equals_keras_applications_at_odd_size(width):
    # keras.applications' strided depthwise convolutions pad only the bottom and right,
    # which equals TensorFlow's SAME for even inputs; only the stem's input may be odd.
    endpoint_differences = differences(width, (95, 127, 3))
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences


def timm_name(layer):
    """Returns the name of our layer in timm's MobileNetV1."""
    fixed = {"stem/conv": "conv_stem", "stem/norm": "bn1", "logits": "classifier"}
    if layer in fixed:
        return fixed[layer]
    _, stage, _, number, part = layer.split("_")
    theirs = {
        "depthwise/conv": "conv_dw",
        "depthwise/norm": "bn1",
        "pointwise/conv": "conv_pw",
        "pointwise/norm": "bn2",
    }[part]
    return f"blocks.{int(stage) - 1}.{int(number) - 1}.{theirs}"


@pytest.mark.parametrize(
    ("padding", "epsilon", "theirs"),
    [("same", 1e-3, "same"), ("symmetric", 1e-5, "")],
    ids=["tensorflow", "pytorch"],
)
def test_equals_timm_where_every_size_is_odd(padding, epsilon, theirs):
    model, torch = timm_side.create("mobilenetv1_100", pad_type=theirs, bn_eps=epsilon)
    bindings = [
        f"MobileNetV1.padding = '{padding}'",
        f"MobileNetV1.batch_norm_epsilon = {epsilon}",
    ]
    ours = zoo.build("mobilenet_v1", gin_bindings=bindings)
    parity.randomise(ours.classifier)
    endpoint_differences = timm_side.differences(
        ours, model, name=timm_name, shape=(97, 193, 3), torch=torch
    )
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences
