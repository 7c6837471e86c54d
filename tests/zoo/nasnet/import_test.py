"""Tests imports of NASNet and PNASNet from files that other projects' code wrote.

The weights are random. Every endpoint that the other model has is compared, with that
model's padding.
"""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from tests.zoo.nasnet import slim_side

GAIN = 0.6  # of all batch norms, so that values don't grow from cell to cell
ODD = (97, 131)
SMALL_NASNET = [
    "NASNet.normal_cells = 2",
    "NASNet.feature_channels = 192",
    "NASNet.stem_channels = 16",
]
SMALL_PNASNET = [
    "PNASNet.cells_per_stage = 2",
    "PNASNet.channels = 16",
    "PNASNet.stem_channels = 24",
]
slow = pytest.mark.slow


def some_images(size):
    """Returns a random image, [1, H, W, 3] float32 in [0, 1]."""
    return np.random.default_rng(1).uniform(size=(1, *size, 3)).astype("float32")


def randomise(theirs):
    """Randomises a model, with gammas small enough that means and betas matter."""
    parity.randomise(theirs)
    for variable in theirs.weights:
        if variable.path.endswith("/gamma"):
            variable.assign(variable * GAIN)


def outputs(ours, images):
    """Returns our endpoints and logits by name, for images in [0, 1]."""
    parts = dict(ours.backbone(images * 2 - 1))
    return parts | {"logits": ours.head(parts["feature_vector"])}


def assert_same(ours, images, theirs):
    """Asserts that outputs are equal, by our names; each must vary and not be huge."""
    our_parts = outputs(ours, images)
    for name, expected in theirs.items():
        expected = np.asarray(expected)
        assert expected.std() > 1e-3, name
        assert np.abs(expected).max() < 1e3, name
        difference = parity.relative(our_parts[name], expected)
        assert difference < 1e-4, (name, difference)
    np.testing.assert_array_equal(ours.classifier(images), our_parts["logits"])


# keras.applications


def keras_layers(cells_in_a_stage):
    """Maps our endpoints to layers of keras.applications' NASNet."""
    count = cells_in_a_stage
    concatenations = {
        "stage_1": "reduction_concat_stem_1",
        "Reduction_Cell_0": f"reduction_concat_reduce_{count}",
        "Reduction_Cell_1": f"reduction_concat_reduce_{2 * count}",
        # keras.applications counts its first reduction cell, but not its second.
        **{f"Cell_{n}": f"normal_concat_{n + (n >= count)}" for n in range(3 * count)},
    }
    last = {f"stage_{s}": f"Cell_{(s - 1) * count - 1}" for s in (2, 3, 4)}
    concatenations |= {stage: concatenations[cell] for stage, cell in last.items()}
    return {"stem": "stem_bn1", **concatenations, "logits": "predictions"}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "arch", "size"),
    [
        ("NASNetMobile", "nasnet_mobile", ODD),
        pytest.param("NASNetMobile", "nasnet_mobile", (224, 224), marks=slow),
        pytest.param("NASNetLarge", "nasnet_large", ODD, marks=slow),
        pytest.param("NASNetLarge", "nasnet_large", (331, 331), marks=slow),
    ],
)
def test_keras_applications(name, arch, size, tmp_path):
    theirs = getattr(keras.applications, name)(
        input_shape=(*size, 3), weights=None, classifier_activation=None
    )
    randomise(theirs)
    path = tmp_path / "a.weights.h5"
    theirs.save_weights(path)
    ours = zoo.build(arch, weights=str(path))
    assert ours.weights["matched"] == (
        f"names of keras.applications: {len(theirs.weights)} matched"
    )
    assert ours.classifier.count_params() == theirs.count_params()
    layers = keras_layers(ours.spec.normal_cells)
    parts = {ours: theirs.get_layer(name).output for ours, name in layers.items()}
    *_, parts["feature_map"], parts["feature_vector"], _ = (
        layer.output for layer in theirs.layers
    )
    images = some_images(size)
    assert_same(ours, images, keras.Model(theirs.input, parts)(images * 2 - 1))


