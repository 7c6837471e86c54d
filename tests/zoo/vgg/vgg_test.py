"""Tests VGG against torchvision, timm, keras.applications and TF-Slim.

Each of them writes a file of random weights, which the tests import.
"""

import h5py
import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import facts

# At the second size, fc6 has 2 × 3 positions.
SIZES = ((224, 224), (257, 291))
VARIABLES = {11: 22, 13: 26, 16: 32, 19: 38}
slow = pytest.mark.slow


def slowly(*values):
    return pytest.param(*values, marks=slow)


def random_images(size, count=1):
    """Returns random images, [B, H, W, 3] float32 in [0, 1]."""
    random = np.random.default_rng(1).uniform(size=(count, *size, 3))
    return random.astype("float32")


def assert_equal(actual, expected):
    for name, part in expected.items():
        assert parity.relative(actual[name], part) < 1e-4, name


def modules_of(features):
    """Maps our endpoints to torchvision's and timm's modules: ReLU and max pools."""
    kinds = [type(module).__name__ for module in features]
    pools = [i for i, kind in enumerate(kinds) if kind == "MaxPool2d"]
    stages = {f"stage_{n}": str(i) for n, i in enumerate(pools, start=1)}
    return {"stem": str(kinds.index("ReLU")), **stages}


def save_random(theirs, path):
    import torch

    from tests.zoo.resnet import torch_side

    torch_side.randomise(theirs)
    torch.save(theirs.state_dict(), path)


def imported(arch, path):
    """Returns our model with weights from a file of torchvision or timm."""
    depth, batch_norm = int(arch.split("_")[1]), arch.endswith("_bn")
    norms = VARIABLES[depth] // 2 - 3 if batch_norm else 0
    ours = zoo.build(arch, weights=str(path))
    matched = f"names of timm and torchvision: {VARIABLES[depth] + 4 * norms} matched"
    assert ours.weights["matched"] == matched + f"; {norms} ignored" * batch_norm
    return ours


@pytest.mark.ci
@pytest.mark.parametrize(
    "arch",
    [
        "vgg_11",
        *map(slowly, ("vgg_11_bn", "vgg_13", "vgg_13_bn", "vgg_16", "vgg_16_bn")),
        *map(slowly, ("vgg_19", "vgg_19_bn")),
    ],
)
def test_equals_torchvision(arch, tmp_path):
    torchvision = oracles.torchvision()
    from tests.zoo.resnet import torch_side
    from tests.zoo.vgg import convolutional_side

    theirs = getattr(torchvision.models, arch.replace("_", "", 1))(init_weights=False)
    save_random(theirs, tmp_path / "a.pth")
    ours = imported(arch, tmp_path / "a.pth")
    arch_facts = facts.load(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    statistics = [b for name, b in theirs.named_buffers() if "running" in name]
    assert facts.value(arch_facts, "params") - facts.value(
        arch_facts, "trainable_params"
    ) == sum(buffer.numel() for buffer in statistics)
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )
    modules = modules_of(theirs.features)
    for size in SIZES:
        normalised = np.random.default_rng(1).normal(size=(1, *size, 3))
        normalised = normalised.astype("float32")
        our_parts = convolutional_side.our_outputs(ours, normalised)
        expected = convolutional_side.outputs(theirs, normalised, modules)
        assert our_parts.keys() == expected.keys()
        assert_equal(our_parts, expected)
        if size == SIZES[0]:
            assert_equal(our_parts, torch_side.outputs(theirs, normalised, {}))
        else:
            assert our_parts["fc6"].shape == (1, 2, 3, 4096)


@slow
@pytest.mark.parametrize("arch", ["vgg_11", "vgg_16_bn", "vgg_19"])
def test_equals_timm(arch, tmp_path):
    """In timm too, fully connected layers are convolutions, averaged over positions."""
    timm = oracles.timm()
    from tests.zoo.resnet import torch_side
    from tests.zoo.vgg import convolutional_side

    theirs = timm.create_model(arch.replace("_", "", 1))
    save_random(theirs, tmp_path / "a.pth")
    ours = imported(arch, tmp_path / "a.pth")
    modules = {n: f"features.{m}" for n, m in modules_of(theirs.features).items()}
    modules |= {"fc6": "pre_logits.act1", "feature_map": "pre_logits.act2"}
    modules |= {"feature_vector": "head.global_pool"}
    for size in SIZES:
        normalised = np.random.default_rng(1).normal(size=(1, *size, 3))
        normalised = normalised.astype("float32")
        our_parts = convolutional_side.our_outputs(ours, normalised)
        assert_equal(our_parts, torch_side.outputs(theirs, normalised, modules))


