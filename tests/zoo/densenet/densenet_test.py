"""Tests DenseNet against torchvision, timm and keras.applications."""

import re

import keras
import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from tests.zoo.resnet import keras_side

DEPTHS = (121, 161, 169, 201)
# Dense layers of each block, written independently of the product's table.
BLOCKS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
}
SIZES = ((224, 224), (97, 131))
MEAN = np.asarray((0.485, 0.456, 0.406), np.float32)
STD = np.asarray((0.229, 0.224, 0.225), np.float32)
NO_HEAD = "2 missing (logits/bias, logits/kernel)"


def variables(depth):
    """Returns the numbers of variables and of batch norms in a classifier."""
    norms = 2 * sum(BLOCKS[depth]) + 3 + 2
    return 5 * norms - 1 + 2, norms


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).random((1, *size, 3), np.float32)


def assert_same(ours, theirs, sizes=SIZES):
    """Asserts that our outputs equal those of `theirs`.

    `theirs` maps normalised images to outputs by our names.
    """
    for size in sizes:
        images = some_images(size)
        our_parts = ours.endpoints(images)
        our_parts["logits"] = ours.head(our_parts["feature_vector"])
        expected = theirs((images - MEAN) / STD)
        names = {f"block_{n}" for n in range(1, 5)}
        names |= {"stem", "feature_map", "feature_vector"}
        assert names <= set(expected)
        for name, part in expected.items():
            assert parity.relative(our_parts[name], part) < 1e-4, (name, size)
            if name in ("block_1", "block_4"):
                stage = our_parts[name.replace("block", "stage")]
                np.testing.assert_array_equal(stage, our_parts[name])


# PyTorch

TORCH = {
    "stem": "features.pool0",
    **{f"block_{n}": f"features.denseblock{n}" for n in range(1, 5)},
    "feature_map": "features.norm5",  # torchvision's ReLU after it works in place
}


def torch_outputs(theirs):
    from tests.zoo.resnet import torch_side

    def outputs(normalised):
        their_parts = torch_side.outputs(theirs, normalised, TORCH)
        return {
            **their_parts,
            "feature_vector": their_parts["feature_map"].mean((1, 2)),
        }

    return outputs


def old_names(state):
    """Renames a state dict's tensors as in torchvision's older, published files."""
    inner = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    return {inner.sub(r"\1.\2", name): tensor for name, tensor in state.items()}


