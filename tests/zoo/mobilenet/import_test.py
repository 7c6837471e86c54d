"""Tests imports of MobileNet weights from files that other projects' code wrote.

All values in the files are random. The expected outputs come from the other project's
model, for images normalised as it requires.
"""

import functools
import re

import keras
import numpy as np
import PIL.Image
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from tests.zoo.mobilenet import other_side, slim_side
from zoo import taxonomy

INCEPTION = (np.full(3, 0.5), np.full(3, 0.5))
IMAGENET = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
SIZES = ((224, 224), (97, 131))


def photos(height, width):
    return np.random.default_rng(1).random((2, height, width, 3), np.float32)


def imported(arch, path, matched, **arguments):
    """Imports a file, asserts its summary of matched names, and returns our model."""
    model = zoo.build(arch, weights=str(path), **arguments)
    assert model.weights["matched"] == f"names of {matched}"
    return model


def quick(cases, count):
    """Returns pytest parameters for `cases`; all but the first `count` are slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, marks=[] if index < count else slow)
        for index, case in enumerate(cases)
    ]


# Keras: files of Keras 3 and of Keras 2.


def v1(width, size=224):
    return "MobileNet", {"alpha": width, "input_shape": (size, size, 3)}


def v2(width, size=224):
    return "MobileNetV2", {"alpha": width, "input_shape": (size, size, 3)}


def v3(size, **arguments):
    shape = {"input_shape": (224, 224, 3), "include_preprocessing": False}
    return f"MobileNetV3{size}", {**shape, **arguments}


KERAS = {
    "mobilenet_v1_025_128": v1(0.25, 128),
    "mobilenet_v2_035_96": v2(0.35, 96),
    "mobilenet_v3_small": v3("Small"),
    "mobilenet_v3_large_minimalistic": v3("Large", minimalistic=True),
    "mobilenet_v3_small_075": v3("Small", alpha=0.75),
    "mobilenet_v3_small_minimalistic": v3("Small", minimalistic=True),
    "mobilenet_v3_large": v3("Large"),
    "mobilenet_v3_large_075": v3("Large", alpha=0.75),
    "mobilenet_v1": v1(1.0),
    "mobilenet_v2": v2(1.0),
    "mobilenet_v2_140_224": v2(1.4),
}


def keras_model(arch, kind=keras, **arguments):
    name, variant_arguments = KERAS[arch]
    arguments = {
        "weights": None,
        "classifier_activation": None,
        **variant_arguments,
        **arguments,
    }
    return getattr(kind.applications, name)(**arguments)


def keras_difference(ours, theirs):
    """Returns the relative difference between our model and keras.applications'.

    The latter takes images in [-1, 1] of a fixed size.
    """
    images = photos(*theirs.input_shape[1:3])
    return parity.relative(ours(images), theirs(images * 2 - 1).numpy())


@pytest.mark.slow_except("mobilenet_v2_035_96")
@pytest.mark.parametrize("arch", quick(KERAS, 2))
def test_keras(arch, tmp_path):
    theirs = keras_model(arch)
    other_side.randomise(other_side.of_keras(theirs))
    theirs.save_weights(tmp_path / "their.weights.h5")
    ours = imported(
        arch,
        tmp_path / "their.weights.h5",
        f"keras.applications: {len(theirs.weights)} matched",
    )
    assert keras_difference(ours.classifier, theirs) < 1e-4
    # Before a strided convolution, V1 pads as TensorFlow does on even sizes only.
    odd = keras_model(arch, input_shape=(95, 127, 3))
    odd.set_weights(theirs.get_weights())
    assert keras_difference(ours.classifier, odd) < 1e-4


OLD_KERAS = {
    "mobilenet_v1_025_128": "keras.applications",
    "mobilenet_v2_035_96": "keras.applications",
    "mobilenet_v3_small": "keras.applications before Keras 3",
    "mobilenet_v3_large_minimalistic": "keras.applications before Keras 3",
}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "whole"),
    [
        pytest.param("mobilenet_v1_025_128", False, marks=pytest.mark.slow),
        # Files with the names of 2018 exist for this architecture.
        pytest.param("mobilenet_v2_035_96", False, marks=pytest.mark.slow),
        ("mobilenet_v3_small", False),
        pytest.param("mobilenet_v3_large_minimalistic", False, marks=pytest.mark.slow),
        ("mobilenet_v1_025_128", True),
    ],
)
def test_keras_of_before_keras_3(arch, whole, tmp_path):
    theirs = keras_model(arch, tf_keras)
    other_side.randomise(other_side.of_keras(theirs))
    (theirs.save if whole else theirs.save_weights)(tmp_path / "their.h5")
    matched = f"{OLD_KERAS[arch]}: {len(theirs.weights)} matched"
    ours = imported(arch, tmp_path / "their.h5", matched)
    assert keras_difference(ours.classifier, theirs) < 1e-4


# Layer names of the network's first release, in the published files.
OLD_NAMES = (
    (r"^expanded_conv_", "block_0_"),
    (r"^block_(\d+)_(\w+)_BN$", r"bn\1_conv_\1_bn_\2"),
    (r"^block_(\d+)_(\w+)$", r"mobl\1_conv_\1_\2"),
)


@pytest.mark.ci
@pytest.mark.parametrize(
    "renames",
    [
        pytest.param(OLD_NAMES, id="blocks_too"),
        pytest.param((), id="head_alone", marks=pytest.mark.slow),
    ],
)
def test_keras_files_with_the_names_of_2018(renames, tmp_path):
    theirs = keras_model("mobilenet_v2_035_96", tf_keras)
    other_side.randomise(other_side.of_keras(theirs))
    for layer in theirs.layers:
        for pattern, name in (*renames, ("^predictions$", "Logits")):
            layer._name = re.sub(pattern, name, layer._name)
    theirs.save_weights(tmp_path / "their.h5")
    matched = f"keras.applications: {len(theirs.weights)} matched"
    ours = imported("mobilenet_v2_035_96", tmp_path / "their.h5", matched)
    assert keras_difference(ours.classifier, theirs) < 1e-4


@pytest.mark.parametrize(
    "arch", quick(["mobilenet_v1_025_128", "mobilenet_v2_035_96"], 1)
)
def test_keras_without_top(arch, tmp_path):
    theirs = keras_model(arch, include_top=False, pooling="avg")
    other_side.randomise(other_side.of_keras(theirs))
    theirs.save_weights(tmp_path / "their.weights.h5")
    count = len(theirs.weights)
    matched = (
        f"keras.applications: {count} matched; 2 missing (logits/bias, logits/kernel)"
    )
    ours = imported(arch, tmp_path / "their.weights.h5", matched, seed=7)
    assert ours.weights["head"] == {"name": "random", "seed": 7}
    assert keras_difference(ours.feature_vector, theirs) < 1e-4


@pytest.mark.slow
def test_keras_without_the_convolution_that_makes_features_is_refused(tmp_path):
    theirs = keras_model("mobilenet_v3_small", include_top=False)
    theirs.save_weights(tmp_path / "their.weights.h5")
    with pytest.raises(ValueError, match=r"4 missing \(feature_vector/bias, "):
        zoo.build("mobilenet_v3_small", weights=str(tmp_path / "their.weights.h5"))


# PyTorch: timm, torchvision and transformers.


def torch_output(theirs, images, mean, std):
    import torch

    x = ((images - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.no_grad():
        output = theirs.eval()(torch.from_numpy(x))
    for part in ("logits", "pooler_output"):  # outputs of transformers' models
        output = getattr(output, part, output)
    return output.numpy()


def torch_matched(theirs, source):
    names = list(theirs.state_dict())
    ignored = sum(name.endswith("num_batches_tracked") for name in names)
    return f"{source}: {len(names) - ignored} matched; {ignored} ignored"


def torch_differences(ours, theirs, normalization, sizes=SIZES):
    return [
        parity.relative(ours(images), torch_output(theirs, images, *normalization))
        for images in (photos(*size) for size in sizes)
    ]


def assert_imports_torch(arch, theirs, path, source, normalization, **arguments):
    """Writes a state dict, and asserts that our model gives the same outputs."""
    import safetensors.torch
    import torch

    other_side.randomise(other_side.of_torch(theirs))
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict(), path)
    ours = imported(arch, path, torch_matched(theirs, source), **arguments)
    size = ours.spec.image_size
    sizes = ((size, size), (97, 131))
    differences = torch_differences(ours.classifier, theirs, normalization, sizes)
    assert max(differences) < 1e-4, differences


TIMM = {
    "mobilenet_v1_100_128": ("mobilenetv1_100", INCEPTION),
    "mobilenet_v2_035_96": ("mobilenetv2_035", IMAGENET),
    "mobilenet_v3_large": ("mobilenetv3_large_100", IMAGENET),
    "mobilenet_v3_small_minimalistic": (
        "tf_mobilenetv3_small_minimal_100",
        INCEPTION,
    ),
    "mobilenet_v4_conv_small": ("mobilenetv4_conv_small", IMAGENET),
    "mobilenet_v4_hybrid_medium": ("mobilenetv4_hybrid_medium", IMAGENET),
    "mobilenet_v2": ("mobilenetv2_100", IMAGENET),
    "mobilenet_v2_140_224": ("mobilenetv2_140", IMAGENET),
    "mobilenet_v3_small": ("mobilenetv3_small_100", IMAGENET),
    "mobilenet_v3_small_075": ("mobilenetv3_small_075", IMAGENET),
    "mobilenet_v3_large_075": ("tf_mobilenetv3_large_075", INCEPTION),
    "mobilenet_v3_large_minimalistic": (
        "tf_mobilenetv3_large_minimal_100",
        INCEPTION,
    ),
    "mobilenet_v4_conv_medium": ("mobilenetv4_conv_medium", IMAGENET),
    "mobilenet_v4_conv_large": ("mobilenetv4_conv_large", IMAGENET),
    "mobilenet_v4_hybrid_large": ("mobilenetv4_hybrid_large", IMAGENET),
}


@pytest.mark.slow_except("mobilenet_v2_035_96")
@pytest.mark.parametrize("arch", quick(TIMM, 3))
def test_timm(arch, tmp_path):
    name, normalization = TIMM[arch]
    theirs = oracles.timm().create_model(name)
    stated = [np.array(theirs.default_cfg[key]) for key in ("mean", "std")]
    np.testing.assert_allclose(stated, normalization)
    path = tmp_path / "their.safetensors"
    assert_imports_torch(arch, theirs, path, "timm", normalization)


@pytest.mark.ci
def test_timm_with_weights_from_tensorflow_where_it_has_others_of_that_name(tmp_path):
    theirs = oracles.timm().create_model("tf_mobilenetv3_small_100")
    bindings = [
        "model.mean = 127.5",
        "model.std = 127.5",
        "MobileNetV3Small.padding = 'same'",
        "MobileNetV3Small.batch_norm_epsilon = 1e-3",
    ]
    assert_imports_torch(
        "mobilenet_v3_small",
        theirs,
        tmp_path / "their.pth",
        "timm",
        INCEPTION,
        gin_bindings=bindings,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch", quick(["mobilenet_v2_035_96", "mobilenet_v4_conv_small"], 1)
)
def test_timm_without_classes(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    name, normalization = TIMM[arch]
    theirs = oracles.timm().create_model(name, num_classes=0)
    other_side.randomise(other_side.of_torch(theirs))
    torch.save(theirs.state_dict(), tmp_path / "their.pth")
    matched = torch_matched(theirs, "timm") + "; 2 missing (logits/bias, logits/kernel)"
    ours = imported(arch, tmp_path / "their.pth", matched)
    assert ours.weights["head"]["name"] == "random"
    differences = torch_differences(ours.feature_vector, theirs, normalization)
    assert max(differences) < 1e-4, differences


@pytest.mark.slow_except("mobilenet_v3_small")
@pytest.mark.parametrize(
    "arch",
    [
        "mobilenet_v2",
        pytest.param("mobilenet_v3_large", marks=pytest.mark.slow),
        "mobilenet_v3_small",
    ],
)
def test_torchvision(arch, tmp_path):
    theirs = getattr(oracles.torchvision().models, arch)()
    path = tmp_path / "their.pth"
    assert_imports_torch(arch, theirs, path, "torchvision", IMAGENET)


def transformers_model(kind, width, labels=1001):
    transformers = oracles.transformers()
    name = "MobileNetV1" if "v1" in kind else "MobileNetV2"
    config = getattr(transformers, f"{name}Config")(
        depth_multiplier=width, num_labels=labels, tf_padding=True
    )
    suffix = "ForImageClassification" if labels else "Model"
    return getattr(transformers, name + suffix)(config)


@pytest.mark.slow_except("mobilenet_v1_050_160-0.5")
@pytest.mark.parametrize(
    ("arch", "width"), [("mobilenet_v1_050_160", 0.5), ("mobilenet_v2_035_96", 0.35)]
)
def test_transformers(arch, width, tmp_path):
    theirs = transformers_model(arch, width)
    other_side.randomise(other_side.of_torch(theirs))
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = imported(arch, path, torch_matched(theirs, "transformers"))
    assert (ours.taxonomy.num_classes, ours.taxonomy.has_background) == (1001, True)
    differences = torch_differences(ours.classifier, theirs, INCEPTION)
    assert max(differences) < 1e-4, differences


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "width"), [("mobilenet_v1_050_160", 0.5), ("mobilenet_v2_035_96", 0.35)]
)
def test_transformers_without_classes(arch, width, tmp_path):
    theirs = transformers_model(arch, width, labels=0)
    other_side.randomise(other_side.of_torch(theirs))
    theirs.save_pretrained(tmp_path)
    matched = torch_matched(theirs, "transformers")
    matched += "; 2 missing (logits/bias, logits/kernel)"
    ours = imported(arch, tmp_path / "model.safetensors", matched)
    assert ours.weights["head"]["name"] == "random"
    differences = torch_differences(ours.feature_vector, theirs, INCEPTION)
    assert max(differences) < 1e-4, differences


# TF-Slim: checkpoints of TensorFlow 1.

SLIM = {
    "mobilenet_v1_025_128": functools.partial(slim_side.mobilenet_v1, width=0.25),
    "mobilenet_v2_100_96": slim_side.mobilenet_v2,
    "mobilenet_v3_small": slim_side.mobilenet_v3_small,
    "mobilenet_v3_small_minimalistic": functools.partial(
        slim_side.mobilenet_v3_small, minimalistic=True
    ),
}
VARIABLES = {
    "mobilenet_v1_025_128": 137,
    "mobilenet_v2_100_96": 262,
    "mobilenet_v3_small": 210,
    "mobilenet_v3_small_minimalistic": 174,
}


@pytest.mark.ci
@pytest.mark.slow_except("mobilenet_v1_025_128-1001-True")
@pytest.mark.parametrize(
    ("arch", "classes", "training"),
    [
        ("mobilenet_v1_025_128", 1001, True),
        pytest.param("mobilenet_v1_025_128", 1000, False, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2_100_96", 1001, False, marks=pytest.mark.slow),
        ("mobilenet_v3_small", 1001, False),
        pytest.param(
            *("mobilenet_v3_small_minimalistic", 1001, True), marks=pytest.mark.slow
        ),
    ],
)
def test_slim(arch, classes, training, tmp_path):
    path = tmp_path / "model.ckpt-7"
    images = [photos(128, 128), photos(97, 131)]
    theirs = slim_side.checkpoint(
        SLIM[arch], path, images, classes=classes, training=training
    )
    count = VARIABLES[arch]
    # Ignored: values behind the averages, three slots for each, the step and the loss.
    ignored = f"; {4 * count + 2} ignored" if training else ""
    ours = imported(arch, path, f"TF-Slim: {count} matched{ignored}")
    assert ours.taxonomy.has_background == (classes == 1001)
    for batch, logits in zip(images, theirs, strict=True):
        assert parity.relative(ours.classifier(batch), logits) < 1e-4


@pytest.mark.slow
def test_slim_without_classes(tmp_path):
    arch = "mobilenet_v2_100_96"
    images = [photos(96, 96)]
    (theirs,) = slim_side.checkpoint(
        SLIM[arch], tmp_path / "model.ckpt", images, classes=None
    )
    matched = "TF-Slim: 260 matched; 2 missing (logits/bias, logits/kernel)"
    ours = imported(arch, tmp_path / "model.ckpt", matched)
    assert ours.weights["head"]["name"] == "random"
    assert parity.relative(ours.feature_vector(images[0]), theirs) < 1e-4


def test_1001_classes_begin_with_the_background():
    bindings = ["model.background_class = True"]
    model = zoo.build("mobilenet_v1_025_128", gin_bindings=bindings)
    assert model.classifier(photos(128, 128)).shape == (2, 1001)
    assert model.taxonomy.classes[0].id == "background"
    assert model.taxonomy.classes[1].id == "n01440764"


@pytest.mark.slow
def test_1001_classes_are_exported_and_named_rightly(tool, tmp_path):
    grey = np.full((1, 128, 128, 3), 128 / 255, np.float32)  # any crop is the same
    path = tmp_path / "model.ckpt"
    arch = "mobilenet_v1_025_128"
    (theirs,) = slim_side.checkpoint(SLIM[arch], path, [grey], classes=1001)
    best_index = int(np.asarray(theirs)[0].argmax())
    done = tool(
        *("export", f"--arch={arch}", f"--weights={path}"),
        *("--check=quick", f"--output={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / arch / "classification" / "1"
    rows = (folder / "assets" / "class_index.tsv").read_text().splitlines()
    assert rows[1].split("\t")[:2] == ["0", "background"]
    assert len(rows) == 1002
    image = tmp_path / "grey.png"
    PIL.Image.new("RGB", (200, 160), (128, 128, 128)).save(image)
    prediction = tool("predict", folder, image)
    assert prediction.returncode == 0, prediction.stderr
    first = prediction.stdout.splitlines()[1].split(maxsplit=4)
    expected_class = taxonomy.load("ilsvrc_2012").classes[best_index - 1]
    assert (int(first[2]), first[3], first[4]) == (
        best_index,
        expected_class.id,
        expected_class.name,
    )
