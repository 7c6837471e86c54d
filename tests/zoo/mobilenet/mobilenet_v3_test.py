"""Tests MobileNetV3 against keras.applications and timm."""

import keras
import pytest

import zoo
from tests.zoo import parity
from tests.zoo.mobilenet import keras_side, timm_side

# keras.applications' constructor, the blocks before each of our stages, and arguments.
LARGE = (keras.applications.MobileNetV3Large, (0, 1, 3, 6, 10, 12))
SMALL = (keras.applications.MobileNetV3Small, (0, 1, 3, 6, 8))
ARCHS = {
    "mobilenet_v3_large": (*LARGE, {}),
    "mobilenet_v3_large_075": (*LARGE, {"alpha": 0.75}),
    "mobilenet_v3_large_minimalistic": (*LARGE, {"minimalistic": True}),
    "mobilenet_v3_small": (*SMALL, {}),
    "mobilenet_v3_small_075": (*SMALL, {"alpha": 0.75}),
    "mobilenet_v3_small_minimalistic": (*SMALL, {"minimalistic": True}),
}
QUICK = ("mobilenet_v3_large", "mobilenet_v3_small_minimalistic")


def keras_name(path, blocks_before):
    """Returns the layer of our variable in keras.applications' MobileNetV3."""
    layer, *kind = path.split("/")[:-1]
    bn = "_bn" if kind == ["norm"] else ""
    fixed = {"stem": "conv", "feature_map": "conv_1", "feature_vector": "conv_2"}
    if layer in fixed:
        return fixed[layer] + bn
    if layer == "logits":
        return "logits"
    _, stage, _, block, part = layer.split("_", maxsplit=4)
    index = blocks_before[int(stage) - 1] + int(block) - 1
    prefix = f"expanded_conv_{index}_" if index else "expanded_conv_"
    if part == "squeeze_excite":
        return prefix + {"reduce": f"{part}_conv", "expand": f"{part}_conv_1"}[kind[0]]
    return f"{prefix}{part}{bn}"


def endpoint_layers(theirs, blocks_before, stages):
    """Maps our endpoints to names of the other model's layers.

    Its activations have no fixed names, so they are found by position.
    """
    layers = theirs.layers
    names = {layer.name for layer in layers}
    layer_names = {}
    for endpoint, bn in {"stem": "conv_bn", "feature_map": "conv_1_bn"}.items():
        layer_names[endpoint] = layers[layers.index(theirs.get_layer(bn)) + 1].name
    for stage in stages:
        last = f"expanded_conv_{blocks_before[stage] - 1}"
        added = f"{last}_add" in names
        layer_names[f"stage_{stage}"] = f"{last}_add" if added else f"{last}_project_bn"
    conv = layers.index(theirs.get_layer("conv_2"))
    layer_names["feature_vector"] = layers[conv + 1].name
    return layer_names


def randomise(model):
    """Randomises a model so that the gates of squeeze-excite stay between 0 and 1.

    Random activations reach hundreds. A gate that sums them up would be fully open or
    shut, or in between would magnify rounding errors a thousandfold.
    """
    parity.randomise(model)
    for variable in model.weights:
        if variable.path.endswith("_squeeze_excite/reduce/kernel"):
            variable.assign(variable / 100)


def differences(arch, shape=(224, 224, 3)):
    constructor, blocks_before, arguments = ARCHS[arch]
    ours = zoo.build(arch)
    randomise(ours.classifier)
    theirs = constructor(
        input_shape=shape,
        weights=None,
        classifier_activation=None,
        include_preprocessing=False,
        **arguments,
    )
    return keras_side.differences(
        ours,
        theirs,
        name=lambda path: keras_name(path, blocks_before),
        layers=endpoint_layers(theirs, blocks_before, stages=(2, 3, 4)),
    )


@pytest.mark.ci_except("odd_size-mobilenet_v3_small_minimalistic")
@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=[] if a in QUICK else pytest.mark.slow) for a in ARCHS],
)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((224, 224, 3), id="default_size", marks=pytest.mark.slow),
        pytest.param((97, 131, 3), id="odd_size"),
    ],
)
def test_equals_keras_applications(arch, shape):
    endpoint_differences = differences(arch, shape)
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences


def timm_name(layer, *, stages):
    """Returns the name of our layer in timm's MobileNetV3."""
    fixed = {
        "stem/conv": "conv_stem",
        "stem/norm": "bn1",
        "feature_map/conv": f"blocks.{stages}.0.conv",
        "feature_map/norm": f"blocks.{stages}.0.bn1",
        "feature_vector": "conv_head",
        "logits": "classifier",
    }
    if layer in fixed:
        return fixed[layer]
    block, _, kind = layer.partition("/")
    _, stage, _, number, part = block.split("_", maxsplit=4)
    block_path = f"blocks.{int(stage) - 1}.{int(number) - 1}"
    if part == "squeeze_excite":
        return f"{block_path}.se.conv_{kind}"
    parts = ["expand", "depthwise", "project"]
    convs = ["conv_pw", "conv_dw", "conv_pwl"]
    if stage == "1":  # without an expansion
        parts, convs = parts[1:], ["conv_dw", "conv_pw"]
    index = parts.index(part)
    return f"{block_path}.{convs[index] if kind == 'conv' else f'bn{index + 1}'}"


@pytest.mark.parametrize(
    "size", ["large", pytest.param("small", marks=pytest.mark.slow)]
)
def test_equals_timm_with_the_padding_and_epsilon_of_pytorch(size):
    theirs, torch = timm_side.create(f"mobilenetv3_{size}_100")
    spec = f"MobileNetV3{size.title()}"
    bindings = [f"{spec}.padding = 'symmetric'", f"{spec}.batch_norm_epsilon = 1e-5"]
    ours = zoo.build(f"mobilenet_v3_{size}", gin_bindings=bindings)
    randomise(ours.classifier)
    stages = len(ours.spec.stages)
    endpoint_differences = timm_side.differences(
        ours,
        theirs,
        name=lambda layer: timm_name(layer, stages=stages),
        shape=(97, 131, 3),
        torch=torch,
    )
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences
