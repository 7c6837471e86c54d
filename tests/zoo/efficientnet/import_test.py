"""Tests imports of EfficientNet weights from files that other projects' code wrote."""

import ast
import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from tests.zoo import oracles, parity
from tests.zoo.efficientnet import drawing, tpu_side
from zoo import config, efficientnet, facts
from zoo.weights import names, registry

ODD, SMALL = (97, 131), (64, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_HEAD = "2 missing (logits/bias, logits/kernel)"


@pytest.fixture
def tmp_path(tmp_path):
    """Deletes the folder right after each test: all sizes together write 10 GB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def quick(cases, *quick):
    """Returns pytest parameters for `cases`; all but those in `quick` are slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, marks=[] if case in quick else slow, id=case_id(case))
        for case in cases
    ]


def case_id(case):
    return "-".join(case) if isinstance(case, tuple) else str(case)


def halved_as_default(arch):
    """Returns a small size that becomes odd after as many halvings as the default size.

    Some implementations pad as the default size needs it, whatever the images.
    """
    (size, _) = default_size(arch)
    return (64 + size % 32,) * 2


def images_of(size):
    return np.random.default_rng(1).uniform(size=(2, *size, 3)).astype("float32")


def default_size(arch):
    return (facts.value(facts.load(arch), "image_size"),) * 2


def imported(arch, path, matched, *rest, **kwargs):
    """Imports a file, and asserts its numbers of matched and other tensors."""
    model = zoo.build(arch, weights=str(path), **kwargs)
    expected = "; ".join([f"{matched} matched", *rest])
    assert model.weights["matched"].endswith(f": {expected}")
    return model


def agree(ours, theirs):
    """Returns whether the models differ far less than two images' outputs do."""
    theirs = np.asarray(theirs)
    between_images = parity.relative(theirs[:1], theirs[1:])
    assert between_images > 1e-3
    return parity.relative(ours, theirs) < 2e-3 * between_images


# Keras


def keras_model(name, *, size=ODD, top=True, applications=keras.applications):
    kwargs = {"classifier_activation": None} if top else {"pooling": "avg"}
    return getattr(applications, name)(
        input_shape=(*size, 3), weights=None, include_top=top, **kwargs
    )


def normalization(theirs):
    """Returns keras.applications' layer that holds the images' mean and variance."""
    (layer,) = (x for x in theirs.layers if x.name.startswith("normalization"))
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("adapted", quick([False, True], True))
def test_keras_b_normalises_images_as_the_file_says(tmp_path, adapted):
    theirs = keras_model("EfficientNetB0")
    images = images_of(ODD)
    if adapted:
        normalization(theirs).adapt(images**2)
    drawing.randomise_keras(theirs, 255 * drawing.images(ODD))
    path = tmp_path / "b0.weights.h5"
    theirs.save_weights(path)
    ours = imported("efficientnet_b0", path, 311, "3 ignored")
    assert agree(ours.classifier(images), theirs(255 * images))


@pytest.mark.slow
@pytest.mark.parametrize("number", quick(range(8), 0))
def test_keras_b_of_imagenet_divides_twice(tmp_path, monkeypatch, number):
    # Keras 2 writes the file, like the published ones. Keras 3 reads it as if it
    # were published: only then does it divide once more by the root of a variance.
    tf_keras = pytest.importorskip("tf_keras")
    name, arch = f"EfficientNetB{number}", f"efficientnet_b{number}"
    written = keras_model(name, applications=tf_keras.applications)
    normalization(written).set_weights([np.asarray(x) for x in (MEAN, STD, 0)])
    once_divided = MEAN + (drawing.images(ODD) - MEAN) / np.sqrt(STD)
    drawing.randomise_keras(written, 255 * once_divided)
    path = tmp_path / "published.h5"
    written.save_weights(path)
    module = "keras.src.applications.efficientnet"
    monkeypatch.setattr(f"{module}.file_utils.get_file", lambda *_, **__: path)
    monkeypatch.setattr(
        f"{module}.imagenet_utils.obtain_input_shape", lambda *_, **__: (*ODD, 3)
    )
    theirs = getattr(keras.applications, name)(classifier_activation=None)
    ours = imported(arch, path, len(theirs.weights) - 3, "3 ignored")
    images = images_of(ODD)
    assert agree(ours.classifier(images), theirs(255 * images))
    assert ours.normalization.std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.slow
