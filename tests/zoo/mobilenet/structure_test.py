"""Tests MobileNets' endpoints and shapes, weight decay and drop path."""

import numpy as np
import pytest

import zoo
from tests.zoo import shapes

# Channels of stem, stages, feature map and feature vector; the strides of the stages.
ARCHS = {
    "mobilenet_v1": ((32, 64, 128, 256, 512, 1024, 1024, 1024), (2, 4, 8, 16, 32)),
    "mobilenet_v3_large": (
        (16, 16, 24, 40, 80, 112, 160, 960, 1280),
        (2, 4, 8, 16, 16, 32),
    ),
    "mobilenet_v3_small_075": (
        (16, 16, 24, 32, 40, 72, 432, 1024),
        (4, 8, 16, 16, 32),
    ),
    "mobilenet_v4_conv_small": ((32, 32, 64, 96, 128, 960, 1280), (4, 8, 16, 32)),
    "mobilenet_v4_hybrid_large": ((24, 48, 96, 192, 512, 960, 1280), (4, 8, 16, 32)),
}


@pytest.mark.slow_except("mobilenet_v1", "mobilenet_v4_conv_small")
@pytest.mark.parametrize("arch", ARCHS)
def test_endpoints_and_shapes(arch):
    channels, strides = ARCHS[arch]
    model = zoo.build(arch)
    images = np.zeros((2, 64, 96, 3), np.float32)
    endpoints = model.backbone(images)
    stages = [f"stage_{n}" for n in range(1, len(strides) + 1)]
    assert list(endpoints) == ["stem", *stages, "feature_map", "feature_vector"]
    expected = [
        (2, 64 // stride, 96 // stride, width)
        for stride, width in zip((2, *strides, 32), channels[:-1], strict=True)
    ]
    shapes = [tuple(tensor.shape) for tensor in endpoints.values()]
    assert shapes == [*expected, (2, channels[-1])]
    assert all(tensor.dtype == "float32" for tensor in endpoints.values())
    assert model.classifier(images).shape == (2, 1000)


@pytest.mark.parametrize(
    ("arch", "kernels"),
    [
        ("mobilenet_v1", 1 + 13 + 1),  # stem, pointwise, logits
        # Stem, 14 expansions, 15 projections, 8 squeeze-excites of two, two
        # convolutions around the pooling, logits.
        ("mobilenet_v3_large", 1 + 14 + 15 + 2 * 8 + 2 + 1),
        ("mobilenet_v4_conv_small", 1 + 2 * (2 + 12) + 2 + 1),
    ],
)
def test_weight_decay_is_the_recipes(arch, kernels):
    model = shapes.build(arch)
    decayed = [v.path for v in model.decayed(model.classifier)]
    assert len(decayed) == kernels
    assert all(path.endswith("/kernel") for path in decayed)
    assert not any("_depthwise/" in path for path in decayed)


@pytest.mark.parametrize("variant", ["conv_medium", "hybrid_medium"])
def test_only_residual_branches_drop_paths(variant):
    backbone = shapes.build(f"mobilenet_v4_{variant}").backbone
    names = [layer.name for layer in backbone.layers]
    adds = [n.removesuffix("_add") for n in names if n.endswith("_add")]
    drops = [n.removesuffix("_drop_path") for n in names if n.endswith("_drop_path")]
    assert drops == adds
    rates = [backbone.get_layer(f"{n}_drop_path").rate for n in drops]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < 0.075


def test_minimalistic_has_neither_hard_swish_nor_squeeze_excite_nor_5x5():
    backbone = shapes.build("mobilenet_v3_large_minimalistic").backbone
    names = [layer.name for layer in backbone.layers]
    assert not any("squeeze_excite" in name for name in names)
    kernels = [v.shape for v in backbone.weights if "_depthwise/" in v.path]
    assert {shape[:2] for shape in kernels if len(shape) == 4} == {(3, 3)}
    layers = list(backbone._flatten_layers())
    activations = {v.activation.__name__ for v in layers if hasattr(v, "activation")}
    assert activations == {"linear", "relu"}
