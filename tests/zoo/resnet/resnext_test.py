"""Tests ResNeXt and Wide ResNet against torchvision and timm."""

import pytest

import zoo
from tests.zoo import oracles
from zoo import facts

SIZES = ((224, 224), (97, 131))
STAGES = {f"stage_{n}": f"layer{n}" for n in range(1, 5)}
MODULES = {
    "torchvision": {"stem": "maxpool", **STAGES, "feature_vector": "avgpool"},
    "timm": {"stem": "maxpool", **STAGES, "feature_vector": "global_pool"},
}
NAMES = {
    "resnext_50_32x4d": "resnext50_32x4d",
    "resnext_101_32x8d": "resnext101_32x8d",
    "resnext_101_64x4d": "resnext101_64x4d",
    "wide_resnet_50_2": "wide_resnet50_2",
    "wide_resnet_101_2": "wide_resnet101_2",
}
NORMS = {50: 53, 101: 104}


def network(source, name):
    if source == "timm":
        return oracles.timm().create_model(name)
    return getattr(oracles.torchvision().models, name)()


@pytest.mark.ci
@pytest.mark.slow_except("torchvision-resnext_50_32x4d", "torchvision-wide_resnet_50_2")
@pytest.mark.parametrize(
    ("source", "arch"),
    [
        *(("torchvision", arch) for arch in NAMES),
        *(("timm", arch) for arch in NAMES if "_50_" in arch),
    ],
)
def test_equals_torchvision_and_timm(source, arch, tmp_path):
    pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    theirs = network(source, NAMES[arch])
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    ours = torch_side.imported(arch, theirs, tmp_path / "a.pth")
    norms = NORMS[ours.spec.depth]
    matched = f"{5 * norms + 2} matched; {norms} ignored"
    assert ours.weights["matched"] == f"names of timm and torchvision: {matched}"
    for size in SIZES:
        differences = torch_side.differences(ours, theirs, size, MODULES[source])
        assert max(differences.values()) < 1e-4, (size, differences)


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("resnext_50_32x4d", "ResNeXt.depth = 152", "one of 50, 101, not 152"),
        ("resnext_50_32x4d", "ResNeXt.cardinality = 0", r"integer in \[1, 256\]"),
        ("resnext_50_32x4d", "ResNeXt.bottleneck_width = 4.5", "must be an integer"),
        ("wide_resnet_50_2", "WideResNet.depth = 34", "one of 50, 101, not 34"),
        ("wide_resnet_50_2", "WideResNet.width_multiplier = 1.5", "must be an integer"),
    ],
)
def test_what_there_is_not(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])


def test_groups_are_of_the_3x3_convolutions():
    model = zoo.build("resnext_50_32x4d").backbone
    shapes = {v.path: tuple(v.shape) for v in model.weights}
    assert shapes["stage_1_block_1_middle/conv/kernel"] == (3, 3, 4, 128)
    assert shapes["stage_4_block_3_middle/conv/kernel"] == (3, 3, 32, 1024)
    assert shapes["stage_4_block_3_expand/conv/kernel"] == (1, 1, 1024, 2048)