def test_keras_b_whose_images_have_no_variance_is_refused(tmp_path):
    theirs = keras_model("EfficientNetB0")
    normalization(theirs).adapt(np.zeros((1, *ODD, 3)))
    theirs.save_weights(tmp_path / "b0.weights.h5")
    with pytest.raises(ValueError, match="a positive variance"):
        zoo.build("efficientnet_b0", weights=str(tmp_path / "b0.weights.h5"))


@pytest.mark.ci
@pytest.mark.parametrize("version", quick((3, 2), 3))
@pytest.mark.parametrize("name", quick(("B0", "B1", "B2", "B3", "S", "M", "L"), "B0"))
def test_keras_v2(tmp_path, name, version):
    library = pytest.importorskip("tf_keras") if version == 2 else keras
    theirs = keras_model(f"EfficientNetV2{name}", applications=library.applications)
    drawing.randomise_keras(theirs, 255 * drawing.images(ODD))
    path = tmp_path / ("v2.h5" if version == 2 else "v2.weights.h5")
    theirs.save_weights(path)
    arch = f"efficientnet_v2_{name.lower()}"
    ours = imported(arch, path, len(theirs.weights))
    images = images_of(ODD)
    assert agree(ours.classifier(images), theirs(255 * images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arch", "counts"),
    [
        pytest.param(
            *("EfficientNetB0", "efficientnet_b0", (309, "3 ignored")),
            marks=pytest.mark.slow,
        ),
        ("EfficientNetV2B0", "efficientnet_v2_b0", (359,)),
    ],
)
def test_keras_without_top(tmp_path, name, arch, counts):
    theirs = keras_model(name, size=SMALL, top=False)
    drawing.randomise_keras(theirs, 255 * drawing.images(SMALL))
    path = tmp_path / "notop.weights.h5"
    theirs.save_weights(path)
    ours = imported(arch, path, *counts, NO_HEAD)
    assert ours.weights["head"] == {"name": "random", "seed": None}
    images = images_of(SMALL)
    assert agree(ours.feature_vector(images), theirs(255 * images))


# PyTorch


def saved(module, path, mean=MEAN, std=STD):
    """Randomises a PyTorch module, and writes its state dict."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    drawing.randomise_torch(module, mean, std)
    torch.save(module.state_dict(), path)
    return path


def outputs(module, images, mean=MEAN, std=STD):
    """Returns the outputs of a PyTorch module for images in [0, 1]."""
    import torch

    x = (images - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x).permute(0, 3, 1, 2))


def compare(arch, module, path, *, sizes, mean=MEAN, std=STD, **kwargs):
    """Asserts that our model agrees with the module that wrote its weights file."""
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


@pytest.mark.parametrize("arch", quick(TIMM))
def test_timm(tmp_path, arch):
    theirs = oracles.timm().create_model(TIMM[arch])
    mean, std = (theirs.pretrained_cfg[key] for key in ("mean", "std"))
    path = saved(theirs, tmp_path / "model.pth", mean, std)
    compare(arch, theirs, path, sizes=[SMALL, ODD], mean=mean, std=std)


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


@pytest.mark.slow
def test_timm_without_a_head(tmp_path):
    theirs = oracles.timm().create_model("tf_efficientnet_b0", num_classes=0)
    drawing.randomise_torch(theirs, MEAN, STD)
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(theirs.state_dict(), path)
    ours = imported("efficientnet_b0", path, 309, "49 ignored", NO_HEAD)
    images = images_of(SMALL)
    assert agree(ours.feature_vector(images), outputs(theirs, images))


TORCHVISION = [f"efficientnet_b{n}" for n in range(8)]
TORCHVISION += [f"efficientnet_v2_{n}" for n in ("s", "m", "l")]


@pytest.mark.parametrize("arch", quick(TORCHVISION))
def test_torchvision(tmp_path, arch):
    models = oracles.torchvision().models
    theirs = models.get_model(arch)
    evaluation = models.get_model_weights(arch).IMAGENET1K_V1.transforms()
    mean, std = evaluation.mean, evaluation.std
    path = saved(theirs, tmp_path / "model.pth", mean, std)
    compare(arch, theirs, path, sizes=[SMALL, ODD], mean=mean, std=std)


# As in transformers' conversion of keras.applications' weights: width, depth, channels
# of the features, and the blocks that pad on both sides at the default size.
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


@pytest.mark.parametrize("arch", quick(TRANSFORMERS))
def test_transformers(tmp_path, arch):
    transformers = oracles.transformers()
    theirs = transformers.EfficientNetForImageClassification(transformers_config(arch))
    drawing.randomise_torch(theirs, MEAN, STD)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    compare(arch, theirs, path, sizes=[halved_as_default(arch)])


def test_transformers_normalise_as_the_table_says():
    # transformers' image processor divides twice by the root of our divisor.
    transformers = oracles.transformers()
    processor = transformers.EfficientNetImageProcessorPil(
        do_resize=False, image_mean=list(MEAN), image_std=list(np.sqrt(STD))
    )
    image = np.random.default_rng(1).integers(256, size=(8, 8, 3), dtype=np.uint8)
    actual = processor(image)["pixel_values"][0].transpose(1, 2, 0)
    expected = zoo.build("efficientnet_b0").normalization.layer()(image / 255)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.slow
def test_transformers_without_a_head(tmp_path):
    transformers = oracles.transformers()
    theirs = transformers.EfficientNetModel(transformers_config("efficientnet_b0"))
    drawing.randomise_torch(theirs, MEAN, STD)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = imported("efficientnet_b0", path, 309, "49 ignored", NO_HEAD)
    images = images_of(SMALL)
    features = outputs(theirs, images).pooler_output
    assert agree(ours.feature_vector(images), features)


@pytest.mark.ci
@pytest.mark.parametrize("number", quick(range(5), 0))
def test_lite(tmp_path, number):
    torch_side = pytest.importorskip("efficientnet_lite_pytorch", reason=oracles.HOW)
    theirs = torch_side.EfficientNet.from_name(f"efficientnet-lite{number}")
    arch, mean, std = f"efficientnet_lite{number}", 127 / 255, 128 / 255
    path = saved(theirs, tmp_path / "model.pth", mean, std)
    compare(arch, theirs, path, sizes=[halved_as_default(arch)], mean=mean, std=std)


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
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
    their_logits = outputs(module, images, 127 / 255, 128 / 255).numpy()
    ours = zoo.build(arch, weights="imagenet")
    our_logits = np.asarray(ours.classifier(images))
    assert our_logits.shape == their_logits.shape == (9, 1000)
    np.testing.assert_allclose(our_logits, their_logits, atol=1e-3)
    top5 = [np.argsort(-x, axis=1)[:, :5] for x in (our_logits, their_logits)]
    np.testing.assert_array_equal(*top5)


def prepared(path, size):
    """Returns a photograph in [0, 1], preprocessed as EfficientNet-Lite evaluates."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = int(size / (size + round(size / 7)) * min(width, height))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.BICUBIC), np.float32) / 255


# Google's checkpoints

SMALLEST = ("efficientnet-b0", "efficientnet-lite0", "efficientnetv2-b0")
NETWORKS = [(name, "trained") for name in SMALLEST]
NETWORKS += [(name, "exported") for name in tpu_side.MODELS]


@pytest.mark.ci
@pytest.mark.slow_except("efficientnet-b0-exported")
@pytest.mark.parametrize(
    "case",
    quick(
        NETWORKS,
        ("efficientnet-b0", "exported"),
        ("efficientnetv2-b0", "exported"),
    ),
)
def test_google(tmp_path, case):
    name, end = case
    images = images_of(ODD)
    trained = end == "trained"  # with optimiser slots, and averages, which are used
    classes = 1000 if trained else 1001  # exported models have a background class
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


# Normalisation and preprocessing in name tables and the registry

NAMES = pathlib.Path(efficientnet.__file__).parent / "names"
# Start of a record's source -> start of its name table's source.
SOURCES = {
    "keras.applications": "keras.applications",
    "timm": "timm",
    "torchvision": "torchvision",
    "tensorflow/tpu": "TensorFlow TPU models",
    "google/automl": "Google's automl",
    "Google's EfficientNet-Lite": "efficientnet-lite-pytorch",
}


def table_of(arch, source):
    tables = names.load(NAMES, arch)
    (table,) = (t for t in tables if t["source"].startswith(source))
    return table


def bound_normalization(lines):
    """Returns the mean and deviation that gin lines bind, per colour, from 0 to 255."""
    values = dict(line.split(" = ") for line in lines)
    return [colours(ast.literal_eval(values[f"model.{k}"])) for k in ("mean", "std")]


def colours(value):
    return pytest.approx(np.broadcast_to(value, 3), abs=1e-3)


def records(begins):
    """Yields (arch, record) of public weights whose `source` starts with `begins`."""
    for arch in config.config_files():
        for record in registry.records(arch).values():
            if arch.startswith("efficientnet") and record["source"].startswith(begins):
                yield arch, record


def test_records_say_of_images_what_the_tables_say():
    cases = [
        (arch, record, begins) for begins in SOURCES for arch, record in records(begins)
    ]
    assert len(cases) == len(list(records("")))
    for arch, record, begins in cases:
        table, recorded = table_of(arch, SOURCES[begins]), record["normalization"]
        if "images" in table:  # the file has the mean, and the deviation as a variance
            lines = [f"model.mean = {tuple(255 * m for m in MEAN)}"]
            lines += [f"model.std = {tuple(255 * s for s in table['images']['twice'])}"]
        else:
            lines = table["gin"]
        mean, std = bound_normalization(lines)
        assert np.broadcast_to(recorded["mean"], 3) == mean, (arch, begins)
        assert np.broadcast_to(recorded["std"], 3) == std, (arch, begins)


def test_records_of_timm_say_what_its_tags_say():
    oracles.timm()
    import timm.models

    timm_records = list(records("timm "))
    assert len(timm_records) == 21
    for arch, record in timm_records:
        tag = record["source"].split()[2].rstrip(":,")
        theirs = timm.models.get_pretrained_cfg(tag)
        size = (theirs.test_input_size or theirs.input_size)[-1]
        assert tag.startswith(TIMM[arch].partition(".")[0] + ".")
        assert record["url"] == theirs.url
        assert record["classes"] == theirs.num_classes
        for key in ("mean", "std"):
            recorded = np.broadcast_to(record["normalization"][key], 3)
            assert recorded == colours(255 * np.asarray(getattr(theirs, key)))
        assert record["preprocessing"] == {
            "image_size": size,
            "crop_fraction": theirs.test_crop_pct or theirs.crop_pct,
            "interpolation": theirs.interpolation,
        }


def test_records_of_torchvision_say_what_its_weights_say():
    models = oracles.torchvision().models
    torchvision_records = list(records("torchvision "))
    assert len(torchvision_records) == len(TORCHVISION)
    for arch, record in torchvision_records:
        theirs = models.get_weight(record["source"].split()[2].rstrip(";"))
        evaluation = theirs.transforms()
        assert theirs in models.get_model_weights(arch)
        assert record["url"] == theirs.url
        for key in ("mean", "std"):
            recorded = np.broadcast_to(record["normalization"][key], 3)
            assert recorded == colours(255 * np.asarray(getattr(evaluation, key)))
        (size,), (resized,) = evaluation.crop_size, evaluation.resize_size
        assert record["preprocessing"] == {
            "image_size": size,
            "crop_fraction": size / resized,
            "interpolation": evaluation.interpolation.value,
        }
        top1 = theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert record["published_top1"]["value"] == pytest.approx(top1 / 100)


# timm's tags whose images are normalised differently from the tables' bindings. The
# bindings that they need are in the tables' `habit` text, which users see.
OTHERWISE = {
    *(f"tf_efficientnet_b{n}.ap_in1k" for n in range(8)),
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "efficientnet_b1.ra4_e3600_r240_in1k",
    "efficientnet_lite0.ra_in1k",
    "tf_efficientnetv2_b3.in21k",
    "tf_efficientnetv2_b3.in21k_ft_in1k",
}


def test_tables_say_of_images_what_timm_says_but_of_some_tags():
    oracles.timm()
    import timm.models

    archs = {name.partition(".")[0]: arch for arch, name in TIMM.items()}
    archs |= {name.removeprefix("tf_"): arch for name, arch in archs.items()}
    differing_tags = set()
    for tag in timm.models.list_pretrained():
        arch = archs.get(tag.partition(".")[0])
        if arch:
            theirs = timm.models.get_pretrained_cfg(tag)
            timm_values = [255 * np.asarray(v) for v in (theirs.mean, theirs.std)]
            table = table_of(arch, "timm")
            if timm_values != bound_normalization(table["gin"]):
                differing_tags.add(tag)
                for key, value in zip(("mean", "std"), timm_values, strict=True):
                    all_equal = len(set(value)) == 1
                    value = value[0] if all_equal else tuple(value.round(3).tolist())
                    assert f"model.{key} = {value}" in table["habit"]
    assert differing_tags == OTHERWISE
