"""Tests Swin and Swin V2 against timm, torchvision and transformers."""

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import config, facts

ARCHS = sorted(
    arch
    for arch, path in config.config_files().items()
    if path.parent.parent.name == "swin"
)
TORCHVISION = {
    "swin_tiny": "swin_t",
    "swin_v2_tiny_window8": "swin_v2_t",
}
# A size whose stages are no multiples of the windows, and one with odd stages too.
OTHER_SIZES = ((160, 264), (100, 68))
MODULES = {
    "timm": {
        "stem": "patch_embed",
        **{f"stage_{n}": f"layers.{n - 1}" for n in range(1, 5)},
        "feature_map": "norm",
    },
    "torchvision": {
        "stem": "features.0",
        **{f"stage_{n}": f"features.{2 * n - 1}" for n in range(1, 5)},
        "feature_map": "norm",
    },
}


def is_v2(arch):
    return arch.startswith("swin_v2_")


def timm_name(arch):
    """Returns the name that timm gives to an arch of this family."""
    if not is_v2(arch):
        _, size, *pixels = arch.split("_")
        return f"swin_{size}_patch4_window{'12_384' if pixels else '7_224'}"
    _, _, size, window, *pixels = arch.split("_")
    if pixels:
        return f"swinv2_{size}_window12to24_192to384"
    if size == "large":
        return f"swinv2_{size}_window12to16_192to256"
    return f"swinv2_{size}_{window}_256"


def randomise(theirs, is_key_bias_zero=False):
    """Randomises all parameters; buffers, such as coordinates, keep their values."""
    import torch

    rng = np.random.default_rng(3)
    parameters = {name for name, _ in theirs.named_parameters()}
    for name, tensor in theirs.state_dict().items():
        if name not in parameters:
            continue
        is_vector = tensor.numel() == max(tensor.shape)
        if "logit_scale" in name:
            value = rng.uniform(0, 6, tensor.shape)  # up to more than log(100)
        elif is_vector and name.endswith("bias"):
            value = rng.normal(0, 0.2, tensor.shape)
        elif is_vector:
            value = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            is_table = name.endswith("_table")
            fan_in = 1 if is_table else np.prod(tensor.shape[1:])
            value = rng.normal(0, np.sqrt(1 / fan_in), tensor.shape)
        tensor.copy_(torch.from_numpy(value))
        if is_key_bias_zero and name.endswith("qkv.bias"):
            third = tensor.numel() // 3
            tensor[third : 2 * third] = 0
    theirs.eval()


def shallow(arch, path):
    """Builds an arch of two blocks in each stage with imported weights."""
    spec = "SwinV2" if is_v2(arch) else "Swin"
    return zoo.build(
        arch, weights=str(path), gin_bindings=[f"{spec}.depths = (2, 2, 2, 2)"]
    )


def tolerance(arch):
    """V2 multiplies cosines, and their rounding errors, by up to 100."""
    return 1e-4 if is_v2(arch) else 1e-5


def images_of(*size):
    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    return images.astype("float32")


def assert_same(ours, theirs, modules, size):
    """Compares endpoints and logits; maps of PyTorch have channels last here."""
    from tests.zoo.resnet import torch_side

    images = images_of(*size)
    parts = torch_side.with_our_logits(ours, images)
    for name, part in torch_side.outputs(theirs, images, modules).items():
        if part.ndim == 4:  # the helper took it for [B, C, H, W]
            part = np.transpose(part, (0, 3, 1, 2))
        assert parity.relative(parts[name], part) < tolerance(ours.arch), (name, size)


