"""Weights of other projects, in files that their own code wrote, as models of ours."""

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.zoo import oracles, parity
from tests.zoo.efficientnet import drawing, tpu_side
from zoo import facts
from zoo.weights import registry

ODD, SMALL = (97, 131), (64, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_HEAD = "2 missing (logits/bias, logits/kernel)"


def quick(names, *quick):
    """Of all names those that have, at a small size, what the others have."""
    return [name for name in names if name in quick]


def images_of(size):
    return np.random.default_rng(1).uniform(size=(2, *size, 3)).astype("float32")


def default_size(arch):
    return (facts.value(facts.load(arch), "image_size"),) * 2


def imported(arch, path, matched, *rest, **kwargs):
    """Our model; the numbers of tensors must be those, all others accounted for."""
    model = zoo.build(arch, weights=str(path), **kwargs)
    expected = "; ".join([f"{matched} matched", *rest])
    assert model.weights["matched"].endswith(f": {expected}")
    return model


def agree(ours, theirs):
    """Whether both say the same of two images, and not the same of each."""
    theirs = np.asarray(theirs)
    assert parity.relative(theirs[:1], theirs[1:]) > 1e-3
    return parity.relative(ours, theirs) < 1e-5


# Keras


def keras_model(name, *, size=ODD, top=True, applications=keras.applications):
    kwargs = {"classifier_activation": None} if top else {"pooling": "avg"}
    return getattr(applications, name)(
        input_shape=(*size, 3), weights=None, include_top=top, **kwargs
    )


def normalization(theirs):
    """Their layer that has the images' mean and variance."""
    (layer,) = (x for x in theirs.layers if x.name.startswith("normalization"))
    return layer


@pytest.mark.parametrize("adapted", [False, True], ids=["new", "adapted"])
def test_keras_b_normalises_images_as_the_file_says(tmp_path, adapted):
    theirs = keras_model("EfficientNetB0")
    images = images_of(ODD)
    if adapted:
        normalization(theirs).adapt(images**2)
    drawing.keras(theirs, 255 * drawing.images(ODD))
    path = tmp_path / "b0.weights.h5"
    theirs.save_weights(path)
    ours = imported("efficientnet_b0", path, 311, "3 ignored")
    assert agree(ours.classifier(images), theirs(255 * images))


@pytest.mark.parametrize("number", quick(range(8), 0))
def test_keras_b_of_imagenet_divides_twice(tmp_path, monkeypatch, number):
    # A file as the published ones: Keras 2 wrote them. Keras' own code reads it as one
    # of those, and only then divides once more by the root of a variance.
    tf_keras = pytest.importorskip("tf_keras")
    name, arch = f"EfficientNetB{number}", f"efficientnet_b{number}"
    written = keras_model(name, applications=tf_keras.applications)
    normalization(written).set_weights([np.asarray(x) for x in (MEAN, STD, 0)])
    once_divided = MEAN + (drawing.images(ODD) - MEAN) / np.sqrt(STD)
    drawing.keras(written, 255 * once_divided)
    path = tmp_path / "published.h5"
    written.save_weights(path)
    monkeypatch.setattr(
        "keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: path
    )
    theirs = getattr(keras.applications, name)(classifier_activation=None)
    ours = imported(arch, path, len(theirs.weights) - 3, "3 ignored")
    images = images_of(default_size(arch))
    assert agree(ours.classifier(images), theirs(255 * images))
    assert ours.normalization.std == pytest.approx((58.395, 57.12, 57.375))


def test_keras_b_whose_images_have_no_variance_is_refused(tmp_path):
    theirs = keras_model("EfficientNetB0")
    normalization(theirs).adapt(np.zeros((1, *ODD, 3)))
    theirs.save_weights(tmp_path / "b0.weights.h5")
    with pytest.raises(ValueError, match="that no image has"):
        zoo.build("efficientnet_b0", weights=str(tmp_path / "b0.weights.h5"))


@pytest.mark.parametrize("version", quick((3, 2), 3))
@pytest.mark.parametrize("name", quick(("B0", "B1", "B2", "B3", "S", "M", "L"), "B0"))
def test_keras_v2(tmp_path, name, version):
    library = pytest.importorskip("tf_keras") if version == 2 else keras
    theirs = keras_model(f"EfficientNetV2{name}", applications=library.applications)
    drawing.keras(theirs, 255 * drawing.images(ODD))
    path = tmp_path / ("v2.h5" if version == 2 else "v2.weights.h5")
    theirs.save_weights(path)
    arch = f"efficientnet_v2_{name.lower()}"
    ours = imported(arch, path, len(theirs.weights))
    images = images_of(ODD)
    assert agree(ours.classifier(images), theirs(255 * images))


@pytest.mark.parametrize(
    ("name", "arch", "counts"),
    [
        ("EfficientNetB0", "efficientnet_b0", (309, "3 ignored")),
        ("EfficientNetV2B0", "efficientnet_v2_b0", (359,)),
    ],
)
def test_keras_without_top(tmp_path, name, arch, counts):
    theirs = keras_model(name, size=SMALL, top=False)
    drawing.keras(theirs, 255 * drawing.images(SMALL))
    path = tmp_path / "notop.weights.h5"
    theirs.save_weights(path)
    ours = imported(arch, path, *counts, NO_HEAD)
    assert ours.weights["head"] == {"name": "random", "seed": None}
    images = images_of(SMALL)
    assert agree(ours.feature_vector(images), theirs(255 * images))


# PyTorch


def saved(module, path):
    """Draws the values of a module of theirs, and writes its state dict."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    drawing.torch(module)
    torch.save(module.state_dict(), path)
    return path


def outputs(module, images, mean=MEAN, std=STD):
    """What a module of theirs says of images in [0, 1]."""
    import torch

    x = (images - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))


def compare(arch, module, path, *, sizes, mean=MEAN, std=STD, **kwargs):
    """Holds what we make of their file against the module that wrote it."""
    tensors = module.state_dict()
    counters = sum(name.endswith(".num_batches_tracked") for name in tensors)
    ours = imported(
        arch, path, len(tensors) - counters, f"{counters} ignored", **kwargs
    )
    for images in map(images_of, sizes):
        logits = outputs(module, images, mean, std)
        assert agree(ours.classifier(images), getattr(logits, "logits", logits))


TIMM = {
    **{f"efficientnet_b{n}": f"tf_efficientnet_b{n}" for n in range(8)},
    **{f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in range(5)},
    **{f"efficientnet_v2_b{n}": f"tf_efficientnetv2_b{n}.in1k" for n in range(4)},
    **{f"efficientnet_v2_{n}": f"tf_efficientnetv2_{n}" for n in ("s", "m", "l", "xl")},
}


@pytest.mark.parametrize(
    "arch", quick(TIMM, "efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_b0")
)
@pytest.mark.slow
def test_timm(tmp_path, arch):
    theirs = oracles.timm().create_model(TIMM[arch])
    path = saved(theirs, tmp_path / "model.pth")
    mean, std = (theirs.pretrained_cfg[key] for key in ("mean", "std"))
    compare(arch, theirs, path, sizes=[default_size(arch), ODD], mean=mean, std=std)


@pytest.mark.parametrize(
    ("arch", "name", "spec"),
    [
        ("efficientnet_b0", "efficientnet_b0", "EfficientNet"),
        ("efficientnet_lite0", "efficientnet_lite0", "EfficientNetLite"),
        ("efficientnet_v2_s", "efficientnetv2_s", "EfficientNetV2"),
    ],
)
@pytest.mark.slow
def test_timm_that_pytorch_trained_needs_the_bindings(tmp_path, arch, name, spec):
    theirs = oracles.timm().create_model(name)
    path = saved(theirs, tmp_path / "model.pth")
    bindings = [
        f"{spec}.padding = 'symmetric'",
        f"{spec}.batch_norm_epsilon = 1e-5",
        f"model.mean = {tuple(255 * m for m in MEAN)}",
        f"model.std = {tuple(255 * s for s in STD)}",
    ]
    compare(arch, theirs, path, sizes=[SMALL, ODD], gin_bindings=bindings)


def test_timm_without_a_head(tmp_path):
    theirs = oracles.timm().create_model("tf_efficientnet_b0", num_classes=0)
    drawing.torch(theirs)
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    ours = imported("efficientnet_b0", path, 309, "49 ignored", NO_HEAD)
    images = images_of(SMALL)
    assert agree(ours.feature_vector(images), outputs(theirs, images))


TORCHVISION = [f"efficientnet_b{n}" for n in range(8)]
TORCHVISION += [f"efficientnet_v2_{n}" for n in ("s", "m", "l")]


@pytest.mark.parametrize(
    "arch", quick(TORCHVISION, "efficientnet_b0", "efficientnet_v2_s")
)
@pytest.mark.slow
def test_torchvision(tmp_path, arch):
    models = oracles.torchvision().models
    theirs = models.get_model(arch)
    path = saved(theirs, tmp_path / "model.pth")
    evaluation = models.get_model_weights(arch).IMAGENET1K_V1.transforms()
    sizes = [default_size(arch) if arch == "efficientnet_b0" else SMALL, ODD]
    mean, std = evaluation.mean, evaluation.std
    compare(arch, theirs, path, sizes=sizes, mean=mean, std=std)


# As their conversion of keras.applications' weights has it: width, depth, channels of
# the features, and the blocks that pad on both sides at the default size.
TRANSFORMERS = {
    "efficientnet_b0": (1.0, 1.0, 1280, []),
    "efficientnet_b1": (1.0, 1.1, 1280, [16]),
    "efficientnet_b2": (1.1, 1.2, 1408, [5, 8, 16]),
    "efficientnet_b3": (1.2, 1.4, 1536, [5, 18]),
    "efficientnet_b4": (1.4, 1.8, 1792, [6]),
    "efficientnet_b5": (1.6, 2.2, 2048, [13, 27]),
    "efficientnet_b6": (1.8, 2.6, 2304, [31]),
    "efficientnet_b7": (2.0, 3.1, 2560, [18]),
}


def transformers_config(arch):
    width, depth, channels, padded = TRANSFORMERS[arch]
    return oracles.transformers().EfficientNetConfig(
        width_coefficient=width,
        depth_coefficient=depth,
        hidden_dim=channels,
        depthwise_padding=padded,
        num_labels=1000,
    )


@pytest.mark.parametrize("arch", quick(TRANSFORMERS, "efficientnet_b0"))
@pytest.mark.slow
def test_transformers(tmp_path, arch):
    transformers = oracles.transformers()
    theirs = transformers.EfficientNetForImageClassification(transformers_config(arch))
    drawing.torch(theirs)
    theirs.save_pretrained(tmp_path)
    # They pad odd sizes as the default size needs it: others differ.
    path = tmp_path / "model.safetensors"
    compare(arch, theirs, path, sizes=[default_size(arch)])


def test_transformers_normalise_as_the_table_says():
    # Their image processor divides twice by the root of what we divide by.
    transformers = oracles.transformers()
    processor = transformers.EfficientNetImageProcessorPil(
        do_resize=False, image_mean=list(MEAN), image_std=list(np.sqrt(STD))
    )
    image = np.random.default_rng(1).integers(256, size=(8, 8, 3), dtype=np.uint8)
    found = processor(image)["pixel_values"][0].transpose(1, 2, 0)
    expected = zoo.build("efficientnet_b0").normalization.layer()(image / 255)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transformers_without_a_head(tmp_path):
    transformers = oracles.transformers()
    theirs = transformers.EfficientNetModel(transformers_config("efficientnet_b0"))
    drawing.torch(theirs)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = imported("efficientnet_b0", path, 309, "49 ignored", NO_HEAD)
    images = images_of(SMALL)
    features = outputs(theirs, images).pooler_output
    assert agree(ours.feature_vector(images), features)


@pytest.mark.parametrize("number", [1, 2])
def test_lite_says_of_nine_photographs_what_the_torch_code_says(number, photographs):
    pytest.importorskip("torch", reason=oracles.HOW)
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason=oracles.HOW)
    arch = f"efficientnet_lite{number}"
    module = theirs.EfficientNet.from_pretrained(
        f"efficientnet-lite{number}",
        weights_path=str(registry.find(arch, "imagenet").path),
    )
    (size, _) = default_size(arch)
    images = np.stack([prepared(path, size) for path, _ in photographs])
    logits = outputs(module, images, 127 / 255, 128 / 255).numpy()
    ours = zoo.build(arch, weights="imagenet")
    found = np.asarray(ours.classifier(images))
    assert found.shape == logits.shape == (9, 1000)
    np.testing.assert_allclose(found, logits, atol=1e-3)
    best = [np.argsort(-x, axis=1)[:, :5] for x in (found, logits)]
    np.testing.assert_array_equal(*best)


def prepared(path, size):
    """A photograph as EfficientNet-Lite's evaluation prepares it, in [0, 1]."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = int(size / (size + round(size / 7)) * min(width, height))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.BICUBIC), np.float32) / 255


# Google's checkpoints

NETWORKS = [(name, end) for name in tpu_side.MODELS for end in ("trained", "exported")]


@pytest.mark.parametrize(
    "case",
    quick(
        NETWORKS,
        ("efficientnet-b0", "exported"),
        ("efficientnet-lite0", "trained"),
        ("efficientnetv2-b0", "exported"),
    ),
    ids="-".join,
)
def test_google(tmp_path, case):
    name, end = case
    images = images_of(ODD)
    trained = end == "trained"  # with averages, which count, and the optimiser's slots
    classes = 1000 if trained else 1001  # these have a background class
    theirs = tpu_side.Network(
        name, shape=images.shape[1:], num_classes=classes, training=trained
    )
    path = tmp_path / "model.ckpt"
    theirs.save(str(path))
    arch = name.replace("v2-", "_v2_").replace("-", "_")
    rest = [f"{len(theirs.others)} ignored"] if trained else []
    ours = imported(arch, path, len(theirs.variables), *rest)
    assert ours.taxonomy.num_classes == classes
    assert agree(ours.classifier(images), theirs.predict(images))
