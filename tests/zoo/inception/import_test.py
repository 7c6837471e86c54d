"""Tests imports of Inception weights from files that other projects' code wrote.

The imported models are compared with that code.
"""

import keras
import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from tests.zoo.inception import slim_side
from tests.zoo.resnet import keras_side
from zoo import facts

# Numbers of variables, if batch norms have no scales, and of batch norms.
COUNTS = {
    "inception_v1": (230, 57),
    "inception_v3": (378, 94),
    "inception_v4": (598, 149),
    "inception_resnet_v2": (898, 204),
    "xception": (236, 40),
}
ODD = (97, 131)
LETTERS = "abcdefgh"
V1 = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")  # in torchvision and paper
V3 = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
V4 = ("5b", "5c", "5d", "5e", *(f"6{x}" for x in LETTERS), "7a", "7b", "7c", "7d")


def sizes(arch):
    size = facts.value(facts.load(arch), "image_size")
    return ((size, size), ODD)


def assert_imported(arch, path, matched, theirs, *, classes=1000):
    """Imports a file, and asserts that both models give the same outputs.

    `theirs` maps a batch of images in [0, 1] to endpoints and logits, by our names.
    """
    ours = zoo.build(arch, weights=str(path))
    assert ours.weights["matched"] == matched
    assert "head" not in ours.weights
    assert ours.taxonomy.num_classes == classes
    for size in sizes(arch):
        images = np.random.default_rng(1).random((2, *size, 3), np.float32)
        our_parts = dict(ours.endpoints(images))
        our_parts["logits"] = ours.head(our_parts["feature_vector"])
        expected = theirs(images)
        assert {"stem", "feature_vector", "logits"} <= expected.keys()
        for name, tensor in expected.items():
            difference = parity.relative(our_parts[name], tensor)
            print(f"{arch} {size} {name}: {difference:.1e}")
            assert difference < 1e-4, (size, name)
    return ours


# TF-Slim


@pytest.mark.ci
@pytest.mark.slow_except("inception_v1")
@pytest.mark.parametrize("arch", slim_side.NETWORKS)
def test_tf_slim(arch, tmp_path):
    classes = 1000 if arch == "inception_v1" else 1001
    theirs = slim_side.Network(arch, classes=classes)
    path = tmp_path / "model.ckpt"
    theirs.save(path)
    variables, _ = COUNTS[arch]
    others = 0 if arch == "inception_v1" else 3  # of the auxiliary classifier
    ignored = 2 * (variables + others) + others + 1
    matched = f"names of TF-Slim: {variables} matched; {ignored} ignored"
    ours = assert_imported(arch, path, matched, theirs, classes=classes)
    assert (ours.taxonomy.classes[0].name == "background") == (classes == 1001)


# keras.applications

# Layers of keras.applications that have our endpoint as output, or as input.
KERAS = {
    "inception_v3": (
        "InceptionV3",
        {"feature_vector": "avg_pool", "stage_2": "mixed7"}
        | {f"Mixed_{name}": f"mixed{index}" for index, name in enumerate(V3)},
        {},
    ),
    "inception_resnet_v2": (
        "InceptionResNetV2",
        {
            "Mixed_5b": "mixed_5b",
            "stage_1": "block35_10_ac",
            "Mixed_6a": "mixed_6a",
            "stage_2": "block17_20_ac",
            "Mixed_7a": "mixed_7a",
            "feature_map": "conv_7b_ac",
            "feature_vector": "avg_pool",
        },
        {"stage_3": "conv_7b"},
    ),
    "xception": (
        "Xception",
        {
            "stem": "block1_conv2_act",
            "stage_4": "block14_sepconv2_act",
            "feature_vector": "avg_pool",
        },
        {
            "stage_1": "block3_sepconv1_act",
            "stage_2": "block4_sepconv1_act",
            "stage_3": "block13_sepconv1_act",
        },
    ),
}


def keras_network(arch, shape, module=keras.applications):
    name = KERAS[arch][0]
    return getattr(module, name)(
        input_shape=shape, weights=None, classifier_activation=None
    )


def keras_outputs(arch, theirs, images):
    _, outputs, inputs = KERAS[arch]
    parts = {ours: theirs.get_layer(name).output for ours, name in outputs.items()}
    parts |= {ours: theirs.get_layer(name).input for ours, name in inputs.items()}
    if "stem" not in parts:  # the second of two pools, which have no names
        pools = [x for x in theirs.layers if isinstance(x, keras.layers.MaxPooling2D)]
        parts["stem"] = pools[1].output
    parts["logits"] = theirs.output
    return keras.Model(theirs.input, parts)(images * 2 - 1)