@pytest.mark.ci
@pytest.mark.slow_except("swin_tiny", "swin_v2_tiny_window8", "swin_v2_tiny_window16")
@pytest.mark.parametrize("arch", ARCHS)
def test_weights_of_timm(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = oracles.timm().create_model(timm_name(arch), depths=(2, 2, 2, 2))
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of timm: ")
    side = facts.value(facts.load(arch), "image_size")
    assert_same(ours, theirs, MODULES["timm"], (side, side))


@pytest.mark.ci
@pytest.mark.parametrize("arch", TORCHVISION)
def test_weights_of_torchvision(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = torchvision_network(arch)
    randomise(theirs, is_key_bias_zero=is_v2(arch))
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of torchvision: ")
    for size in OTHER_SIZES:
        assert_same(ours, theirs, MODULES["torchvision"], size)


def torchvision_network(arch):
    """Builds two blocks of each stage of torchvision's smallest network."""
    swin = oracles.torchvision().models.swin_transformer
    version_2 = {
        "block": swin.SwinTransformerBlockV2,
        "downsample_layer": swin.PatchMergingV2,
    }
    window = 8 if is_v2(arch) else 7
    return swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=96,
        depths=[2, 2, 2, 2],
        num_heads=[3, 6, 12, 24],
        window_size=[window, window],
        **(version_2 if is_v2(arch) else {}),
    )


@pytest.mark.ci
@pytest.mark.parametrize("is_published", [False, True], ids=["now", "published"])
@pytest.mark.parametrize("arch", ["swin_tiny", "swin_v2_tiny_window8"])
def test_weights_of_transformers(arch, is_published, tmp_path):
    """The names in the published files of V1 are older than today's."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = transformers_network(arch)
    randomise(theirs)
    state = theirs.state_dict()
    if is_published:
        state = {published_name(name): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of transformers: ")
    base = "swinv2" if is_v2(arch) else "swin"
    side = 256 if is_v2(arch) else 224
    modules = {"feature_map": f"{base}.layernorm"}
    images = images_of(side, side)
    from tests.zoo.resnet import torch_side

    parts = torch_side.with_our_logits(ours, images)
    others = torch_side.outputs(theirs, images, modules)
    others["feature_map"] = others["feature_map"].reshape(parts["feature_map"].shape)
    for name, part in others.items():
        assert parity.relative(parts[name], part) < tolerance(arch), name


def transformers_network(arch):
    transformers = oracles.transformers()
    name = "Swinv2" if is_v2(arch) else "Swin"
    settings = getattr(transformers, f"{name}Config")(
        depths=[2, 2, 2, 2],
        num_heads=[3, 6, 12, 24],
        window_size=8 if is_v2(arch) else 7,
        image_size=256 if is_v2(arch) else 224,
        num_labels=1000,
    )
    return getattr(transformers, f"{name}ForImageClassification")(settings)


def published_name(name):
    """Returns the name that transformers gave to a tensor of Swin before version 5."""
    for new, old in {
        "attention.q_proj": "attention.self.query",
        "attention.k_proj": "attention.self.key",
        "attention.v_proj": "attention.self.value",
        "attention.o_proj": "attention.output.dense",
        "attention.relative_position_bias.": "attention.self.",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }.items():
        name = name.replace(new, old)
    return name


@pytest.mark.ci
@pytest.mark.parametrize("arch", ["swin_tiny", "swin_v2_tiny_window8"])
def test_weights_of_the_authors(arch, tmp_path):
    """timm's own conversion of the authors' names proves that these are theirs."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from timm.models import swin_transformer, swin_transformer_v2

    theirs = oracles.timm().create_model(timm_name(arch), depths=(2, 2, 2, 2))
    randomise(theirs)
    state = {authors_name(n): t for n, t in theirs.state_dict().items()}
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    module = swin_transformer_v2 if is_v2(arch) else swin_transformer
    converted = module.checkpoint_filter_fn({"model": dict(state)}, theirs)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(converted[name], tensor)
    torch.save({"model": state}, tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of microsoft/Swin-Transformer: ")
    side = facts.value(facts.load(arch), "image_size")
    assert_same(ours, theirs, MODULES["timm"], (side, side))


def authors_name(name):
    """Returns the name that the authors' code gives to a tensor of timm."""
    name = name.replace("head.fc.", "head.")
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) - 1)  # there, it ends the stage before
    return ".".join(parts)


# The specs


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("swin_tiny", "Swin.num_heads = (3, 6, 12)", "num_heads must have as many"),
        ("swin_tiny", "Swin.window_sizes = (7, 7, 7, 0)", "Each of Swin.window_sizes"),
        ("swin_tiny", "Swin.num_heads = (5, 6, 12, 24)", "5 do not divide 96"),
        ("swin_tiny", "Swin.depths = ()", "depths must have as many"),
        (
            "swin_v2_tiny_window8",
            "SwinV2.pretrained_window_sizes = (12,)",
            "pretrained_window_sizes must have as many values as there are stages, 4",
        ),
    ],
)
def test_a_wrong_spec_is_refused(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])


def test_drop_path_grows():
    bindings = ["Swin.depths = (1, 2)", "Swin.drop_path_rate = 0.2"]
    bindings += ["Swin.num_heads = (3, 6)", "Swin.window_sizes = (7, 7)"]
    backbone = zoo.build("swin_tiny", gin_bindings=bindings).backbone
    rates = [x.rate for x in backbone.layers if x.name.endswith("mlp_drop_path")]
    assert rates == [0.1, 0.2]  # none in the first