def keras_network(depth, **options):
    network = getattr(keras.applications, f"VGG{depth}")
    return network(weights=None, classifier_activation=None, **options)


def random_keras_network(depth):
    theirs = keras_network(depth)
    parity.randomise(theirs)
    # The stem's inputs are as large as 152, so its biases would not matter otherwise.
    stem = theirs.get_layer("block1_conv1")
    stem.kernel.assign(stem.kernel / 64)
    return theirs


def keras_outputs(theirs, images):
    """Returns endpoints for images in [0, 1], by our names.

    A network without top has only stem and stages.
    """
    names = {"stem": "block1_conv1"}
    names |= {f"stage_{n}": f"block{n}_pool" for n in range(1, 6)}
    if theirs.layers[-1].name == "predictions":
        names |= {"fc6": "fc1", "feature_vector": "fc2", "logits": "predictions"}
    parts = {name: theirs.get_layer(layer).output for name, layer in names.items()}
    preprocessed = keras.applications.vgg16.preprocess_input(images * 255)
    return keras.Model(theirs.input, parts)(preprocessed)


def our_outputs(model, images):
    """Returns our endpoints and logits for images in [0, 1].

    If fc6 has one position, it is returned as a vector.
    """
    parts = dict(model.endpoints(images))
    parts["logits"] = model.head(parts["feature_vector"])
    if parts["fc6"].shape[1:3] == (1, 1):
        parts["fc6"] = parts["fc6"][:, 0, 0]
    return parts


@slow
@pytest.mark.parametrize("depth", [16, 19])
def test_equals_keras_applications(depth, tmp_path):
    path = tmp_path / "a.weights.h5"
    theirs = random_keras_network(depth)
    theirs.save_weights(path)
    ours = zoo.build(f"vgg_{depth}", weights=str(path))
    matched = f"names of keras.applications: {VARIABLES[depth]} matched"
    assert ours.weights["matched"] == matched
    assert ours.classifier.count_params() == theirs.count_params()
    images = random_images(SIZES[0])
    assert_equal(our_outputs(ours, images), keras_outputs(theirs, images))
    larger = keras_network(depth, include_top=False, input_shape=(*SIZES[1], 3))
    for layer in larger.layers:
        if layer.weights:
            layer.set_weights(theirs.get_layer(layer.name).get_weights())
    images = random_images(SIZES[1])
    assert_equal(our_outputs(ours, images), keras_outputs(larger, images))


@slow
def test_published_files_have_the_names_of_keras_1(tmp_path):
    """In `vgg16_weights_tf_dim_ordering_tf_kernels.h5`: LAYER/LAYER_W_1:0."""
    theirs = random_keras_network(16)
    layers = [layer for layer in theirs.layers if layer.weights]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{leaf}_1:0" for leaf in ("W", "b")]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value
    ours = zoo.build("vgg_16", weights=str(path))
    assert ours.weights["matched"] == "names of keras.applications: 32 matched"
    images = random_images(SIZES[0])
    assert_equal(our_outputs(ours, images), keras_outputs(theirs, images))


@slow
@pytest.mark.parametrize(
    ("arch", "scope"),
    [("vgg_11", "vgg_a"), ("vgg_16", "vgg_16"), ("vgg_19", "vgg_19")],
)
def test_equals_tf_slim(arch, scope, tmp_path):
    from tests.zoo.vgg import slim_side

    theirs = slim_side.Network(scope)
    path = tmp_path / "model.ckpt"
    theirs.save(path)
    ours = zoo.build(arch, weights=str(path))
    count = VARIABLES[ours.spec.depth]
    matched = f"names of TF-Slim: {count} matched; 2 ignored"
    assert ours.weights["matched"] == matched
    for size in SIZES:
        images = random_images(size)
        our_parts = dict(ours.endpoints(images))
        our_parts["logits"] = ours.head(our_parts["feature_vector"])
        assert_equal(our_parts, theirs(images))


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("depth = 12", "depth must be one of 11, 13, 16, 19, not 12."),
        ("dropout_rate = 1.5", r"VGG.dropout_rate must be a number in \[0.0, 0.999\]"),
    ],
)
def test_what_there_is_not(binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("vgg_11", gin_bindings=[f"VGG.{binding}"])
