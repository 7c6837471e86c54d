"""Tests imports of ResNet weights from files that other projects' code wrote.

The imported models are compared with that code.
"""

import re

import keras
import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from tests.zoo.resnet import keras_side, slim_side

SIZES = ((224, 224), (97, 131))
# Numbers of variables and of batch norms in a classifier.
COUNTS = {
    "resnet_v1_18": (102, 20),
    "resnet_v1_34": (182, 36),
    "resnet_v1_50": (267, 53),
    "resnet_v1_101": (522, 104),
    "resnet_v1_152": (777, 155),
    "resnet_v1_5_50": (267, 53),
    "resnet_v1_5_101": (522, 104),
    "resnet_v1_5_152": (777, 155),
    "resnet_v2_50": (272, 49),
    "resnet_v2_101": (544, 100),
    "resnet_v2_152": (816, 151),
    "resnet_d_50": (277, 55),
    "resnet_d_101": (532, 106),
    "resnet_rs_50": (346, 56),
    "resnet_rs_101": (669, 107),
}
NO_HEAD = "2 missing (logits/bias, logits/kernel)"
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
slow = pytest.mark.slow


def slowly(*values):
    return pytest.param(*values, marks=slow)


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).uniform(size=(1, *size, 3)).astype("float32")


def assert_imported(arch, path, matched, theirs, sizes=SIZES):
    """Imports a file, and asserts that its logits equal those of `theirs`.

    `theirs` maps a batch of images in [0, 1] to logits.
    """
    ours = zoo.build(arch, weights=str(path))
    assert ours.weights["matched"] == matched
    assert "head" not in ours.weights
    for size in sizes:
        images = some_images(size)
        assert parity.relative(ours.classifier(images), theirs(images)) < 1e-4, size
    return ours


def assert_backbone_imported(arch, path, matched, theirs, sizes=SIZES):
    """Imports a file without a head, and asserts that its features equal `theirs`'.

    `theirs` maps a batch of images in [0, 1] to features.
    """
    ours = zoo.build(arch, weights=str(path), seed=3)
    assert ours.weights["matched"] == matched
    assert ours.weights["head"] == {"name": "random", "seed": 3}
    for size in sizes:
        images = some_images(size)
        features = theirs(images)
        assert parity.relative(ours.feature_vector(images), features) < 1e-4, size


# keras.applications


def keras_network(name, shape, **top):
    """Returns a model of keras.applications without softmax."""
    top = top or {"classifier_activation": None}
    network = getattr(keras.applications, name)
    return network(input_shape=shape, weights=None, **top)


def preprocess(name, images):
    """Preprocesses images in [0, 1] as keras.applications does at 0 to 255."""
    module = "resnet_v2" if name.endswith("V2") else "resnet"
    return getattr(keras.applications, module).preprocess_input(images * 255)


def damp_stem(theirs):
    """Shrinks V1's stem, whose inputs are as large as 152, so that biases matter."""
    stem = theirs.get_layer("conv1_conv")
    stem.kernel.assign(stem.kernel / 64)


