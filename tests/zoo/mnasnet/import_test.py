"""Tests imports of MnasNet weights from files that timm and torchvision wrote."""

import json

import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import config, facts
from zoo.weights import registry

SIZES = ((224, 224), (97, 131))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = {
    "mnasnet_a1_075": "semnasnet_075",
    "mnasnet_a1_100": "semnasnet_100",
    "mnasnet_b1_050": "mnasnet_050",
    "mnasnet_b1_075": "mnasnet_075",
    "mnasnet_b1_100": "mnasnet_100",
    "mnasnet_small": "mnasnet_small",
}
TORCHVISION = {
    "mnasnet_b1_050": "mnasnet0_5",
    "mnasnet_b1_075": "mnasnet0_75",
    "mnasnet_b1_100": "mnasnet1_0",
    "mnasnet_b1_130": "mnasnet1_3",
}
TIMM_MODULES = {
    "stem": "bn1",
    **{f"stage_{number}": f"blocks.{number - 1}" for number in range(1, 8)},
    "feature_map": "bn2",
    "feature_vector": "global_pool",
}
TORCHVISION_MODULES = {
    "stem": "layers.2",
    "stage_1": "layers.7",
    **{f"stage_{number}": f"layers.{number + 6}" for number in range(2, 8)},
    "feature_map": "layers.16",
}
OTHERS = {
    "timm": (TIMM, TIMM_MODULES),
    "torchvision": (TORCHVISION, TORCHVISION_MODULES),
}
CASES = [(arch, source) for source, (names, _) in OTHERS.items() for arch in names]


def other_model(arch, source, **kwargs):
    name = OTHERS[source][0][arch]
    if source == "timm":
        return oracles.timm().create_model(name, **kwargs)
    return getattr(oracles.torchvision().models, name)(**kwargs)


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).uniform(size=(1, *size, 3)).astype("float32")


def save_random(theirs, path):
    """Randomises a model and writes its state dict, with small squeeze-excite kernels.

    Random activations reach hundreds. With kernels of the usual size, a gate's sigmoid
    would have inputs as large, and rounding errors in them could change the outputs.
    """
    import safetensors.torch
    import torch

    from tests.zoo.resnet import torch_side

    torch_side.randomise(theirs)
    state = theirs.state_dict()
    for name in state:
        if name.endswith("se.conv_reduce.weight"):
            state[name] *= 0.01
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.ci_except("mnasnet_small-timm")
@pytest.mark.slow_except(
    "mnasnet_a1_075-timm", "mnasnet_small-timm", "mnasnet_b1_050-torchvision"
)
@pytest.mark.parametrize(("arch", "source"), CASES)
def test_an_imported_model_gives_the_same_outputs(arch, source, tmp_path):
    theirs = other_model(arch, source)  # skips the test without the oracles
    from tests.zoo.resnet import torch_side

    path = tmp_path / ("a.safetensors" if source == "timm" else "a.pth")
    save_random(theirs, path)
    ours = zoo.build(arch, weights=str(path))
    paths = [variable.path for variable in ours.classifier.weights]
    # PyTorch's `num_batches_tracked` is ignored: there is one in each batch norm.
    norms = sum(path.endswith("moving_mean") for path in paths)
    assert ours.weights["matched"] == (
        f"names of {source}: {len(paths)} matched; {norms} ignored"
    )
    for size in SIZES:
        images = some_images(size)
        normalised = (images - np.float32(MEAN)) / np.float32(STD)
        our_parts = torch_side.with_our_logits(ours, normalised)
        modules = OTHERS[source][1]
        for name, part in torch_side.outputs(theirs, normalised, modules).items():
            assert parity.relative(our_parts[name], part) < 1e-4, name
        # The classifier normalises images; `our_parts` are of normalised ones.
        logits = ours.classifier(images)
        assert parity.relative(logits, our_parts["logits"]) < 1e-4


@pytest.mark.slow_except(
    "mnasnet_a1_075-timm", "mnasnet_small-timm", "mnasnet_b1_050-torchvision"
)
@pytest.mark.parametrize(("arch", "source"), CASES)
def test_facts_are_those_of_the_other_model(arch, source):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    arch_facts = facts.load(arch)
    with torch.device("meta"):
        theirs = other_model(arch, source)
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, 224) == facts.value(
        arch_facts, "multiply_adds"
    )


@pytest.mark.slow
def test_weights_without_a_head_get_a_random_one(tmp_path):
    theirs = other_model("mnasnet_small", "timm", num_classes=0)
    save_random(theirs, tmp_path / "a.pth")
    ours = zoo.build("mnasnet_small", weights=str(tmp_path / "a.pth"), seed=3)
    assert ours.weights["matched"].endswith("; 2 missing (logits/bias, logits/kernel)")
    assert ours.weights["head"] == {"name": "random", "seed": 3}


def test_the_name_table_binds_torchvision_s_momentum():
    models = oracles.torchvision().models
    (line,) = (
        line
        for line in json.loads(
            (names_folder() / "mnasnet_b1.torchvision.json").read_text()
        )["gin"]
        if "momentum" in line
    )
    theirs = 1 - models.mnasnet._BN_MOMENTUM
    assert float(line.partition(" = ")[2]) == pytest.approx(theirs)


def names_folder():
    return config.config_file("mnasnet_small").parent.parent / "names"


def records(begins):
    """Yields (arch, record) of public weights whose `source` starts with `begins`."""
    for arch in {**TIMM, **TORCHVISION}:
        for record in registry.records(arch).values():
            if record["source"].startswith(begins):
                yield arch, record


def test_records_of_timm_say_what_its_tags_say():
    oracles.timm()
    import timm.models

    timm_records = list(records("timm "))
    assert len(timm_records) == 4
    for arch, record in timm_records:
        tag = record["source"].split()[2]
        theirs = timm.models.get_pretrained_cfg(tag)
        assert tag.partition(".")[0] == TIMM[arch]
        assert f"/{tag}/" in record["url"]
        assert record["license"].lower() == theirs.license
        assert record["preprocessing"] == {
            "image_size": (theirs.test_input_size or theirs.input_size)[-1],
            "crop_fraction": theirs.test_crop_pct or theirs.crop_pct,
            "interpolation": theirs.interpolation,
        }


def test_records_of_torchvision_say_what_its_weights_say():
    models = oracles.torchvision().models
    torchvision_records = list(records("torchvision "))
    assert len(torchvision_records) == len(TORCHVISION)
    for arch, record in torchvision_records:
        theirs = models.get_weight(record["source"].split()[2])
        evaluation = theirs.transforms()
        assert theirs in models.get_model_weights(TORCHVISION[arch])
        assert record["url"] == theirs.url
        (size,), (resized,) = evaluation.crop_size, evaluation.resize_size
        assert record["preprocessing"] == {
            "image_size": size,
            "crop_fraction": size / resized,
            "interpolation": evaluation.interpolation.value,
        }
        top1 = theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert record["published_top1"]["value"] == pytest.approx(top1 / 100)