@pytest.mark.ci
@pytest.mark.slow_except("121-torchvision-new")
@pytest.mark.parametrize(
    ("source", "names"),
    [("torchvision", "new"), ("torchvision", "old"), ("timm", "new")],
)
@pytest.mark.parametrize("depth", DEPTHS)
def test_weights_of_torchvision_and_timm(depth, source, names, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    make = (
        oracles.timm().create_model
        if source == "timm"
        else lambda name: getattr(oracles.torchvision().models, name)()
    )
    theirs, path = make(f"densenet{depth}"), tmp_path / "a.pth"
    torch_side.randomise(theirs)
    state = theirs.state_dict()
    if names == "old":
        state = {n: t for n, t in state.items() if "num_batches" not in n}
        renamed = old_names(state)
        assert len(renamed.keys() - state.keys()) == 10 * sum(BLOCKS[depth])
        state = renamed
    torch.save(state, path)
    ours = zoo.build(f"densenet_{depth}", weights=str(path))
    matched, norms = variables(depth)
    ignored = f"; {norms} ignored" if names == "new" else ""
    assert ours.weights["matched"] == (
        f"names of timm and torchvision: {matched} matched{ignored}"
    )
    count = sum(int(np.prod(v.shape)) for v in ours.classifier.trainable_weights)
    assert count == torch_side.parameters(theirs)
    assert_same(ours, torch_outputs(theirs))


def torch_name(path):
    """Returns torchvision's name of our layer, independently of the product's table."""
    layer, _, kind = path.partition("/")
    fixed = {"logits": "classifier", "feature_map": "features.norm5"}
    if layer in fixed:
        return fixed[layer]
    if layer == "stem":
        return f"features.{kind}0"
    part, _, rest = layer.partition("_")
    if part == "transition":
        return f"features.transition{rest[0]}.{kind or 'conv'}"
    _, stage, _, block, part = layer.split("_")
    module = {"preact": "norm1", "growth": "conv2"}.get(part) or {
        "conv": "conv1",
        "norm": "norm2",
    }[kind]
    return f"features.denseblock{stage}.denselayer{block}.{module}"


@pytest.mark.slow
@pytest.mark.parametrize("depth", [121, 161])
def test_torchvision_with_our_weights(depth):
    pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    ours = zoo.build(f"densenet_{depth}")
    theirs = getattr(oracles.torchvision().models, f"densenet{depth}")()
    parity.randomise(ours.classifier, seed=2)
    torch_side.copy_variables(ours.classifier, theirs, torch_name)
    assert_same(ours, torch_outputs(theirs))


# Keras


def keras_network(depth, kind=keras, shape=(224, 224, 3), **top):
    top = top or {"classifier_activation": None}
    network = getattr(kind.applications, f"DenseNet{depth}")
    return network(input_shape=shape, weights=None, **top)


def keras_outputs(depth, written):
    """Returns a function from normalised images to keras.applications' endpoints.

    It runs `written` on images of its input size, and a copy of it on other sizes.
    """
    layer_names = {
        "stem": "pool1",
        **{
            f"block_{n}": f"conv{n + 1}_block{b}_concat"
            for n, b in enumerate(BLOCKS[depth], 1)
        },
        "feature_map": "relu",
        "feature_vector": "avg_pool",
        "logits": "predictions",
    }

    def outputs(normalised):
        theirs = written
        if normalised.shape[1:] != written.input_shape[1:]:
            theirs = keras_network(depth, shape=normalised.shape[1:])
            theirs.set_weights(written.get_weights())
        parts = {
            name: theirs.get_layer(layer).output for name, layer in layer_names.items()
        }
        return keras.Model(theirs.input, parts)(normalised)

    return outputs


@pytest.mark.ci
@pytest.mark.slow_except("121")
@pytest.mark.parametrize("depth", [121, 169, 201])
def test_weights_of_keras_applications(depth, tmp_path):
    written, path = keras_network(depth), tmp_path / "a.weights.h5"
    parity.randomise(written)
    written.save_weights(path)
    ours = zoo.build(f"densenet_{depth}", weights=str(path))
    matched = f"names of keras.applications: {variables(depth)[0]} matched"
    assert ours.weights["matched"] == matched
    assert ours.classifier.count_params() == written.count_params()
    norm = written.get_layer("conv2_block1_1_bn")
    assert ours.spec.batch_norm_epsilon == norm.epsilon  # too close to 1e-5 to show
    images = some_images((64, 64)) * 255
    np.testing.assert_allclose(
        keras.applications.densenet.preprocess_input(images.copy()),
        (images / 255 - MEAN) / STD,
        atol=1e-5,
    )
    assert_same(ours, keras_outputs(depth, written))


@pytest.mark.slow
def test_weights_of_keras_applications_without_top(tmp_path):
    path = tmp_path / "a.weights.h5"
    theirs = keras_network(121, shape=(None, None, 3), include_top=False, pooling="avg")
    parity.randomise(theirs)
    theirs.save_weights(path)
    ours = zoo.build("densenet_121", weights=str(path), seed=3)
    assert ours.weights["matched"] == (
        f"names of keras.applications: {variables(121)[0] - 2} matched; {NO_HEAD}"
    )
    images = some_images(SIZES[1])
    features = theirs((images - MEAN) / STD)
    assert parity.relative(ours.feature_vector(images), features) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("head", ["fc1000", "predictions"])
def test_files_of_keras_2(head, tmp_path):
    """Published files have layers `conv1/conv` and `conv1/bn`, and an older head."""
    theirs = keras_network(121, tf_keras)
    keras_side.randomise(theirs)
    assert theirs.get_layer("conv1/conv")
    theirs.get_layer("predictions")._name = head
    path = tmp_path / "a.h5"
    theirs.save_weights(path)
    ours = zoo.build("densenet_121", weights=str(path))
    matched = f"names of keras.applications: {variables(121)[0]} matched"
    assert ours.weights["matched"] == matched
    images = some_images(SIZES[0])
    logits = theirs((images - MEAN) / STD)
    assert parity.relative(ours.classifier(images), logits) < 1e-4


# The spec


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 264", "depth must be one of 121, 161, 169, 201, not 264."),
        ("growth_rate = 0", r"growth_rate must be an integer in \[1, 512\], not 0"),
    ],
)
def test_a_wrong_spec_is_refused(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("densenet_121", gin_bindings=[f"DenseNet.{binding}"])
