"""Tests imports of RegNet weights from files that other projects' code wrote."""

import json

import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from zoo import config, facts
from zoo.weights import registry

SIZES = ((224, 224), (97, 131))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_HEAD = "2 missing (logits/bias, logits/kernel)"
REGIMES = {
    "200mf": "002",
    "400mf": "004",
    "600mf": "006",
    "800mf": "008",
    "1_6gf": "016",
    "3_2gf": "032",
    "4_0gf": "040",
    "6_4gf": "064",
    "8_0gf": "080",
    "12gf": "120",
    "16gf": "160",
    "32gf": "320",
}
ARCHS = [f"regnet_{kind}_{regime}" for kind in "xy" for regime in REGIMES]
TORCHVISION = [
    f"regnet_{kind}_{regime}"
    for kind in "xy"
    for regime in ("400mf", "800mf", "1_6gf", "3_2gf", "8_0gf", "16gf", "32gf")
]
# Archs whose channels torchvision rounds differently from the paper's authors.
WIDER = ("regnet_x_400mf", "regnet_y_800mf", "regnet_y_8_0gf")


def kind_and_number(arch):
    """Returns an arch's kind and number, such as `x` and `002`."""
    _, kind, regime = arch.split("_", 2)
    return kind, REGIMES[regime]


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).uniform(size=(1, *size, 3)).astype("float32")


def variables(model):
    """Returns the numbers of variables and of batch norms in a classifier."""
    paths = [variable.path for variable in model.classifier.weights]
    return len(paths), sum(path.endswith("moving_mean") for path in paths)


def assert_same_parts(ours, theirs, images):
    """Asserts that our endpoints and logits for images in [0, 1] equal `theirs`."""
    normalised = ours.feature_vector.get_layer("normalize")(images)
    our_parts = dict(ours.backbone(normalised))
    our_parts["logits"] = ours.classifier(images)
    for name, part in theirs.items():
        assert parity.relative(our_parts[name], part) < 1e-4, name


# PyTorch


def save_random(theirs, path):
    """Randomises a model and writes its state dict, with small residual branches.

    If sums grew from block to block, the gates of squeeze-excite would amplify rounding
    errors beyond the tolerance.
    """
    import safetensors.torch
    import torch

    from tests.zoo.resnet import torch_side

    torch_side.randomise(theirs)
    state = theirs.state_dict()
    for name in state:
        if name.endswith(("conv3.bn.weight", "f.c.1.weight")):
            state[name] *= 0.2
    save = safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save
    save(state, path)


def assert_torch_imported(arch, theirs, path, source, modules, **kwargs):
    from tests.zoo.resnet import torch_side

    save_random(theirs, path)
    ours = zoo.build(arch, weights=str(path), **kwargs)
    count, norms = variables(ours)
    assert ours.weights["matched"] == (
        f"names of {source}: {count} matched; {norms} ignored"
    )
    for size in SIZES:
        images = some_images(size)
        normalised = (images - np.float32(MEAN)) / np.float32(STD)
        parts = torch_side.outputs(theirs, normalised, modules)
        assert_same_parts(ours, parts, images)
    return ours


TIMM_MODULES = {
    "stem": "stem",
    **{f"stage_{number}": f"s{number}" for number in range(1, 5)},
    "feature_vector": "head.global_pool",
}
TORCHVISION_MODULES = {
    "stem": "stem",
    **{f"stage_{number}": f"trunk_output.block{number}" for number in range(1, 5)},
    "feature_vector": "avgpool",
}


def timm_model(arch, **kwargs):
    return oracles.timm().create_model(
        "regnet{}_{}".format(*kind_and_number(arch)), **kwargs
    )


def torchvision_model(arch):
    name = arch.replace("8_0gf", "8gf")
    return getattr(oracles.torchvision().models, name)()


@pytest.mark.ci_except("regnet_y_200mf")
@pytest.mark.slow_except("regnet_x_200mf", "regnet_y_200mf")
@pytest.mark.parametrize("arch", ARCHS)
def test_timm(arch, tmp_path):
    theirs = timm_model(arch)
    path = tmp_path / "a.safetensors"
    assert_torch_imported(arch, theirs, path, "timm", TIMM_MODULES)


@pytest.mark.slow_except("regnet_x_200mf", "regnet_y_200mf")
@pytest.mark.parametrize("arch", ARCHS)
def test_facts_are_timms(arch):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    arch_facts = facts.load(arch)
    with torch.device("meta"):
        theirs = timm_model(arch)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )


@pytest.mark.slow
def test_timm_without_top(tmp_path):
    pytest.importorskip("torch", reason=oracles.HOW)
    theirs, path = timm_model("regnet_x_200mf", num_classes=0), tmp_path / "a.pth"
    save_random(theirs, path)
    ours = zoo.build("regnet_x_200mf", weights=str(path), seed=3)
    count, norms = variables(ours)
    assert ours.weights["matched"] == (
        f"names of timm: {count - 2} matched; {norms} ignored; {NO_HEAD}"
    )
    assert ours.weights["head"] == {"name": "random", "seed": 3}


@pytest.mark.ci
@pytest.mark.slow_except("regnet_x_400mf")
@pytest.mark.parametrize("arch", TORCHVISION)
def test_torchvision(arch, tmp_path):
    theirs = torchvision_model(arch)
    path = tmp_path / "a.pth"
    ours = assert_torch_imported(arch, theirs, path, "torchvision", TORCHVISION_MODULES)
    params = facts.value(facts.load(arch), "params")
    assert (ours.classifier.count_params() > params) == (arch in WIDER)


