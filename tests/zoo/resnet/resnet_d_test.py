"""Tests ResNet-D against timm."""

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import facts

SIZES = {"default_size": (224, 224), "odd_size": (97, 131)}
MODULES = {
    "stem": "maxpool",
    **{f"stage_{n}": f"layer{n}" for n in range(1, 5)},
    "feature_vector": "global_pool",
}
slow = pytest.mark.slow


def timm_name(path):
    """Returns the module of our layer path in timm's ResNet-D."""
    layer, _, kind = path.partition("/")
    if layer == "logits":
        return "fc"
    stem, _, number = layer.partition("_")
    if stem == "stem":
        index = 3 * (int(number) - 1) + (kind == "norm")
        return "bn1" if index == 7 else f"conv1.{index}"
    _, stage, _, block, part = layer.split("_")
    number = ("shortcut", "reduce", "middle", "expand").index(part)
    if part == "shortcut":
        kind = f"downsample.{1 + (kind == 'norm')}"
    else:
        kind = {"conv": "conv", "norm": "bn"}[kind] + str(number)
    return f"layer{stage}.{int(block) - 1}.{kind}"


@pytest.mark.ci
@pytest.mark.slow_except("50-odd_size")
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    "depth", [50, pytest.param(101, marks=slow), pytest.param(152, marks=slow)]
)
def test_d_equals_timm(depth, size):
    pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    timm = oracles.timm()
    ours = zoo.build(f"resnet_d_{depth}")
    theirs = timm.create_model(f"resnet{depth}d")
    arch_facts = facts.load(f"resnet_d_{depth}")
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    parity.randomise(ours.classifier)
    torch_side.copy_variables(ours.classifier, theirs, timm_name)
    normalised = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    our_parts = torch_side.with_our_logits(ours, normalised)
    for name, part in torch_side.outputs(theirs, normalised, MODULES).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name


def test_branches_begin_as_nothing():
    backbone = zoo.build("resnet_d_50").backbone
    last = [v for v in backbone.weights if v.path.endswith("_expand/norm/gamma")]
    assert len(last) == 16
    assert all((np.asarray(v.value) == 0).all() for v in last)
