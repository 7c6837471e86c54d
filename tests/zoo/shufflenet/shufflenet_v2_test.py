"""Tests ShuffleNet V2 against torchvision."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from tests.zoo.mobilenet import timm_side
from zoo.layers import channels

WIDTHS = {"050": "x0_5", "100": "x1_0", "150": "x1_5", "200": "x2_0"}
SIZES = ((224, 224), (97, 131))
MEAN = np.asarray((0.485, 0.456, 0.406), np.float32)
STD = np.asarray((0.229, 0.224, 0.225), np.float32)
BATCH_NORMS = 2 + 3 * 5 + 13 * 3
VARIABLES = 5 * BATCH_NORMS + 2
MODULES = {
    "stem": "maxpool",
    **{f"stage_{n}": f"stage{n + 1}" for n in range(1, 4)},
    "feature_map": "conv5",
}


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).random((1, *size, 3), np.float32)


def assert_same(ours, theirs):
    """Asserts that all endpoints and the logits equal those of torchvision's model."""
    from tests.zoo.resnet import torch_side

    for size in SIZES:
        images = some_images(size)
        our_parts = ours.endpoints(images)
        our_parts["logits"] = ours.classifier(images)
        expected = torch_side.outputs(theirs, (images - MEAN) / STD, MODULES)
        expected["feature_vector"] = expected["feature_map"].mean((1, 2))
        assert set(expected) == set(our_parts)
        for name, part in expected.items():
            assert parity.relative(our_parts[name], part) < 1e-4, (name, size)


def torchvision_model(width):
    return getattr(oracles.torchvision().models, f"shufflenet_v2_{WIDTHS[width]}")()


@pytest.mark.ci
@pytest.mark.slow_except("050")
@pytest.mark.parametrize("width", WIDTHS)
def test_weights_of_torchvision(width, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    theirs, path = torchvision_model(width), tmp_path / "a.pth"
    torch_side.randomise(theirs)
    torch.save(theirs.state_dict(), path)
    ours = zoo.build(f"shufflenet_v2_{width}", weights=str(path))
    assert ours.weights["matched"] == (
        f"names of torchvision: {VARIABLES} matched; {BATCH_NORMS} ignored"
    )
    count = sum(int(np.prod(v.shape)) for v in ours.classifier.trainable_weights)
    assert count == torch_side.parameters(theirs)
    assert_same(ours, theirs)


def torch_name(path):
    """Returns torchvision's name of our layer, independently of the product's table."""
    layer, _, kind = path.partition("/")
    if layer == "logits":
        return "fc"
    offset = ("conv", "norm").index(kind)
    if layer in ("stem", "feature_map"):
        return f"{'conv1' if layer == 'stem' else 'conv5'}.{offset}"
    _, stage, _, block, part = layer.split("_", 4)
    conv_module = {
        "shortcut_depthwise": "branch1.0",
        "shortcut_pointwise": "branch1.2",
        "pointwise_1": "branch2.0",
        "depthwise": "branch2.3",
        "pointwise_2": "branch2.5",
    }[part]
    branch, _, number = conv_module.partition(".")
    return f"stage{int(stage) + 1}.{int(block) - 1}.{branch}.{int(number) + offset}"


@pytest.mark.slow_except("050")
@pytest.mark.parametrize("width", ["050", "200"])
def test_torchvision_with_our_weights(width):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    ours, theirs = zoo.build(f"shufflenet_v2_{width}"), torchvision_model(width)
    parity.randomise(ours.classifier, seed=2)
    state = timm_side.state(ours.classifier, name=torch_name, torch=torch)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert_same(ours, theirs.eval())


def test_a_shuffle_interleaves_groups():
    x = np.arange(2 * 3 * 5 * 6, dtype=np.float32).reshape(2, 3, 5, 6)
    for groups, order in ((2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5])):
        layer = channels.ChannelShuffle(groups, name="shuffle")
        np.testing.assert_array_equal(layer(x), x[..., order])
        assert layer.compute_output_shape((None, None, None, 6))[-1] == 6


def test_halves_are_the_whole():
    x = np.arange(2 * 3 * 5 * 6, dtype=np.float32).reshape(2, 3, 5, 6)
    halves = [channels.ChannelHalf(half, name=f"half_{half}") for half in (0, 1)]
    np.testing.assert_array_equal(keras.ops.concatenate([h(x) for h in halves], -1), x)
    assert halves[1].compute_output_shape((1, 3, 5, 6)) == (1, 3, 5, 3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (channels.ChannelHalf(0, name="a"), "a can't divide 5 channels into 2."),
        (channels.ChannelShuffle(3, name="b"), "b can't divide 5 channels into 3."),
    ],
    ids=["half", "shuffle"],
)
def test_channels_that_can_not_be_divided(layer, message):
    with pytest.raises(ValueError, match=message):
        layer(keras.Input((4, 4, 5)))


def test_a_half_is_0_or_1():
    with pytest.raises(ValueError, match="half of a must be 0 or 1, not 2"):
        channels.ChannelHalf(2, name="a")


def test_a_width_that_the_paper_does_not_have():
    with pytest.raises(ValueError, match=r"one of 0.5, 1.0, 1.5, 2.0, not 0.75"):
        zoo.build(
            "shufflenet_v2_050", gin_bindings=["ShuffleNetV2.width_multiplier = 0.75"]
        )
