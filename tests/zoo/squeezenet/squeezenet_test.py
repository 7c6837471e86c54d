"""Tests SqueezeNet against torchvision."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import facts

# torchvision's smallest image size, and modules of its `features` by our names.
VERSIONS = {
    "1_0": (21, {"stem": 1, "fire4": 5, "fire5": 7, "stage_2": 10, "stage_3": 12}),
    "1_1": (17, {"stem": 1, "fire3": 4, "stage_2": 7, "fire6": 9, "stage_3": 12}),
}
SIZES = ((224, 224), (97, 130))


@pytest.mark.slow_except("1_1")
@pytest.mark.parametrize("version", VERSIONS)
def test_equals_torchvision(version, tmp_path):
    torchvision = oracles.torchvision()
    from tests.zoo.resnet import torch_side

    smallest, numbers = VERSIONS[version]
    theirs = getattr(torchvision.models, f"squeezenet{version}")()
    arch = f"squeezenet_{version}"
    ours = torch_side.imported(arch, theirs, tmp_path / "a.pth")
    assert ours.weights["matched"] == "names of torchvision: 52 matched"
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    assert facts.value(arch_facts, "height_range")[0] == smallest
    modules = {name: f"features.{number}" for name, number in numbers.items()}
    for size in (*SIZES, (smallest, smallest)):
        normalised = np.random.default_rng(1).normal(size=(2, *size, 3))
        normalised = normalised.astype("float32")
        expected = torch_side.outputs(theirs, normalised, modules)
        endpoints = {k: np.asarray(v) for k, v in ours.backbone(normalised).items()}
        logits = np.asarray(ours.head(endpoints["feature_map"]))
        assert parity.relative(logits, expected.pop("logits")) < 1e-4, size
        for name, part in expected.items():
            our_part = endpoints[name].reshape(part.shape)
            assert parity.relative(our_part, part) < 1e-4, (name, size)
        mean = endpoints["feature_map"].mean((1, 2))
        assert parity.relative(endpoints["feature_vector"], mean) < 1e-4


def test_its_head_reads_the_feature_map():
    model = zoo.build("squeezenet_1_1", seed=1)
    assert model.head_input == "feature_map"
    images = np.random.default_rng(1).random((1, 64, 64, 3), np.float32)
    feature_map = model.endpoints(images)["feature_map"]
    np.testing.assert_allclose(
        model.head(feature_map), model.classifier(images), rtol=1e-5
    )
    paths = [v.path for v in model.head.weights]
    assert paths == ["logits/kernel", "logits/bias"]
    # conv10 at each of the 13 × 13 positions, and conv1 at each of 111 × 111.
    counts = model.multiply_adds()
    assert counts["classification"] - counts["feature_vector"] == 13 * 13 * 512 * 1000


def test_the_fire_modules_are_endpoints():
    model = zoo.build("squeezenet_1_1")
    names = [name for name in model.backbone.output if name.startswith("fire")]
    assert names == [f"fire{number}" for number in range(2, 10)]
    shapes = keras.tree.map_structure(lambda x: x.shape[-1], model.backbone.output)
    assert shapes["fire3"] == shapes["stage_1"] == 128


@pytest.mark.parametrize("starts", [("fire3",), ("fire2", "fire9", "fire5"), ("f",)])
def test_stages_that_there_are_not(starts):
    with pytest.raises(
        ValueError, match=r"SqueezeNet.stage_starts must be some of fire"
    ):
        zoo.build(
            "squeezenet_1_1", gin_bindings=[f"SqueezeNet.stage_starts = {starts}"]
        )
