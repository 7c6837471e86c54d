"""Tests ConvNeXt against timm, torchvision, transformers and keras.applications."""

import keras
import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from tests.zoo.resnet import keras_side
from zoo import config, facts

SIZES = ((224, 224), (97, 130))
VERSION_1 = ("tiny", "small", "base", "large", "xlarge")
VERSION_2 = ("atto", "femto", "pico", "nano", "tiny", "base", "large")
# Blocks and channels of each stage, independently of the product's files:
# arXiv:2201.03545, section 3, and arXiv:2301.00808, Table 8.
STAGES = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_v2_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
}
MODULES = {
    "timm": {
        "stem": "stem",
        **{f"stage_{n}": f"stages.{n - 1}" for n in range(1, 5)},
        "feature_vector": "head.norm",
    },
    "torchvision": {
        "stem": "features.0",
        **{f"stage_{n}": f"features.{2 * n - 1}" for n in range(1, 5)},
        "feature_vector": "classifier.0",
    },
}
TRANSFORMERS = {
    "convnext_tiny": ("ConvNext", "convnext"),
    "convnext_v2_atto": ("ConvNextV2", "convnextv2"),
}


def timm_network(arch):
    name = arch.replace("convnext_v2", "convnextv2")
    return oracles.timm().create_model(name)


def torchvision_network(arch):
    return getattr(oracles.torchvision().models, arch)()


def transformers_network(arch):
    transformers = oracles.transformers()
    depths, channels = STAGES[arch]
    name, module = TRANSFORMERS[arch]
    settings = getattr(transformers, f"{name}Config")(
        depths=list(depths), hidden_sizes=list(channels), num_labels=1000
    )
    network = getattr(transformers, f"{name}ForImageClassification")(settings)
    # Its default, 1e-12, is not the authors' 1e-6 for this norm alone.
    getattr(network, module).layernorm.eps = 1e-6
    return network


def randomise(theirs):
    """Randomises all tensors of a PyTorch model, layer scales and response norms too.

    A tensor of one axis, besides axes of size 1, has a value for each channel.
    """
    import torch

    rng = np.random.default_rng(3)
    for name, tensor in theirs.state_dict().items():
        is_vector = tensor.numel() == max(tensor.shape)
        if is_vector and name.endswith(("bias", "beta")):
            value = rng.normal(0, 0.2, tensor.shape)
        elif is_vector:
            value = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            fan_in = np.prod(tensor.shape[1:])
            value = rng.normal(0, np.sqrt(1 / fan_in), tensor.shape)
        tensor.copy_(torch.from_numpy(value))
    theirs.eval()


def assert_same(ours, theirs, modules):
    from tests.zoo.resnet import torch_side

    for size in SIZES:
        normalised = np.random.default_rng(1).normal(size=(2, *size, 3))
        normalised = normalised.astype("float32")
        our_parts = torch_side.with_our_logits(ours, normalised)
        for name, part in torch_side.outputs(theirs, normalised, modules).items():
            assert parity.relative(our_parts[name], part) < 1e-5, (name, size)


CASES = [
    *(("timm", f"convnext_{size}") for size in VERSION_1),
    *(("timm", f"convnext_v2_{size}") for size in VERSION_2),
    *(("torchvision", f"convnext_{size}") for size in VERSION_1[:-1]),
]