@slow
def test_files_of_keras_2(tmp_path):
    """Published files name each weight: `depthwise_kernel`, `pointwise_kernel`."""
    theirs = keras.applications.NASNetMobile(weights=None, classifier_activation=None)
    randomise(theirs)
    theirs.save_weights(tmp_path / "a.weights.h5")
    path = tmp_path / "a.h5"
    theirs.save(path)
    actual, expected = (
        zoo.build("nasnet_mobile", weights=str(file)).classifier
        for file in (path, tmp_path / "a.weights.h5")
    )
    for variable, expected_variable in zip(
        actual.weights, expected.weights, strict=True
    ):
        np.testing.assert_array_equal(variable, expected_variable)


@pytest.mark.ci
@pytest.mark.parametrize("zeros", ["'average',", "'max',", "'average', 'max'"])
def test_zeros_change_the_outputs(zeros):
    """Shows that the comparisons above depend on the padding of each kind of pool."""
    images = some_images(ODD)
    stage_outputs = []
    for bindings in ([], [f"NASNet.zero_padded_pools = ({zeros})"]):
        model = zoo.build("nasnet_large", gin_bindings=[*SMALL_NASNET, *bindings])
        parity.randomise(model.backbone)
        stage_outputs.append(model.backbone(images)["stage_1"])
    assert parity.relative(*stage_outputs) > 1e-3


# TF-Slim


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "bindings", "settings"),
    [
        pytest.param(
            "nasnet_mobile",
            [],
            {"num_cells": 12, "filters": 44, "stem": 32, "skip": False},
            id="nasnet_mobile",
            marks=slow,
        ),
        pytest.param(
            "nasnet_large",
            SMALL_NASNET,
            {"num_cells": 6, "filters": 8, "stem": 16, "skip": True},
            id="small_nasnet_large",
        ),
        pytest.param(
            "pnasnet_5_large",
            SMALL_PNASNET,
            {"num_cells": 6, "filters": 16, "stem": 24, "skip": True},
            id="small_pnasnet_5_large",
        ),
    ],
)
def test_tf_slim(arch, bindings, settings, tmp_path):
    theirs = slim_side.Network(
        pnasnet=arch.startswith("pnasnet"), classes=1001, **settings
    )
    path = tmp_path / "model.ckpt"
    theirs.save(path)
    ours = zoo.build(arch, weights=str(path), gin_bindings=bindings)
    assert ours.weights["matched"].startswith(
        f"names of TF-Slim: {len(ours.classifier.weights)} matched; "
    )
    assert ours.taxonomy.num_classes == 1001
    renamed = {"global_pool": "feature_vector", "Logits": "logits"}
    for size in ((224, 224), ODD):
        images = some_images(size)
        their_parts = theirs(images)
        del their_parts["Stem"]  # not an endpoint of our models
        assert_same(
            ours, images, {renamed.get(n, n): x for n, x in their_parts.items()}
        )


# timm


@pytest.mark.parametrize(
    ("name", "arch", "stem", "cells"),
    [
        ("nasnetalarge", "nasnet_large", "conv0", 18),
        ("pnasnet5large", "pnasnet_5_large", "conv_0", 12),
    ],
)
@slow
def test_timm(name, arch, stem, cells, tmp_path):
    import safetensors.torch

    theirs = oracles.timm().create_model(name)
    from tests.zoo.resnet import torch_side

    theirs.act.inplace = False  # it would change the last cell's output
    torch_side.randomise(theirs)
    state = theirs.state_dict()
    for key, tensor in state.items():
        if ".bn" in key or "_bn." in key:
            tensor *= GAIN if key.endswith(".weight") else 1
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path)
    ours = zoo.build(arch, weights=str(path))
    count = len(ours.classifier.weights)
    assert ours.weights["matched"].startswith(f"names of timm: {count} matched; ")
    trainable = sum(int(np.prod(v.shape)) for v in ours.classifier.trainable_weights)
    assert torch_side.parameters(theirs) == trainable
    modules = {
        "stem": stem,
        "stage_1": "cell_stem_0",
        **{f"Cell_{n}": f"cell_{n}" for n in range(cells)},
        "feature_map": "act",
        "feature_vector": "global_pool",
    }
    if arch == "nasnet_large":
        modules |= {f"Reduction_Cell_{n}": f"reduction_cell_{n}" for n in (0, 1)}
    for size in (ODD, (331, 331)):
        images = some_images(size)
        assert_same(ours, images, torch_side.outputs(theirs, images * 2 - 1, modules))
