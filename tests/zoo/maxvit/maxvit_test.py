"""Tests MaxViT against timm's network of Google's weights, and torchvision's own."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity, specs
from zoo import config, facts
from zoo.layers import dropping

ARCHS = sorted(
    arch
    for arch, path in config.config_files().items()
    if path.parent.parent.name == "maxvit"
)
TORCHVISION = "maxvit_tiny_torchvision"
TIMM = [arch for arch in ARCHS if arch != TORCHVISION]
DEPTHS = (1, 1, 1, 2)
SHALLOW = f"MaxViT.depths = {DEPTHS}"
# As in the real networks, the first stage has as many channels as the stem, or more.
NARROW = {
    "maxvit_tiny": (64, (64, 96, 96, 128)),
    "maxvit_small": (32, (64, 96, 96, 128)),
}
MODULES_OF_TIMM = {
    "stem": "stem",
    **{f"stage_{n + 1}": f"stages.{n}" for n in range(4)},
    "feature_map": "norm",
    "feature_vector": "head.pre_logits",
}
MODULES_OF_TORCHVISION = {
    "stem": "stem",
    **{f"stage_{n + 1}": f"blocks.{n}" for n in range(4)},
    "feature_vector": "classifier.4",
}


def side(arch):
    return facts.value(facts.load(arch), "image_size")


def timm_name(arch):
    """Returns the name of timm's network with the weights of the authors."""
    return f"maxvit_{arch.split('_')[1]}_tf_{side(arch)}"


def narrow(stem, channels, windows=2):
    """Returns bindings of our network with few channels and small windows."""
    return [
        f"MaxViT.stem_channels = {stem}",
        f"MaxViT.channels = {channels}",
        f"MaxViT.window_size = {windows}",
    ]


def randomise(theirs):
    """Randomises all tensors of a PyTorch model, position biases too."""
    import torch

    rng = np.random.default_rng(3)
    for name, tensor in theirs.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("relative_position_bias_table"):
            value = rng.normal(0, 1, tensor.shape)
        elif name.endswith(("bias", "running_mean")):
            value = rng.normal(0, 0.2, tensor.shape)
        elif tensor.ndim == 1:
            value = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            fan_in = np.prod(tensor.shape[1:])
            value = rng.normal(0, np.sqrt(1 / fan_in), tensor.shape)
        tensor.copy_(torch.from_numpy(np.asarray(value)))
    theirs.eval()


def imported(arch, theirs, path, *bindings):
    """Builds our shallow network with the random weights that the other is given."""
    import torch

    randomise(theirs)
    torch.save(theirs.state_dict(), path)
    return zoo.build(arch, weights=str(path), gin_bindings=[SHALLOW, *bindings])


def assert_same(ours, theirs, size, modules):
    """Compares the named modules' outputs, and the logits, for one image."""
    from tests.zoo.resnet import torch_side

    images = np.random.default_rng(1).normal(size=(1, *size, 3)).astype("float32")
    parts = torch_side.with_our_logits(ours, images)
    for name, other in torch_side.outputs(theirs, images, modules).items():
        assert parity.relative(parts[name], other) < 1e-5, (name, size)


def assert_same_layer_norms(ours, theirs):
    """Compares the epsilons, whose effect on random numbers is about the tolerance."""
    import torch

    norms = [m for m in theirs.modules() if isinstance(m, torch.nn.LayerNorm)]
    ours = [
        layer
        for layer in ours.backbone.layers
        if isinstance(layer, keras.layers.LayerNormalization)
    ]
    assert len(ours) == len(norms)
    assert {layer.epsilon for layer in ours} == {norm.eps for norm in norms} == {1e-5}