@pytest.mark.ci
@pytest.mark.slow_except(
    "timm-convnext_tiny", "timm-convnext_v2_atto", "torchvision-convnext_tiny"
)
@pytest.mark.parametrize(("source", "arch"), CASES)
def test_weights_of_timm_and_torchvision(source, arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = {"timm": timm_network, "torchvision": torchvision_network}[source](arch)
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = zoo.build(arch, weights=str(tmp_path / "a.pth"))
    count = len(theirs.state_dict())
    assert ours.weights["matched"] == f"names of {source}: {count} matched"
    parameters = sum(p.numel() for p in theirs.parameters())
    assert facts.value(facts.load(arch), "params") == parameters
    assert_same(ours, theirs, MODULES[source])


@pytest.mark.ci
@pytest.mark.parametrize("arch", TRANSFORMERS)
def test_weights_of_transformers(arch, tmp_path):
    theirs = transformers_network(arch)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = zoo.build(arch, weights=str(tmp_path / "model.safetensors"))
    count = len(theirs.state_dict())
    assert ours.weights["matched"] == f"names of transformers: {count} matched"
    base = TRANSFORMERS[arch][1]
    modules = {
        "stem": f"{base}.embeddings",
        **{f"stage_{n}": f"{base}.encoder.stages.{n - 1}" for n in range(1, 5)},
        "feature_vector": f"{base}.layernorm",
    }
    assert_same(ours, theirs, modules)


@pytest.mark.ci
@pytest.mark.parametrize("arch", STAGES)
def test_weights_of_the_authors(arch, tmp_path):
    """timm's own conversion of the authors' names proves that these are theirs."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network(arch)
    from timm.models import convnext

    randomise(theirs)
    state = {authors_name(n): t for n, t in theirs.state_dict().items()}
    if "_v2_" in arch:  # there, response norms have one value for each channel
        state = {
            n: t.reshape(1, 1, 1, -1) if ".grn." in n else t for n, t in state.items()
        }
    converted = convnext.checkpoint_filter_fn(dict(state), theirs)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(converted[name].reshape(tensor.shape), tensor)
    torch.save({"model": state}, tmp_path / "a.pth")
    ours = zoo.build(arch, weights=str(tmp_path / "a.pth"))
    source = "ConvNeXt-V2" if "_v2_" in arch else "ConvNeXt"
    assert ours.weights["matched"] == (
        f"names of facebookresearch/{source}: {len(state)} matched"
    )
    assert_same(ours, theirs, MODULES["timm"])


def authors_name(name):
    """Returns the name that the authors' code gives to a tensor of timm."""
    renamed = {
        "stem.": "downsample_layers.0.",
        "head.norm.": "norm.",
        "head.fc.": "head.",
    }
    for ours, authors in renamed.items():
        if name.startswith(ours):
            return authors + name.removeprefix(ours)
    _, stage, rest = name.split(".", 2)
    if rest.startswith("downsample."):
        return f"downsample_layers.{stage}.{rest.removeprefix('downsample.')}"
    rest = rest.removeprefix("blocks.")
    for part, authors in {
        "conv_dw": "dwconv",
        "mlp.fc1": "pwconv1",
        "mlp.grn.weight": "grn.gamma",
        "mlp.grn.bias": "grn.beta",
        "mlp.fc2": "pwconv2",
    }.items():
        rest = rest.replace(part, authors)
    return f"stages.{stage}.{rest}"


# Keras


def keras_network(kind, size, shape):
    network = getattr(kind.applications, f"ConvNeXt{size}")
    return network(weights=None, input_shape=shape, classifier_activation=None)


@pytest.mark.ci
@pytest.mark.slow_except("Tiny")
@pytest.mark.parametrize("size", ["Tiny", "Small", "Base", "Large", "XLarge"])
def test_weights_of_keras_applications(size, tmp_path):
    theirs, path = keras_network(keras, size, (97, 130, 3)), tmp_path / "a.weights.h5"
    parity.randomise(theirs)
    theirs.save_weights(path)
    arch = f"convnext_{size.lower()}"
    ours = zoo.build(arch, weights=str(path))
    assert ours.weights["matched"] == (
        f"names of keras.applications: {len(theirs.weights)} matched"
    )
    assert ours.classifier.count_params() == theirs.count_params()
    images = np.random.default_rng(1).random((2, 97, 130, 3), np.float32)
    assert parity.relative(ours.classifier(images), theirs(255 * images)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_files_of_keras_2(kind, tmp_path):
    """Their layers are grouped, and a whole model of Keras 3 numbers the scales."""
    theirs, path = keras_network(kind, "Tiny", (64, 64, 3)), tmp_path / "a.h5"
    (keras_side.randomise if kind is tf_keras else parity.randomise)(theirs)
    theirs.save(path)
    ours = zoo.build("convnext_tiny", weights=str(path))
    assert ours.weights["matched"] == (
        f"names of keras.applications: {len(theirs.weights)} matched"
    )
    images = np.random.default_rng(1).random((2, 64, 64, 3), np.float32)
    assert parity.relative(ours.classifier(images), theirs(255 * images)) < 1e-5


# The specs


def test_the_archs_are_those_published():
    archs = {arch for arch in config.config_files() if arch.startswith("convnext")}
    assert archs == {
        *(f"convnext_{size}" for size in VERSION_1),
        *(f"convnext_v2_{size}" for size in VERSION_2),
    }


def test_residual_branches_begin_small_and_response_norms_as_identity():
    first, second = zoo.build("convnext_tiny"), zoo.build("convnext_v2_atto")
    scales = [v for v in first.backbone.weights if v.path.endswith("_scale/gamma")]
    assert len(scales) == 18
    assert {v for scale in scales for v in np.asarray(scale)} == {np.float32(1e-6)}
    norms = [v for v in second.backbone.weights if "_response_norm/" in v.path]
    assert len(norms) == 2 * 12
    assert not any(np.asarray(norm).any() for norm in norms)


def test_the_share_of_dropped_branches_grows_to_the_last():
    backbone = zoo.build("convnext_tiny").backbone
    rates = [x.rate for x in backbone.layers if x.name.endswith("_drop_path")]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 18)[1:])


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("convnext_tiny", "ConvNeXt.depths = ()", "as many values as there are stages"),
        ("convnext_tiny", "ConvNeXt.depths = (3, 3, 9)", "not 3 and 4"),
        ("convnext_tiny", "ConvNeXt.scale_start = 2.0", r"scale_start must be .*\[0"),
        ("convnext_v2_atto", "ConvNeXtV2.channels = (0, 1, 1, 1)", "channels must be"),
    ],
)
def test_a_wrong_spec_is_refused(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])
