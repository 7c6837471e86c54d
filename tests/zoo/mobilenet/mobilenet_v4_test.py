"""Tests MobileNetV4 against timm."""

import pytest

import zoo
from tests.zoo import parity
from tests.zoo.mobilenet import timm_side

QUICK = ("conv_small", "hybrid_medium")  # all kinds of blocks, both of FusedIB
VARIANTS = {
    "conv_small": 224,
    "conv_medium": 256,
    "conv_large": 384,
    "hybrid_medium": 256,
    "hybrid_large": 384,
}
FIXED = {
    "stem/conv": "conv_stem",
    "stem/norm": "bn1",
    "feature_map/conv": "blocks.4.0.conv",
    "feature_map/norm": "blocks.4.0.bn1",
    "feature_vector/conv": "conv_head",
    "feature_vector/norm": "norm_head",
    "logits": "classifier",
}
UNIVERSAL = {
    "start_depthwise": "dw_start",
    "expand": "pw_exp",
    "depthwise": "dw_mid",
    "project": "pw_proj",
}
ATTENTION = {
    "norm": "norm",
    "query": "attn.query.proj",
    "key_depthwise/conv": "attn.key.down_conv",
    "key_depthwise/norm": "attn.key.norm",
    "key": "attn.key.proj",
    "value_depthwise/conv": "attn.value.down_conv",
    "value_depthwise/norm": "attn.value.norm",
    "value": "attn.value.proj",
    "project": "attn.output.proj",
}


def timm_name(layer, *, fused_stages):
    """Returns the name of our layer in timm's MobileNetV4.

    Args:
      layer: our variable's path without its last part.
      fused_stages: number of FusedIB stages; Conv-S has two, each two blocks in timm.
    """
    if layer in FIXED:
        return FIXED[layer]
    block, _, kind = layer.partition("/")
    _, stage, _, number, part = block.split("_", maxsplit=4)
    stage, number = int(stage) - 1, int(number) - 1
    block_path = f"blocks.{stage}.{number}"
    if part == "attention":
        return f"{block_path}.{ATTENTION[kind]}"
    if part == "layer_scale":
        return f"{block_path}.{part}"
    if stage < fused_stages:
        first = part == "expand"
        if fused_stages == 2:
            name = {"conv": "conv", "norm": "bn1"}[kind]
            return f"blocks.{stage}.{0 if first else 1}.{name}"
        conv, norm = ("conv_exp", "bn1") if first else ("conv_pwl", "bn2")
        return f"{block_path}.{conv if kind == 'conv' else norm}"
    name = {"conv": "conv", "norm": "bn"}[kind]
    return f"{block_path}.{UNIVERSAL[part]}.{name}"


def randomise(model):
    """Randomises a model so that attention stays spread over many positions.

    Random residual branches would add up to values so large that a query attends to a
    single position, and a rounding error would decide between two.
    """
    parity.randomise(model)
    for variable in model.weights:
        if variable.path.endswith("_layer_scale/gamma"):
            variable.assign(variable / 10)


def differences(variant, shape=None, *, bindings=(), **arguments):
    theirs, torch = timm_side.create(f"mobilenetv4_{variant}", **arguments)
    ours = zoo.build(f"mobilenet_v4_{variant}", gin_bindings=bindings)
    assert ours.spec.image_size == VARIANTS[variant]
    randomise(ours.classifier)
    fused_stages = 2 if variant == "conv_small" else 1
    return timm_side.differences(
        ours,
        theirs,
        name=lambda layer: timm_name(layer, fused_stages=fused_stages),
        shape=shape or (VARIANTS[variant], VARIANTS[variant], 3),
        torch=torch,
    )


@pytest.mark.slow_except("odd_size-conv_small")
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=[] if v in QUICK else pytest.mark.slow) for v in VARIANTS],
)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(None, id="default", marks=pytest.mark.slow),
        pytest.param((97, 131, 3), id="odd_size"),
    ],
)
def test_equals_timm(variant, shape):
    endpoint_differences = differences(variant, shape)
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences


@pytest.mark.slow_except("conv_small-MobileNetV4ConvSmall")
@pytest.mark.parametrize(
    ("variant", "spec"),
    [
        ("conv_small", "MobileNetV4ConvSmall"),
        ("hybrid_medium", "MobileNetV4HybridMedium"),
    ],
)
def test_equals_timm_with_the_padding_and_epsilon_of_tf_vision(variant, spec):
    bindings = [f"{spec}.padding = 'same'", f"{spec}.batch_norm_epsilon = 1e-3"]
    endpoint_differences = differences(
        variant, (97, 131, 3), bindings=bindings, pad_type="same", bn_eps=1e-3
    )
    assert max(endpoint_differences.values()) < 1e-4, endpoint_differences