def matched_of_keras(arch, variables, *missing):
    folds = arch.startswith("resnet_v1")
    parts = [f"{variables} matched", *([f"{COUNTS[arch][1]} folded"] if folds else [])]
    return f"names of keras.applications: {'; '.join([*parts, *missing])}"


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arch"),
    [
        slowly("ResNet50", "resnet_v1_50"),
        slowly("ResNet101", "resnet_v1_101"),
        slowly("ResNet152", "resnet_v1_152"),
        ("ResNet50V2", "resnet_v2_50"),
        slowly("ResNet101V2", "resnet_v2_101"),
        slowly("ResNet152V2", "resnet_v2_152"),
    ],
)
def test_keras_applications(name, arch, tmp_path):
    path = tmp_path / "a.weights.h5"
    written = keras_network(name, (224, 224, 3))
    parity.randomise(written)
    if arch.startswith("resnet_v1"):
        damp_stem(written)
    written.save_weights(path)

    def theirs(images):
        network = written
        if images.shape[1:] != written.input_shape[1:]:
            network = keras_network(name, images.shape[1:])
            network.load_weights(path)
        return network(preprocess(name, images))

    matched = matched_of_keras(arch, COUNTS[arch][0])
    ours = assert_imported(arch, path, matched, theirs)
    norm = written.get_layer("conv2_block1_1_bn")
    assert ours.spec.batch_norm_epsilon == norm.epsilon  # too close to 1e-5 to show


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch"),
    [slowly("ResNet50", "resnet_v1_50"), ("ResNet50V2", "resnet_v2_50")],
)
def test_keras_applications_without_top(name, arch, tmp_path):
    path = tmp_path / "a.weights.h5"
    theirs = keras_network(name, (None, None, 3), include_top=False, pooling="avg")
    parity.randomise(theirs)
    if arch.startswith("resnet_v1"):
        damp_stem(theirs)
    theirs.save_weights(path)
    assert_backbone_imported(
        arch,
        path,
        matched_of_keras(arch, COUNTS[arch][0] - 2, NO_HEAD),
        lambda images: theirs(preprocess(name, images)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch", "head"),
    [
        ("ResNet50", "resnet_v1_50", "probs"),
        slowly("ResNet50", "resnet_v1_50", "predictions"),
        slowly("ResNet50V2", "resnet_v2_50", "probs"),
    ],
)
def test_files_of_keras_2(name, arch, head, tmp_path):
    """Published files are older than the head's current name."""
    network = getattr(tf_keras.applications, name)
    theirs = network(weights=None, classifier_activation=None)
    keras_side.randomise(theirs)
    if arch.startswith("resnet_v1"):
        damp_stem(theirs)
    theirs.get_layer("predictions")._name = head
    path = tmp_path / "a.h5"
    theirs.save_weights(path)
    assert_imported(
        arch,
        path,
        matched_of_keras(arch, COUNTS[arch][0]),
        lambda images: theirs(preprocess(name, images)),
        sizes=SIZES[:1],
    )


# ResNet-RS of tf_keras.applications


def rs_network(depth, shape, **top):
    """Returns tf_keras' model without softmax, for images from 0 to 255."""
    tf_keras.backend.reset_uids()  # the stem's name contains a number that counts stems
    top = top or {"classifier_activation": None}
    network = getattr(tf_keras.applications, f"ResNetRS{depth}")
    return network(input_shape=shape, weights=None, **top)


def randomise_rs(theirs):
    """Randomises a model with small residual branches; see resnet_rs_test.py."""
    keras_side.randomise(theirs)
    for variable in theirs.weights:
        if (
            variable.name.endswith("batch_norm_3/gamma:0")
            and "stem" not in variable.name
        ):
            variable.assign(variable * 0.2)


def as_published(name):
    """Returns the name of a tf_keras layer in the published, converted files.

    Source: sebastian-sz/resnet-rs-keras, `resnet_rs/resnet_rs_model.py` and
    `scripts/convert_weights.py`; its files have the hashes that tf_keras knows.
    """
    name = re.sub(r"^BlockGroup(\d+)__block_(\d+)__?", r"c\1_block_\2_", name)
    return name.removeprefix("stem_1_").replace("_se_se_", "_se_")


@pytest.mark.parametrize(
    ("depth", "source"),
    [
        slowly(50, "resnet-rs-keras"),
        slowly(50, "tf_keras.applications"),
        slowly(101, "resnet-rs-keras"),
    ],
)
def test_rs_of_tf_keras(depth, source, tmp_path):
    """tf_keras' own loader uses the order of the layers, not their names."""
    size = {50: 160, 101: 192}[depth]
    written = rs_network(depth, (size, size, 3))
    randomise_rs(written)
    if source == "resnet-rs-keras":
        for layer in written.layers:
            layer._name = as_published(layer.name)
    path = tmp_path / "a.h5"
    written.save_weights(path)

    def theirs(images):
        network = rs_network(depth, images.shape[1:])
        network.load_weights(path)
        return network(images * 255)

    arch = f"resnet_rs_{depth}"
    matched = f"names of {source}: {COUNTS[arch][0]} matched"
    assert_imported(arch, path, matched, theirs, sizes=((size, size), SIZES[1]))


@slow
def test_rs_of_tf_keras_without_top(tmp_path):
    theirs = rs_network(50, (None, None, 3), include_top=False, pooling="avg")
    randomise_rs(theirs)
    path = tmp_path / "a.h5"
    theirs.save_weights(path)
    assert_backbone_imported(
        "resnet_rs_50",
        path,
        f"names of tf_keras.applications: 344 matched; {NO_HEAD}",
        lambda images: theirs(images * 255),
    )


# PyTorch


def torch_output(theirs, images):
    """Returns the logits of a PyTorch model, which takes normalised images."""
    from tests.zoo.resnet import torch_side

    mean = np.asarray((0.485, 0.456, 0.406), "float32")
    std = np.asarray((0.229, 0.224, 0.225), "float32")
    return torch_side.outputs(theirs, (images - mean) / std, {})["logits"]


def save_random_torch(theirs, path):
    import safetensors.torch
    import torch

    from tests.zoo.resnet import torch_side

    torch_side.randomise(theirs)
    state = theirs.state_dict()
    if "layer1.0.se.fc1.weight" in state:  # see randomise_rs
        for name in state:
            if name.endswith("bn3.weight"):
                state[name] *= 0.2
    save = safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save
    save(state, path)


def assert_torch_imported(arch, theirs, path, source, sizes=SIZES):
    save_random_torch(theirs, path)
    variables, norms = COUNTS[arch]
    assert_imported(
        arch,
        path,
        f"names of {source}: {variables} matched; {norms} ignored",
        lambda images: torch_output(theirs, images),
        sizes,
    )


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arch", "suffix"),
    [
        slowly("resnet18", "resnet_v1_18", ".safetensors"),
        slowly("resnet34", "resnet_v1_34", ".pth"),
        ("resnet50", "resnet_v1_5_50", ".safetensors"),
        slowly("resnet101", "resnet_v1_5_101", ".pth"),
        slowly("resnet152", "resnet_v1_5_152", ".pth"),
    ],
)
def test_timm_v1(name, arch, suffix, tmp_path):
    theirs = oracles.timm().create_model(name)
    path = tmp_path / f"a{suffix}"
    assert_torch_imported(arch, theirs, path, "timm and torchvision")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("resnet50d", "resnet_d_50"),
        slowly("resnet101d", "resnet_d_101"),
        slowly("resnetrs50", "resnet_rs_50"),
        slowly("resnetrs101", "resnet_rs_101"),
    ],
)
def test_timm_d_and_rs(name, arch, tmp_path):
    theirs = oracles.timm().create_model(name)
    assert_torch_imported(arch, theirs, tmp_path / "a.pth", "timm")


