"""Tests AlexNet against torchvision."""

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import facts

SIZES = ((224, 224), (287, 323))
ENDPOINTS = {
    "stem": "1",
    "stage_1": "2",
    "stage_2": "5",
    "stage_3": "7",
    "stage_4": "9",
    "stage_5": "12",
}  # modules of torchvision's `features`


@pytest.mark.ci
def test_equals_torchvision(tmp_path):
    torchvision = oracles.torchvision()
    import torch

    from tests.zoo.resnet import torch_side
    from tests.zoo.vgg import convolutional_side

    theirs = torchvision.models.alexnet()
    torch_side.randomise(theirs)
    path = tmp_path / "a.pth"
    torch.save(theirs.state_dict(), path)
    ours = zoo.build("alexnet", weights=str(path))
    assert ours.weights["matched"] == "names of torchvision: 16 matched"
    arch_facts = facts.load("alexnet")
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    for size in SIZES:
        normalised = np.random.default_rng(1).normal(size=(2, *size, 3))
        normalised = normalised.astype("float32")
        our_parts = convolutional_side.our_outputs(ours, normalised)
        expected = convolutional_side.outputs(theirs, normalised, ENDPOINTS)
        assert our_parts.keys() == expected.keys()
        for name, part in expected.items():
            assert parity.relative(our_parts[name], part) < 1e-4, (name, size)
        if size == SIZES[0]:
            logits = torch_side.outputs(theirs, normalised, {})["logits"]
            assert parity.relative(our_parts["logits"], logits) < 1e-4
        else:
            assert our_parts["fc6"].shape == (2, 3, 4, 4096)


@pytest.mark.parametrize(
    ("bindings", "rates"),
    [
        ([], [0.5, 0.5]),
        (["model.dropout_rate = 0.2"], [0.2, 0.2]),
        (["AlexNet.dropout_rate = 0.0"], [0.0, 0.5]),
    ],
)
def test_fc6_drops_as_many_as_fc7_unless_it_is_bound(bindings, rates):
    model = zoo.build("alexnet", gin_bindings=bindings)
    layers = [model.backbone.get_layer("fc6_dropout"), model.head.get_layer("dropout")]
    assert [layer.rate for layer in layers] == rates
    assert model.spec.dropout_rate == rates[0]


def test_what_there_is_not():
    with pytest.raises(ValueError, match=r"AlexNet.dropout_rate must be a number in"):
        zoo.build("alexnet", gin_bindings=["AlexNet.dropout_rate = 1.5"])