@pytest.mark.ci
@pytest.mark.slow_except("xception", "inception_v3")
@pytest.mark.parametrize("arch", KERAS)
def test_keras_applications(arch, tmp_path):
    """The numbers in layer names continue from networks built earlier."""
    path = tmp_path / "a.weights.h5"
    written = keras_network(arch, (*sizes(arch)[0], 3))
    assert written.count_params() == facts.value(facts.load(arch), "params")
    parity.randomise(written)
    written.save_weights(path)

    def theirs(images):
        network = keras_network(arch, images.shape[1:])
        network.load_weights(path)
        return keras_outputs(arch, network, images)

    matched = f"names of keras.applications: {COUNTS[arch][0]} matched"
    assert_imported(arch, path, matched, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("arch", KERAS)
def test_files_of_keras_2(arch, tmp_path):
    """Published files are in Keras 2's layout, and their layer numbers begin with 1."""
    tf_keras.backend.clear_session()
    tf_keras.layers.Conv2D(1, 1)
    tf_keras.layers.BatchNormalization()
    theirs = keras_network(arch, (*sizes(arch)[0], 3), tf_keras.applications)
    assert not any(layer.name == "conv2d" for layer in theirs.layers)
    keras_side.randomise(theirs)
    path = tmp_path / "a.h5"
    theirs.save_weights(path)
    ours = zoo.build(arch, weights=str(path))
    variables = COUNTS[arch][0]
    matched = ours.weights["matched"]
    assert matched == f"names of keras.applications: {variables} matched"
    images = np.random.default_rng(1).random((1, *sizes(arch)[0], 3), np.float32)
    logits = theirs(images * 2 - 1)
    assert parity.relative(ours.classifier(images), logits) < 1e-4


@pytest.mark.slow
def test_a_file_with_scales_is_not_taken_for_one_without(tmp_path):
    """Keras 3 numbers a layer's weights: the first may be the scale or the offset."""
    path = tmp_path / "a.weights.h5"
    network = keras_network("inception_v3", (75, 75, 3))
    config = network.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["scale"] = True
    keras.Model.from_config(config).save_weights(path)
    with pytest.raises(ValueError, match=r"94 unused \(batch_normalization\w*/3, "):
        zoo.build("inception_v3", weights=str(path))


# PyTorch: constructors, and modules by our endpoints.

TORCH = {
    "torchvision-inception_v1": (
        "googlenet",
        {"stem": "maxpool2", "feature_vector": "avgpool"}
        | {
            f"Mixed_{name[0]}{chr(ord(name[1]) + 1)}": f"inception{name}" for name in V1
        },
    ),
    "torchvision-inception_v3": (
        "inception_v3",
        {"stem": "maxpool2", "feature_vector": "avgpool"}
        | {f"Mixed_{name}": f"Mixed_{name}" for name in V3},
    ),
    "timm-inception_v3": (
        "inception_v3",
        {"stem": "Pool2", "feature_vector": "global_pool"}
        | {f"Mixed_{name}": f"Mixed_{name}" for name in V3},
    ),
    "timm-inception_v4": (
        "inception_v4",
        {"stem": "features.5", "feature_vector": "global_pool"}
        | {f"Mixed_{name}": f"features.{n}" for n, name in enumerate(V4, start=6)},
    ),
    "timm-inception_resnet_v2": (
        "inception_resnet_v2",
        {
            "stem": "maxpool_5a",
            "Mixed_5b": "mixed_5b",
            "stage_1": "repeat",
            "Mixed_6a": "mixed_6a",
            "stage_2": "repeat_1",
            "Mixed_7a": "mixed_7a",
            "stage_3": "block8",
            "feature_map": "conv2d_7b",
            "feature_vector": "global_pool",
        },
    ),
    "timm-xception": (
        "legacy_xception",
        {
            "stem": "act2",
            "stage_1": "block1",
            "stage_2": "block2",
            "stage_3": "block11",
            "stage_4": "act4",
            "feature_vector": "global_pool",
        },
    ),
}


def torch_network(case):
    project, name = case.split("-")[0], TORCH[case][0]
    if project == "timm":
        return oracles.timm().create_model(name)
    models = oracles.torchvision().models
    return getattr(models, name)(init_weights=False, aux_logits=True)


@pytest.mark.ci
@pytest.mark.slow_except("torchvision-inception_v1")
@pytest.mark.parametrize("case", TORCH)
def test_torch(case, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    project, arch = case.split("-")
    theirs = torch_network(case)
    torch_side.randomise(theirs)
    path = tmp_path / "a.pth"
    torch.save(theirs.state_dict(), path)
    main_tensors = [name for name in theirs.state_dict() if name.lower()[:3] != "aux"]
    auxiliary = len(theirs.state_dict()) - len(main_tensors)
    assert bool(auxiliary) == (project == "torchvision")
    for part in ("AuxLogits", "aux1", "aux2"):
        if hasattr(theirs, part):
            setattr(theirs, part, None)
    arch_facts = facts.load(arch)
    variables, norms = COUNTS[arch]
    scales = sum(
        module.weight.numel()
        for module in theirs.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    )
    if arch != "xception":  # in TF-Slim and Keras, the others have no scales
        variables += norms
        trainable = facts.value(arch_facts, "trainable_params") + scales
    else:
        trainable = facts.value(arch_facts, "trainable_params")
    assert torch_side.parameters(theirs) == trainable
    size = facts.value(arch_facts, "image_size")
    cost = torch_side.multiply_adds(theirs, size)
    assert cost == facts.value(arch_facts, "multiply_adds")

    def run(images):
        return torch_side.outputs(theirs, images * 2 - 1, TORCH[case][1])

    source = "timm and torchvision" if arch == "inception_v3" else project
    matched = f"names of {source}: {variables} matched; {norms + auxiliary} ignored"
    assert_imported(arch, path, matched, run)


@pytest.mark.slow
def test_torchvision_transforms_its_input():
    """torchvision's `transform_input` maps ImageNet's normalisation to ours."""
    pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    models = oracles.torchvision().models
    theirs = models.googlenet(init_weights=False, transform_input=True).eval()
    plain = models.googlenet(init_weights=False).eval()
    plain.load_state_dict(theirs.state_dict())
    images = np.random.default_rng(1).random((1, 64, 64, 3), np.float32)
    mean = np.asarray((0.485, 0.456, 0.406), "float32")
    std = np.asarray((0.229, 0.224, 0.225), "float32")
    expected = torch_side.outputs(plain, images * 2 - 1, {})["logits"]
    actual = torch_side.outputs(theirs, (images - mean) / std, {})["logits"]
    assert parity.relative(actual, expected) < 1e-5
