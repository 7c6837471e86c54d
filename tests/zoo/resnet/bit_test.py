"""Tests BiT against timm and transformers."""

import pytest

import zoo
from tests.zoo import oracles, specs
from zoo import facts

SIZES = ((224, 224), (97, 131))
MODULES = {
    "timm": {
        "stem": "stem",
        **{f"stage_{n}": f"stages.{n - 1}" for n in range(1, 5)},
        "feature_map": "norm",
        "feature_vector": "head.global_pool",
    },
    "transformers": {
        "stem": "bit.embedder",
        **{f"stage_{n}": f"bit.encoder.stages.{n - 1}" for n in range(1, 5)},
        "feature_map": "bit.norm",
        "feature_vector": "bit.pooler",
    },
}
# Depth and width, and the number of variables of a classifier.
ARCHS = {
    "bit_r50x1": ((50, 1), 153),
    "bit_r101x1": ((101, 1), 306),
    "bit_r50x3": ((50, 3), 153),
    "bit_r101x3": ((101, 3), 306),
    "bit_r152x2": ((152, 2), 459),
}
BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
DAMPED = {"*conv*.weight": 1e-3}  # small enough that standardisation's epsilon matters
# Otherwise 152 layers amplify rounding: timm differs by 1e-4 from itself in float64.
DEEP = {"*norm3.weight": 0.3}


def network(source, depth, width):
    if source == "timm":
        return oracles.timm().create_model(f"resnetv2_{depth}x{width}_bit")
    transformers = oracles.transformers()
    config = transformers.BitConfig(
        depths=BLOCKS[depth],
        embedding_size=64 * width,
        hidden_sizes=[width * channels for channels in (256, 512, 1024, 2048)],
        num_labels=1000,
    )
    return transformers.BitForImageClassification(config)


@pytest.mark.ci
@pytest.mark.slow_except("timm-bit_r50x1", "transformers-bit_r50x1")
@pytest.mark.parametrize(
    ("source", "arch"),
    [
        *(("timm", arch) for arch in ARCHS),
        *(("transformers", arch) for arch in ("bit_r50x1", "bit_r101x1")),
    ],
)
def test_equals_timm_and_transformers(source, arch, tmp_path):
    pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    (depth, width), variables = ARCHS[arch]
    theirs = network(source, depth, width)
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    damped = DAMPED | (DEEP if depth == 152 else {})
    ours = torch_side.imported(arch, theirs, tmp_path / "a.pth", damped)
    assert ours.weights["matched"] == f"names of {source}: {variables} matched"
    assert ours.spec.standardization_epsilon == 1e-8
    for size in SIZES:
        differences = torch_side.differences(ours, theirs, size, MODULES[source])
        assert max(differences.values()) < 1e-4, (size, differences)


def test_the_epsilon_is_the_authors_own_without_their_weights():
    assert specs.of("bit_r50x1").standardization_epsilon == 1e-10


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 18", "one of 50, 101, 152, not 18"),
        ("width_multiplier = 1.5", "must be an integer"),
        ("standardization_epsilon = -1.0", r"must be a number in \[0.0, 1.0\]"),
    ],
)
def test_what_there_is_not(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("bit_r50x1", gin_bindings=[f"BiT.{binding}"])
