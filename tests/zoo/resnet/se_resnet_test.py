"""Tests SE-ResNet against timm's port of the authors' networks and timm's own."""

import pytest

import zoo
from tests.zoo import oracles
from zoo import facts

STAGES = {f"stage_{n}": f"layer{n}" for n in range(1, 5)}
MODULES = {
    "legacy_seresnet": {"stem": "pool0", **STAGES, "feature_vector": "global_pool"},
    "seresnet": {"stem": "maxpool", **STAGES, "feature_vector": "global_pool"},
}
SOURCES = {
    "legacy_seresnet": "Cadene's port of Caffe's SE-ResNet (timm's legacy_seresnet)",
    "seresnet": "timm",
}
# The stem convolution's output has even sides: see Deviations of `SEResNet`.
SIZES = ((224, 224), (99, 131))
# Scales residual branches down; see resnet_rs_test.py.
DAMPED = {"*.bn3.weight": 0.2}
NORMS = {50: 53, 101: 104, 152: 155}


@pytest.mark.ci
@pytest.mark.slow_except("legacy_seresnet-50", "seresnet-50")
@pytest.mark.parametrize("depth", NORMS)
@pytest.mark.parametrize("source", MODULES)
def test_equals_timm(depth, source, tmp_path):
    pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    arch = f"se_resnet_{depth}"
    theirs = oracles.timm().create_model(f"{source}{depth}")
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    ours = torch_side.imported(arch, theirs, tmp_path / "a.pth", DAMPED)
    count = torch_side.multiply_adds(theirs, 224)
    assert ours.multiply_adds()["classification"] == count
    if source == "legacy_seresnet":
        assert count == facts.value(arch_facts, "multiply_adds")
    norms, blocks = NORMS[depth], (NORMS[depth] - 5) // 3
    matched = f"{5 * norms + 4 * blocks + 2} matched; {norms} ignored"
    assert ours.weights["matched"] == f"names of {SOURCES[source]}: {matched}"
    for size in SIZES:
        differences = torch_side.differences(ours, theirs, size, MODULES[source])
        assert max(differences.values()) < 1e-4, (size, differences)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 18", "one of 50, 101, 152, not 18"),
        ("stride_in = '7x7'", "one of 1x1, 3x3, not '7x7'"),
        ("pool_padding = 'valid'", "one of same, symmetric, not 'valid'"),
    ],
)
def test_what_there_is_not(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("se_resnet_50", gin_bindings=[f"SEResNet.{binding}"])
