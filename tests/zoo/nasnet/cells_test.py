"""Tests endpoints, sizes, drop path and padding of NASNet and PNASNet.

Comparisons of imported models don't cover these.
"""

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import dropping
from zoo.nasnet import operations

SMALL_NASNET = [
    "NASNet.normal_cells = 1",
    "NASNet.feature_channels = 96",
    "NASNet.stem_channels = 8",
]
SMALL_PNASNET = [
    "PNASNet.cells_per_stage = 2",
    "PNASNet.channels = 8",
    "PNASNet.stem_channels = 8",
]
SMALL = {"nasnet_large": SMALL_NASNET, "pnasnet_5_large": SMALL_PNASNET}
# Heights of the endpoints for 96 pixels: (96 - 1) // 2, then halved and rounded up.
NASNET_HEIGHTS = {
    "stem": 47,
    "stage_1": 24,
    "Cell_0": 12,
    "stage_2": 12,
    "Reduction_Cell_0": 6,
    "Cell_1": 6,
    "stage_3": 6,
    "Reduction_Cell_1": 3,
    "Cell_2": 3,
    "stage_4": 3,
    "feature_map": 3,
}
PNASNET_HEIGHTS = {
    "stem": 47,
    "stage_1": 24,
    "Cell_0": 12,
    "Cell_1": 12,
    "stage_2": 12,
    "Cell_2": 6,
    "Cell_3": 6,
    "stage_3": 6,
    "Cell_4": 3,
    "Cell_5": 3,
    "stage_4": 3,
    "feature_map": 3,
}


def small(arch):
    return zoo.build(arch, gin_bindings=SMALL[arch])


@pytest.mark.ci_except("nasnet_large-heights0")
@pytest.mark.parametrize(
    ("arch", "heights"),
    [("nasnet_large", NASNET_HEIGHTS), ("pnasnet_5_large", PNASNET_HEIGHTS)],
)
def test_endpoints_and_shapes(arch, heights):
    model = small(arch)
    endpoints = model.backbone(np.zeros((2, 96, 64, 3), np.float32))
    features = endpoints.pop("feature_vector")
    assert {name: tensor.shape[1] for name, tensor in endpoints.items()} == heights
    assert list(endpoints) == list(heights)
    assert features.shape == (2, model.num_features)
    last = [name for name in heights if name.startswith("Cell_")][-1]
    np.testing.assert_array_equal(endpoints[last], endpoints["stage_4"])
    assert np.asarray(endpoints["feature_map"]).min() >= 0


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "largest", "cells"),
    [("nasnet_large", 0.3, 7), ("pnasnet_5_large", 0.4, 8)],
)
def test_the_rate_of_drop_path_grows_from_cell_to_cell(arch, largest, cells):
    """As in TF-Slim's `_apply_drop_path`, version 2: by layer, keeping 0.7 and 0.6."""
    rates = {
        layer.name.partition("_pair_")[0]: layer.rate
        for layer in small(arch).backbone.layers
        if isinstance(layer, dropping.DropPath)
    }
    ordered = [rates[name] for name in sorted(rates)]
    expected = [largest * number / cells for number in range(1, cells + 1)]
    np.testing.assert_allclose(ordered, expected)


def test_operations_are_dropped_and_identities_are_not():
    """Operations are dropped one by one: 8 in a normal cell, 9 in a reduction cell."""
    names = [
        layer.name
        for layer in small("nasnet_large").backbone.layers
        if isinstance(layer, dropping.DropPath)
    ]
    in_cells = [
        sum(name.startswith(f"stage_2_block_{block}_") for name in names)
        for block in (1, 2)
    ]
    assert in_cells == [9, 8]
    assert "stage_2_block_2_pair_3_right_drop_path" not in names


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (7, 8), (1, 2)])
def test_zeros_are_where_the_same_padding_pads(size):
    """With positive inputs, a padded zero is never the maximum: outputs agree."""
    images = np.random.default_rng(0).uniform(1, 2, (1, *size, 3)).astype("float32")
    padding = operations.SamePadding()
    padded = padding(images)
    assert padded.shape == padding.compute_output_shape(images.shape)
    actual = keras.layers.MaxPooling2D(3, 2, "valid")(padded)
    expected = keras.layers.MaxPooling2D(3, 2, "same")(images)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("nasnet_mobile", "NASNet.feature_channels = 1000", "multiple of 96, not 1000"),
        ("nasnet_mobile", "NASNet.stem_channels = 0", "stem_channels must be"),
        ("nasnet_mobile", "NASNet.normal_cells = 0", r"integer in \[1, 100\], not"),
        ("nasnet_mobile", "NASNet.zero_padded_pools = ('min',)", "max and average, no"),
        ("pnasnet_5_large", "PNASNet.channels = 100", "multiple of 8, not 100"),
        ("pnasnet_5_large", "PNASNet.cell = 1", "has no parameter 'cell'"),
    ],
)
def test_values_that_make_no_network_are_refused(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])