@pytest.mark.ci
@pytest.mark.slow_except("maxvit_tiny", "maxvit_tiny_384")
@pytest.mark.parametrize("arch", TIMM)
def test_weights_of_timm(arch, tmp_path):
    pytest.importorskip("torch", reason=oracles.HOW)
    theirs = oracles.timm().create_model(timm_name(arch), depths=DEPTHS)
    ours = imported(arch, theirs, tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of timm: ")
    assert_same(ours, theirs, (side(arch), side(arch)), MODULES_OF_TIMM)
    if side(arch) == 224:
        assert_same(ours, theirs, (224, 448), MODULES_OF_TIMM)


@pytest.mark.ci_except("maxvit_tiny")
@pytest.mark.parametrize("arch", NARROW)
def test_weights_of_timm_in_small_windows(arch, tmp_path):
    pytest.importorskip("torch", reason=oracles.HOW)
    stem, channels = NARROW[arch]
    theirs = oracles.timm().create_model(
        timm_name(arch),
        depths=DEPTHS,
        stem_width=stem,
        embed_dim=channels,
        head_hidden_size=channels[-1],
        transformer_window_size=(2, 2),
        transformer_grid_size=(2, 2),
    )
    ours = imported(arch, theirs, tmp_path / "a.pth", *narrow(stem, channels))
    assert_same_layer_norms(ours, theirs)
    for size in ((64, 64), (128, 192)):
        assert_same(ours, theirs, size, MODULES_OF_TIMM)


def torchvision_network(size, windows, stem, channels):
    """Builds a shallow network of torchvision, which takes images of one size."""
    return oracles.torchvision().models.MaxVit(
        input_size=(size, size),
        stem_channels=stem,
        partition_size=windows,
        block_channels=list(channels),
        block_layers=list(DEPTHS),
        head_dim=32,
        stochastic_depth_prob=0.2,
    )


@pytest.mark.parametrize(
    ("windows", "stem", "channels"),
    [
        (2, *NARROW["maxvit_tiny"]),
        pytest.param(7, 64, (64, 128, 256, 512), marks=pytest.mark.ci),
    ],
)
def test_weights_of_torchvision(windows, stem, channels, tmp_path):
    """Its code takes square images alone: it has one number of windows for both axes.

    The biases that it leaves out are zeros.
    """
    pytest.importorskip("torch", reason=oracles.HOW)
    size = 32 * windows
    theirs = torchvision_network(size, windows, stem, channels)
    bindings = narrow(stem, channels, windows)
    ours = imported(TORCHVISION, theirs, tmp_path / "a.pth", *bindings)
    assert "names of torchvision: 250 matched; 2 zeros" in ours.weights["matched"]
    assert_same_layer_norms(ours, theirs)
    assert_same(ours, theirs, (size, size), MODULES_OF_TORCHVISION)
    larger = torchvision_network(2 * size, windows, stem, channels)
    larger.load_state_dict(theirs.state_dict())
    larger.eval()
    assert_same(ours, larger, (2 * size, 2 * size), MODULES_OF_TORCHVISION)


@pytest.mark.ci
@pytest.mark.slow_except("maxvit_tiny", "maxvit_tiny_384", TORCHVISION)
@pytest.mark.parametrize("arch", ARCHS)
def test_counts_are_those_of_the_other_side(arch, monkeypatch):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    timm, torchvision = oracles.timm(), oracles.torchvision()
    from timm.layers import pos_embed_rel

    from tests.zoo.resnet import torch_side

    def get_bias(layer):  # without the products by which it looks them up
        table = layer.relative_position_bias_table
        return table.new_zeros(layer.num_heads, layer.window_area, layer.window_area)

    monkeypatch.setattr(pos_embed_rel.RelPosBiasTf, "get_bias", get_bias)
    with torch.device("meta"):
        theirs = (
            torchvision.models.maxvit_t()
            if arch == TORCHVISION
            else timm.create_model(timm_name(arch))
        )
    arch_facts = facts.load(arch)
    left_out = 64 + 1000 if arch == TORCHVISION else 0  # biases: stem, logits
    parameters = torch_side.parameters(theirs) + left_out
    statistics = sum(
        2 * module.num_features
        for module in theirs.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    )
    assert facts.value(arch_facts, "trainable_params") == parameters
    assert facts.value(arch_facts, "params") == parameters + statistics
    assert facts.value(arch_facts, "multiply_adds") == torch_side.multiply_adds(
        theirs, side(arch)
    )


# The spec


def test_drop_path_grows_from_the_first_block_on():
    """As in the authors' code, the last block is one step below the rate."""
    bindings = [SHALLOW, "MaxViT.drop_path_rate = 0.5"]
    backbone = zoo.build("maxvit_tiny", gin_bindings=bindings).backbone
    rates = {
        layer.name: layer.rate
        for layer in backbone.layers
        if isinstance(layer, dropping.DropPath)
    }
    branches = [
        "",
        *("_window_attention", "_window_mlp", "_grid_attention", "_grid_mlp"),
    ]
    blocks = [("stage_2_block_1", 0.1), ("stage_3_block_1", 0.2)]
    blocks += [("stage_4_block_1", 0.3), ("stage_4_block_2", 0.4)]
    assert rates == {
        f"{block}{branch}_drop_path": pytest.approx(rate)
        for block, rate in blocks
        for branch in branches
    }


def test_windows_grow_with_the_images():
    for arch in ARCHS:
        assert specs.of(arch).window_size == side(arch) // 32


@pytest.mark.parametrize("arch", ["maxvit_tiny", TORCHVISION])
@pytest.mark.parametrize("size", [(32, 32), (33, 95)])
def test_images_of_any_size(arch, size):
    """The other code refuses maps that are not whole windows."""
    bindings = ["MaxViT.depths = (1, 1, 1, 1)", *narrow(*NARROW["maxvit_tiny"], 7)]
    model = zoo.build(arch, gin_bindings=bindings)
    images = np.random.default_rng(0).random((1, *size, 3), np.float32)
    for name, value in model.endpoints(images).items():
        assert np.isfinite(value).all(), name
        stride = {"stem": 2, "feature_map": 32}.get(name)
        if name.startswith("stage_"):
            stride = 2 ** (1 + int(name[-1]))
        if stride:
            assert value.shape[1:3] == tuple(-(-n // stride) for n in size), name


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depths = (2, 2)", "as many values as there are stages, not 2 and 4"),
        ("depths = (2, 2, 5, 0)", r"Each of MaxViT.depths must be an integer in \[1"),
        ("channels = (64, 128, 256, 500)", "channels must be multiples of 32, not"),
        ("stem_channels = 0", "stem_channels must be an integer"),
        ("window_size = 0", "window_size must be an integer"),
        ("padding = 'valid'", "padding must be same or symmetric, not 'valid'"),
        ("approximate_gelu = 1", "approximate_gelu must be True or False"),
    ],
)
def test_a_wrong_spec_is_refused(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("maxvit_tiny", gin_bindings=[f"MaxViT.{binding}"])
