"""Tests RegNet's stages, endpoints, initial kernels and error messages."""

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, specs

# Names in tf_keras, an independent implementation whose lists have the depths, widths
# and group widths of the paper's tables.
FIXED = {
    "regnet_x_200mf": "x002",
    "regnet_x_400mf": "x004",
    "regnet_x_8_0gf": "x080",
    "regnet_y_200mf": "y002",
    "regnet_y_800mf": "y008",
    "regnet_y_8_0gf": "y080",
}


@pytest.mark.parametrize("arch", FIXED)
def test_stages_are_those_of_the_tables(arch):
    from tf_keras.src.applications import regnet

    table = regnet.MODEL_CONFIGS[FIXED[arch]]
    stages = specs.of(arch).stages()
    assert [stage.blocks for stage in stages] == table["depths"]
    assert [stage.channels for stage in stages] == table["widths"]
    for stage in stages:
        assert stage.group_width == min(table["group_width"], stage.channels)


@pytest.mark.slow_except("regnet_x_200mf")
@pytest.mark.parametrize("arch", ["regnet_x_200mf", "regnet_y_200mf"])
def test_endpoints_and_shapes(arch):
    model = zoo.build(arch)
    endpoints = model.backbone(np.zeros((2, 64, 96, 3), np.float32))
    shapes = {name: tuple(tensor.shape) for name, tensor in endpoints.items()}
    assert shapes == {
        "stem": (2, 32, 48, 32),
        "stage_1": (2, 16, 24, 24),
        "stage_2": (2, 8, 12, 56),
        "stage_3": (2, 4, 6, 152),
        "stage_4": (2, 2, 3, 368),
        "feature_map": (2, 2, 3, 368),
        "feature_vector": (2, 368),
    }


def test_kernels_begin_as_those_of_pycls():
    """The variance is 2 / (k² · output channels), whatever the groups."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    model = zoo.build("regnet_x_200mf", seed=1).backbone
    (kernel,) = (
        np.asarray(v.value)
        for v in model.weights
        if v.path == "stage_4_block_2_conv_2/conv/kernel"
    )
    assert kernel.shape == (3, 3, 8, 368)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 368)), rel=0.05)
    torch.manual_seed(1)
    (theirs,) = (
        parameter.detach().numpy()
        for name, parameter in oracles.torchvision()
        .models.regnet_x_400mf()
        .named_parameters()
        if name == "trunk_output.block4.block4-1.f.b.0.weight"
    )
    assert theirs.std() == pytest.approx(np.sqrt(2 / (9 * 400)), rel=0.05)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 0", r"RegNetX.depth must be an integer in \[1, 200\], not 0"),
        ("initial_width = 20", "initial_width must be a multiple of 8, not 20."),
        ("width_step = 1.0", "RegNetX.width_step must be a number in"),
        ("group_width = 0", "RegNetX.group_width must be an integer in"),
        ("se_ratio = 0.01", r"RegNetX.se_ratio must be a number in \[0.125, 1.0\]"),
        (
            "width_rounding = 'timm'",
            "width_rounding must be one of pycls, torchvision, not 'timm'.",
        ),
    ],
)
def test_parameters_that_make_no_network(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("regnet_x_200mf", gin_bindings=[f"RegNetX.{binding}"])