# tf_keras


def keras_model(arch, size, **top):
    """Returns tf_keras' model, for images from 0 to 255; its head has no softmax."""
    tf_keras.backend.reset_uids()  # the head's name contains a number that counts heads
    name = "RegNet{}{}".format(*kind_and_number(arch)).replace("x", "X", 1)
    name = name.replace("y", "Y", 1)
    network = getattr(tf_keras.applications, name)
    return network(input_shape=(*size, 3), weights=None, **top)


def keras_parts(theirs, ours, images):
    """Returns the endpoints and logits of tf_keras' model, by our names."""
    kind = type(ours.spec).__name__[-1]
    ends = {"stem": "_stem_relu", "feature_vector": "_head_gap", "logits": "head_dense"}
    for number, stage in enumerate(ours.spec.stages()):
        block = f"_Stage_{number}_{kind}Block_{stage.blocks - 1}"
        ends[f"stage_{number + 1}"] = f"{block}_exit_relu"
    parts = {}
    for name, end in ends.items():
        (layer,) = (x for x in theirs.layers if x.name.endswith(end))
        parts[name] = layer.output
    return tf_keras.Model(theirs.input, parts)(images * 255)


def randomise_keras(theirs):
    from tests.zoo.resnet import keras_side

    keras_side.randomise(theirs)
    for variable in theirs.weights:  # see save_random
        if variable.name.endswith("_conv_1x1_2_bn/gamma:0"):
            variable.assign(variable * 0.2)


@pytest.mark.ci
@pytest.mark.slow_except("regnet_x_200mf", "regnet_y_200mf")
@pytest.mark.parametrize("arch", ARCHS)
def test_tf_keras(arch, tmp_path):
    written, path = keras_model(arch, SIZES[0]), tmp_path / "a.h5"
    randomise_keras(written)
    written.save_weights(path)
    ours = zoo.build(arch, weights=str(path))
    count, _ = variables(ours)
    assert ours.weights["matched"] == f"names of tf_keras.applications: {count} matched"
    assert ours.classifier.count_params() == written.count_params()
    for size in SIZES:
        theirs = written
        if size != SIZES[0]:
            theirs = keras_model(arch, size)
            theirs.set_weights(written.get_weights())
        images = some_images(size)
        assert_same_parts(ours, keras_parts(theirs, ours, images), images)


@pytest.mark.slow
def test_tf_keras_without_top(tmp_path):
    theirs = keras_model("regnet_y_200mf", SIZES[1], include_top=False)
    path = tmp_path / "a.h5"
    theirs.save_weights(path)
    ours = zoo.build("regnet_y_200mf", weights=str(path))
    assert ours.weights["matched"].endswith(f"matched; {NO_HEAD}")


# The registry


def records(begins):
    """Yields (arch, record) of public weights whose `source` starts with `begins`."""
    for arch in ARCHS:
        for record in registry.records(arch).values():
            if record["source"].startswith(begins):
                yield arch, record


def test_every_arch_has_weights():
    path = config.config_file(ARCHS[0]).parent.parent / "weights.json"
    assert set(json.loads(path.read_text())) == set(ARCHS)


def test_records_of_timm_say_what_its_tags_say():
    oracles.timm()
    import timm.models

    timm_records = list(records("timm "))
    assert len(timm_records) == len(ARCHS)
    for arch, record in timm_records:
        tag = record["source"].split()[2].rstrip(":,")
        theirs = timm.models.get_pretrained_cfg(tag)
        assert tag == "regnet{}_{}.pycls_in1k".format(*kind_and_number(arch))
        assert f"/{tag}/" in record["url"]
        assert record["license"].lower() == theirs.license
        assert record["preprocessing"] == {
            "image_size": theirs.input_size[-1],
            "crop_fraction": theirs.crop_pct,
            "interpolation": theirs.interpolation,
        }


def test_records_of_torchvision_say_what_its_weights_say():
    models = oracles.torchvision().models
    torchvision_records = list(records("torchvision "))
    assert len(torchvision_records) == 2 * len(TORCHVISION)
    for arch, record in torchvision_records:
        theirs = models.get_weight(record["source"].split()[2])
        evaluation = theirs.transforms()
        assert theirs in models.get_model_weights(arch.replace("8_0gf", "8gf"))
        assert record["url"] == theirs.url
        (size,), (resized,) = evaluation.crop_size, evaluation.resize_size
        assert record["preprocessing"] == {
            "image_size": size,
            "crop_fraction": size / resized,
            "interpolation": evaluation.interpolation.value,
        }
        top1 = theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert record["published_top1"]["value"] == pytest.approx(top1 / 100)


def test_records_of_tf_keras_have_its_hashes():
    from tf_keras.src.applications import regnet

    tf_keras_records = list(records("tf_keras"))
    assert len(tf_keras_records) == len(ARCHS)
    for arch, record in tf_keras_records:
        kind, number = kind_and_number(arch)
        assert record["sha256"] == regnet.WEIGHTS_HASHES[kind + number][0]
        url = f"{regnet.BASE_WEIGHTS_PATH}regnet{kind}{number}.h5"
        assert record["url"] == url
