"""Tests MLP-Mixer against timm, and with the names of its authors' Flax code."""

import functools

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import config

ARCHS = sorted(
    arch
    for arch, path in config.config_files().items()
    if path.parent.parent.name == "mlp_mixer"
)
DEPTH = 2  # blocks, since all are alike
SIZES = (224, 160)


def timm_network(arch, **settings):
    """Builds timm's network of `DEPTH` blocks with random weights, norms included."""
    from tests.zoo.resnet import torch_side

    *_, size, patch = arch.split("_")
    name = f"mixer_{size[0]}{patch}_224"
    theirs = oracles.timm().create_model(name, **settings)
    theirs.blocks = theirs.blocks[:DEPTH]
    torch_side.randomise(theirs)
    return theirs


def shallow(arch, weights, *bindings):
    """Builds an arch of `DEPTH` blocks with imported weights."""
    depth = f"MLPMixer.depth = {DEPTH}"
    return zoo.build(arch, weights=str(weights), gin_bindings=[depth, *bindings])


def images_of(size):
    images = np.random.default_rng(1).normal(size=(2, size, size, 3))
    return images.astype("float32")


def assert_same_as_timm(ours, theirs, size):
    """Compares patches, blocks, feature map, feature vector and logits."""
    import torch

    from tests.zoo.resnet import torch_side

    images = images_of(size)
    parts = torch_side.with_our_logits(ours, images)
    modules = {"patches": "stem.proj", "block_1": "blocks.0", "block_2": "blocks.1"}
    others = torch_side.outputs(theirs, images, modules)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        features = theirs.forward_features(pixels)
        others["feature_vector"] = theirs.forward_head(features, pre_logits=True)
    others["feature_map"] = features.reshape(parts["feature_map"].shape)
    assert others.keys() == parts.keys()
    for name, other in others.items():
        assert parity.relative(parts[name], np.asarray(other)) < 1e-5, (name, size)


@pytest.mark.ci
@pytest.mark.slow_except("mlp_mixer_small_32", "mlp_mixer_small_16")
@pytest.mark.parametrize("arch", ARCHS)
def test_weights_of_timm(arch, tmp_path):
    """The size of the images sets that of the kernels which mix tokens."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    for size in SIZES:
        theirs = timm_network(arch, img_size=size)
        torch.save(theirs.state_dict(), tmp_path / "a.pth")
        ours = shallow(arch, tmp_path / "a.pth", f"MLPMixer.image_size = {size}")
        assert ours.weights["matched"].startswith("names of timm: ")
        assert ours.backbone.input_shape == (None, size, size, 3)
        assert_same_as_timm(ours, theirs, size)
        kind = keras.layers.LayerNormalization  # whose epsilon these images don't show
        norms = [layer for layer in ours.backbone.layers if isinstance(layer, kind)]
        assert {norm.epsilon for norm in norms} == {theirs.norm.eps}
        assert len(norms) == 2 * DEPTH + 1


@pytest.mark.ci
def test_weights_for_another_number_of_tokens_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network("mlp_mixer_small_32")
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="token_mixing"):
        shallow("mlp_mixer_small_32", tmp_path / "a.pth", "MLPMixer.image_size = 160")


def flax_names(state):
    """Returns timm's tensors as arrays with the names of the authors' `.npz` files."""
    renamed = {
        "blocks.": "MixerBlock_",
        ".mlp_tokens.": "/token_mixing.",
        ".mlp_channels.": "/channel_mixing.",
        ".fc1.": "/Dense_0/",
        ".fc2.": "/Dense_1/",
        ".norm1.": "/LayerNorm_0/",
        ".norm2.": "/LayerNorm_1/",
        "stem.proj.": "stem/",
        "head.": "head/",
    }
    arrays = {}
    for name, tensor in state.items():
        is_norm = tensor.ndim == 1 and name.endswith("weight")
        new = name.replace("weight", "scale" if is_norm else "kernel")
        if new.startswith("norm."):
            new = new.replace("norm.", "pre_head_layer_norm/")
        for timms, theirs in renamed.items():
            new = new.replace(timms, theirs)
        axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim]
        arrays[new] = tensor.numpy().transpose(axes)
    return arrays


@pytest.mark.ci
def test_weights_of_flax(tmp_path):
    """The authors' code approximates GELU, which their weights bring along."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    gelu = functools.partial(torch.nn.GELU, approximate="tanh")
    theirs = timm_network("mlp_mixer_small_32", act_layer=gelu)
    arrays = flax_names(theirs.state_dict())
    assert {
        "stem/kernel",
        "MixerBlock_1/LayerNorm_0/scale",
        "MixerBlock_1/token_mixing/Dense_1/kernel",
        "MixerBlock_0/channel_mixing/Dense_0/bias",
        "pre_head_layer_norm/bias",
        "head/kernel",
    } < arrays.keys()
    np.savez(tmp_path / "a.npz", **arrays)
    ours = shallow("mlp_mixer_small_32", tmp_path / "a.npz")
    matched = ours.weights["matched"]
    assert matched.startswith("names of google-research/vision_transformer: ")
    assert ours.spec.mlp_activation == "gelu_tanh"
    assert_same_as_timm(ours, theirs, 224)


def test_drop_path_grows():
    bindings = ["MLPMixer.depth = 3", "MLPMixer.drop_path_rate = 0.2"]
    backbone = zoo.build("mlp_mixer_small_32", gin_bindings=bindings).backbone
    rates = {x.name: x.rate for x in backbone.layers if x.name.endswith("drop_path")}
    assert rates == {
        "block_2_token_mixing_drop_path": 0.1,
        "block_2_channel_mixing_drop_path": 0.1,
        "block_3_token_mixing_drop_path": 0.2,
        "block_3_channel_mixing_drop_path": 0.2,
    }


def test_images_of_another_size_are_refused():
    model = zoo.build("mlp_mixer_small_32", gin_bindings=["MLPMixer.depth = 1"])
    for call in (model.classifier, model.endpoints):
        with pytest.raises(ValueError, match=r"expected shape=\(None, 224, 224, 3\)"):
            call(np.zeros((1, 112, 448, 3), np.float32))


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("MLPMixer.depth = 0", r"MLPMixer.depth must be an integer in \[1, 8192\]"),
        ("MLPMixer.token_hidden = 0", "token_hidden must be"),
        ("MLPMixer.channel_hidden = 0", "channel_hidden must be"),
        ("MLPMixer.mlp_activation = 'relu'", "must be one of gelu, gelu_tanh, quick"),
        (
            "MLPMixer.image_size = 230",
            "image_size must be a multiple of the patch size, 32 pixels, not 230",
        ),
    ],
)
def test_a_wrong_spec_is_refused(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("mlp_mixer_small_32", gin_bindings=[binding])