def test_timm_without_top(tmp_path):
    theirs = oracles.timm().create_model("resnet18", num_classes=0)
    save_random_torch(theirs, tmp_path / "a.pth")
    assert_backbone_imported(
        "resnet_v1_18",
        tmp_path / "a.pth",
        f"names of timm and torchvision: 100 matched; 20 ignored; {NO_HEAD}",
        lambda images: torch_output(theirs, images),
    )


def test_torchvision(tmp_path):
    theirs = oracles.torchvision().models.resnet18()
    path = tmp_path / "a.pth"
    assert_torch_imported("resnet_v1_18", theirs, path, "timm and torchvision")


@pytest.mark.parametrize(
    ("arch", "depth", "stride_in"),
    [
        ("resnet_v1_18", 18, None),
        slowly("resnet_v1_34", 34, None),
        slowly("resnet_v1_50", 50, "1x1"),
        slowly("resnet_v1_5_50", 50, "3x3"),
    ],
)
def test_transformers(arch, depth, stride_in, tmp_path):
    transformers = oracles.transformers()
    expansion = 1 if stride_in is None else 4
    config = transformers.ResNetConfig(
        layer_type="basic" if stride_in is None else "bottleneck",
        depths=BLOCKS[depth],
        hidden_sizes=[expansion * width for width in (64, 128, 256, 512)],
        downsample_in_bottleneck=stride_in == "1x1",
        num_labels=1000,
    )
    theirs = transformers.ResNetForImageClassification(config)
    assert_torch_imported(arch, theirs, tmp_path / "a.safetensors", "transformers")


def test_transformers_backbone_alone(tmp_path):
    transformers = oracles.transformers()
    import safetensors.torch

    config = transformers.ResNetConfig(
        layer_type="basic", depths=BLOCKS[18], hidden_sizes=[64, 128, 256, 512]
    )
    theirs, path = transformers.ResNetModel(config), tmp_path / "a.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    ours = zoo.build("resnet_v1_18", weights=str(path))
    assert ours.weights["matched"].endswith(f"100 matched; 20 ignored; {NO_HEAD}")
    kernel = theirs.state_dict()["encoder.stages.3.layers.1.layer.1.convolution.weight"]
    (our_kernel,) = (
        variable
        for variable in ours.backbone.weights
        if variable.path == "stage_4_block_2_conv_2/conv/kernel"
    )
    np.testing.assert_array_equal(our_kernel, kernel.numpy().transpose(2, 3, 1, 0))


# TF-Slim


@pytest.mark.parametrize(
    ("generation", "depth", "classes"),
    [
        slowly(1, 50, 1000),
        slowly(1, 101, 1000),
        slowly(2, 50, 1001),
        slowly(2, 152, 1001),
    ],
)
def test_tf_slim(generation, depth, classes, tmp_path):
    theirs = slim_side.Network(generation=generation, depth=depth, classes=classes)
    path = tmp_path / "model.ckpt"
    theirs.save(path)
    arch = f"resnet_v{generation}_{depth}"
    variables, norms = COUNTS[arch]
    ignored = variables - 2 * norms + 2  # momenta, the step and a mean
    matched = f"names of TF-Slim: {variables} matched; {ignored} ignored"
    ours = assert_imported(arch, path, matched, theirs)
    assert ours.taxonomy.num_classes == classes
    assert (ours.taxonomy.classes[0].name == "background") == (classes == 1001)
