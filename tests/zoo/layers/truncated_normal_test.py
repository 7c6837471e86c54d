"""Tests the initial values of kernels, gammas and layer scales."""

import hashlib
import itertools

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import truncated_normal


@pytest.mark.ci
def test_kernels_of_one_shape_begin_different():
    by_shape = {}
    for variable in zoo.build("efficientnet_b1", seed=0).backbone.weights:
        if variable.path.endswith("/kernel"):
            value = keras.ops.convert_to_numpy(variable)
            by_shape.setdefault(value.shape, []).append(value)
    pairs = [
        pair
        for kernels in by_shape.values()
        for pair in itertools.combinations(kernels, 2)
    ]
    assert len(pairs) > 50
    assert not any(np.array_equal(*pair) for pair in pairs)


def test_truncated_normal_follows_its_distribution():
    import scipy.stats

    draw = truncated_normal.TruncatedNormal(mean=0.5, stddev=0.09, seed=3)((300, 400))
    values = keras.ops.convert_to_numpy(draw).astype(np.float64).ravel()
    assert np.abs(values - 0.5).max() <= 0.18 + 1e-6
    expected = scipy.stats.truncnorm(-2, 2, loc=0.5, scale=0.09)
    assert scipy.stats.kstest(values, expected.cdf).pvalue > 0.01
    assert scipy.stats.kstest(values, scipy.stats.norm(0.5, 0.09).cdf).pvalue < 1e-6


def test_a_seed_gives_the_same_bits_on_every_processor():
    """Exports of random weights then have the same hashes everywhere."""
    draw = truncated_normal.TruncatedNormal(stddev=0.09, seed=3)((300, 400))
    values = keras.ops.convert_to_numpy(draw)
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == "9fd62550d4dba070"


def test_the_inverse_error_function_is_one():
    import scipy.special

    x = np.linspace(-1, 1, 200_001)[1:-1] * truncated_normal.WITHIN_TWO
    values = truncated_normal._erfinv(x.astype(np.float32))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, scipy.special.erfinv(x), rtol=3e-5)
    assert np.sqrt(2) * values.max() <= 2


# arch -> a kernel's path, the variance of its initial values by the kernel's shape, and
# the distribution: from the initialisers of TF-Slim and the TPU code, and from papers.
# `uniform` ends at √3 deviations.
VARIANCES = {
    "mobilenet_v1": ("stage_5_block_2_pointwise", lambda k: 0.09**2, "truncated"),
    "mobilenet_v2": ("feature_map", lambda k: 0.09**2, "truncated"),
    "mobilenet_v3_large": ("stage_6_block_3_expand", lambda k: 0.09**2, "truncated"),
    "mobilenet_v4_conv_small": ("feature_map", lambda k: 1 / k[2], "fan"),
    "resnet_v1_50": ("stage_4_block_2_middle", lambda k: 2 / (9 * k[3]), "uniform"),
    "resnet_v2_50": ("stage_4_block_2_middle", lambda k: 2 / (9 * k[2]), "uniform"),
    "resnet_d_50": (
        "stage_4_block_2_middle",
        lambda k: 2 / 9 / (k[2] + k[3]),
        "uniform",
    ),
    "resnet_rs_50": ("stage_4_block_2_middle", lambda k: 1 / (9 * k[2]), "uniform"),
    "resnet_cifar_20": ("stage_3_block_2_conv_1", lambda k: 2 / (9 * k[3]), "uniform"),
    "efficientnet_b0": ("feature_map", lambda k: 2 / k[3], "normal"),
    "efficientnet_lite0": ("feature_map", lambda k: 2 / k[3], "normal"),
    "efficientnet_v2_b0": ("feature_map", lambda k: 2 / k[3], "normal"),
}


@pytest.mark.slow_except(
    "mobilenet_v2", "mobilenet_v4_conv_small", "resnet_cifar_20", "efficientnet_b0"
)
@pytest.mark.parametrize("arch", VARIANCES)
def test_kernels_begin_as_published(arch):
    layer, variance, kind = VARIANCES[arch]
    weights = {v.path: v for v in zoo.build(arch, seed=0).backbone.weights}
    kernel = keras.ops.convert_to_numpy(weights[f"{layer}/conv/kernel"])
    expected = np.sqrt(variance(kernel.shape))
    # A normal distribution cut off at two deviations keeps 0.88 of its deviation.
    scale = 0.8796 if kind == "truncated" else 1.0
    assert kernel.std() == pytest.approx(expected * scale, rel=0.03)
    bounds = {"truncated": 2, "fan": 2 / 0.8796, "uniform": 3**0.5, "normal": 8}
    assert np.abs(kernel).max() <= bounds[kind] * expected * 1.001


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "zeros"),
    [
        ("resnet_v1_50", 0),
        ("resnet_v1_5_50", 0),
        ("resnet_d_50", 16),
        ("resnet_rs_50", 16),
    ],
)
def test_residual_branches_begin_as_published(arch, zeros):
    """In ResNet-D and RS, the last gamma of each of the 16 blocks starts at zero."""
    gammas = [v for v in zoo.build(arch).backbone.weights if v.path.endswith("/gamma")]
    values = [keras.ops.convert_to_numpy(v) for v in gammas]
    assert sum(not value.any() for value in values) == zeros
    assert all((value == value[0]).all() and value[0] in (0, 1) for value in values)
    ends = {v.path for v, value in zip(gammas, values, strict=True) if not value.any()}
    assert all(path.endswith("_expand/norm/gamma") for path in ends)


def test_layer_scales_begin_small():
    weights = zoo.build("mobilenet_v4_hybrid_medium").backbone.weights
    scales = [v for v in weights if "layer_scale/gamma" in v.path]
    assert scales
    assert all(
        (keras.ops.convert_to_numpy(v) == np.float32(1e-5)).all() for v in scales
    )
