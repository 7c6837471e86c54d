"""Tests MaxViT against timm's network of Google's weights, and torchvision's own."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity, shapes
from zoo import config, facts
from zoo.layers import dropping

ARCHS = sorted(
    arch
    for arch, path in config.config_files().items()
    if path.parent.parent.name == "maxvit"
)
TORCHVISION = "maxvit_tiny_torchvision"
TIMM = [arch for arch in ARCHS if arch != TORCHVISION]
SHALLOW = "MaxViT.depths = (1, 1, 1, 2)"
LEFT_OUT_BY_TORCHVISION = 64 + 1000  # biases, of the stem and of the logits


def timm_network(arch, *, depths=None, **settings):
    """Builds timm's network; of window sizes alone, it is that of the smallest size."""
    _, size, *resolution = arch.split("_")
    return oracles.timm().create_model(
        f"maxvit_{size}_tf_{resolution[0] if resolution else 224}",
        **{"depths": depths} if depths else {},
        **settings,
    )


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


def images_of(*size):
    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    return images.astype("float32")


def assert_same(ours, theirs, size, modules):
    """Compares the named modules' outputs, and the logits."""
    from tests.zoo.resnet import torch_side

    images = images_of(*size)
    parts = torch_side.with_our_logits(ours, images)
    others = torch_side.outputs(theirs, images, modules)
    for name, other in others.items():
        if other.ndim == 4:
            assert parts[name].shape == other.shape, (name, size)
        assert parity.relative(parts[name], other) < 1e-5, (name, size)


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


def save(theirs, path):
    import torch

    randomise(theirs)
    torch.save(theirs.state_dict(), path)
    return str(path)


@pytest.mark.ci_except("maxvit_tiny")
@pytest.mark.parametrize(
    "arch", [arch for arch in TIMM if "_384" not in arch and "_512" not in arch]
)
def test_weights_of_timm_in_small_windows(arch, tmp_path):
    pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network(
        arch,
        depths=(1, 1, 1, 2),
        transformer_window_size=(2, 2),
        transformer_grid_size=(2, 2),
    )
    ours = zoo.build(
        arch,
        weights=save(theirs, tmp_path / "a.pth"),
        gin_bindings=[SHALLOW, "MaxViT.window_size = 2"],
    )
    assert ours.weights["matched"].startswith("names of timm: ")
    for size in ((64, 64), (128, 192)):
        assert_same(ours, theirs, size, MODULES_OF_TIMM)
