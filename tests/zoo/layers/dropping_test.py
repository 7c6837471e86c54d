"""Tests drop path, which drops whole branches of single images, and dropout."""

import re

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import shapes
from zoo.layers import dropping


def drop_path_outputs(rate, images=4000):
    keras.utils.set_random_seed(0)
    layer = dropping.DropPath(rate, name="drop_path")
    ones = np.ones((images, 2, 3, 4), np.float32)
    return keras.ops.convert_to_numpy(layer(ones, training=True))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.8])
def test_branches_are_dropped_by_image_and_the_rest_is_scaled(rate):
    values = drop_path_outputs(rate)
    by_image = values[:, 0, 0, 0]
    np.testing.assert_array_equal(
        values, np.broadcast_to(by_image[:, None, None, None], values.shape)
    )
    assert set(np.unique(by_image)) == {0, np.float32(1 / (1 - rate))}
    assert (by_image == 0).mean() == pytest.approx(rate, abs=0.03)
    assert values.mean() == pytest.approx(1, abs=0.15)


def test_the_ends_are_all_or_nothing():
    assert (drop_path_outputs(0.0) == 1).all()
    assert (drop_path_outputs(1.0) == 0).all()


def test_dropout_drops_single_values():
    layer = dropping.Dropout(0.25, name="dropout")
    values = keras.ops.convert_to_numpy(layer(np.ones((100, 80)), training=True))
    assert set(np.unique(values)) == {0, np.float32(1 / 0.75)}
    assert (values == 0).mean() == pytest.approx(0.25, abs=0.03)
    for axis in (0, 1):
        assert (values.std(axis=axis) > 0).all()


def test_inference_drops_nothing_and_two_layers_draw_apart():
    first, second = (dropping.DropPath(0.5, name=name) for name in ("a", "b"))
    ones = np.ones((100, 1, 1, 1), np.float32)
    np.testing.assert_array_equal(first(ones), ones)
    draws = [
        keras.ops.convert_to_numpy(x(ones, training=True)) for x in (first, second)
    ]
    assert (draws[0] != draws[1]).any()
    with pytest.raises(ValueError, match="must be in"):
        dropping.DropPath(1.5, name="c")


def drop_path_rates(arch):
    """Returns the non-zero drop path rates of an arch, in network order."""
    layers = shapes.build(arch).backbone.layers
    rates = [layer.rate for layer in layers if isinstance(layer, dropping.DropPath)]
    return [pytest.approx(rate, abs=1e-6) for rate in rates if rate]


@pytest.mark.slow_except("efficientnet_b0-EfficientNetB0")
@pytest.mark.parametrize(
    ("arch", "builder"),
    [
        ("efficientnet_b0", "EfficientNetB0"),
        pytest.param("efficientnet_b3", "EfficientNetB3", marks=pytest.mark.slow),
        ("efficientnet_v2_b0", "EfficientNetV2B0"),
        pytest.param("efficientnet_v2_s", "EfficientNetV2S", marks=pytest.mark.slow),
    ],
)
def test_efficientnets_drop_as_keras_applications_do(arch, builder):
    theirs = getattr(keras.applications, builder)(weights=None, include_top=False)
    rates = [x.rate for x in theirs.layers if x.name.endswith("_drop")]
    assert len(rates) > 8
    assert drop_path_rates(arch) == [rate for rate in rates if rate]


@pytest.mark.slow_except("mobilenet_v4_conv_medium-0.075-22")
@pytest.mark.parametrize(
    ("arch", "rate", "blocks"),
    [
        ("mobilenet_v4_conv_medium", 0.075, 22),
        ("mobilenet_v4_hybrid_medium", 0.075, 31),
    ],
)
def test_mobilenet_v4_drops_more_with_depth(arch, rate, blocks):
    """Of the n blocks after the first stage, block b has the rate `rate` · b / n."""
    model = zoo.build(arch)
    names = [
        layer.name.removesuffix("_drop_path")
        for layer in model.backbone.layers
        if layer.name.endswith("_drop_path")
    ]
    all_blocks = list(
        dict.fromkeys(
            match[0]
            for layer in model.backbone.layers
            if (match := re.match(r"stage_\d+_block_\d+", layer.name))
        )
    )
    assert len(all_blocks) == blocks
    assert drop_path_rates(arch) == [
        rate * all_blocks.index(name) / blocks for name in names
    ]
    assert len(names) > 15
