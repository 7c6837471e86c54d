"""Tests the small ResNets for 32×32 images against the paper, rewritten in PyTorch.

No package has these networks with the paper's parameter-free shortcuts (option A).
"""

import functools
import itertools

import numpy as np
import pytest

import zoo
from tests.zoo import parity
from zoo import facts

SIZES = {"default_size": (32, 32), "odd_size": (37, 51)}
PAPER_MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}  # Table 6
MODULES = {"stem": "stem", **{f"stage_{n}": f"stages.{n - 1}" for n in range(1, 4)}}
slow = pytest.mark.slow


@functools.cache
def paper_network():
    """Returns a class, as in section 4.2, whose argument n gives 6n + 2 layers."""
    torch = pytest.importorskip("torch", reason="tools/setup oracles")
    nn, functional = torch.nn, torch.nn.functional

    def conv(inputs, outputs, stride=1):
        return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first, self.first_norm = conv(inputs, outputs, stride), norm(outputs)
            self.second, self.second_norm = conv(outputs, outputs), norm(outputs)
            self.stride, self.zeros = stride, outputs - inputs

        def forward(self, x):
            y = functional.relu(self.first_norm(self.first(x)))
            y = self.second_norm(self.second(y))
            identity = functional.avg_pool2d(x, 1, self.stride)
            return functional.relu(
                y + functional.pad(identity, (0, 0, 0, 0, 0, self.zeros))
            )

    class Network(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.stem = nn.Sequential(conv(3, 16), norm(16), nn.ReLU())
            widths = (16, 16, 32, 64)
            self.stages = nn.Sequential(
                *(
                    nn.Sequential(
                        Block(before, width, 1 if before == width else 2),
                        *(Block(width, width, 1) for _ in range(n - 1)),
                    )
                    for before, width in itertools.pairwise(widths)
                )
            )
            self.dense = nn.Linear(64, 10)

        def forward(self, x):
            return self.dense(self.stages(self.stem(x)).mean((2, 3)))

    norm = nn.BatchNorm2d
    return Network


def paper_name(path):
    layer, _, kind = path.partition("/")
    if layer == "logits":
        return "dense"
    if layer == "stem":
        return {"conv": "stem.0", "norm": "stem.1"}[kind]
    _, stage, _, block, _, number = layer.split("_")
    part = {"1": "first", "2": "second"}[number] + {"conv": "", "norm": "_norm"}[kind]
    return f"stages.{int(stage) - 1}.{int(block) - 1}.{part}"


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    "depth",
    [pytest.param(d, marks=[] if d < 40 else pytest.mark.slow) for d in PAPER_MILLIONS],
)
def test_cifar_equals_the_paper(depth, size):
    theirs = paper_network()((depth - 2) // 6)
    from tests.zoo.resnet import torch_side

    ours = zoo.build(f"resnet_cifar_{depth}")
    arch_facts = facts.load(f"resnet_cifar_{depth}")
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 32) == facts.value(
        arch_facts, "multiply_adds"
    )
    parity.randomise(ours.classifier)
    torch_side.copy_variables(ours.classifier, theirs, paper_name)
    normalised = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    our_parts = torch_side.with_our_logits(ours, normalised)
    for name, part in torch_side.outputs(theirs, normalised, MODULES).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name


@pytest.mark.parametrize(("depth", "millions"), PAPER_MILLIONS.items())
def test_parameters_are_the_papers(depth, millions):
    arch_facts = facts.load(f"resnet_cifar_{depth}")
    assert abs(facts.value(arch_facts, "trainable_params") / 1e6 - millions) < 0.03


def test_a_head_for_other_classes():
    model = zoo.build(
        "resnet_cifar_20", gin_bindings=["model.taxonomy_name = 'ilsvrc_2012'"]
    )
    assert model.classifier.output_shape == (None, 1000)
    model = zoo.build("resnet_cifar_20")
    assert [c.name for c in model.taxonomy.classes[:2]] == ["airplane", "automobile"]


def test_strided_shortcuts_have_zeros_behind():
    layer = zoo.build("resnet_cifar_20").backbone.get_layer("stage_2_block_1_shortcut")
    images = np.arange(1 * 5 * 4 * 16, dtype=np.float32).reshape(1, 5, 4, 16)
    output = np.asarray(layer(images))
    assert output.shape == layer.compute_output_shape(images.shape) == (1, 3, 2, 32)
    np.testing.assert_array_equal(output[..., :16], images[:, ::2, ::2])
    assert not output[..., 16:].any()
    assert not layer.weights
