"""Tests the endpoints of every ResNet, and where its resolution halves."""

import numpy as np
import pytest

import zoo

# Heights of stem and stages for an image of 64×96 pixels, and the number of features.
HEIGHTS = {
    "resnet_v1_18": ([16, 16, 8, 4, 2], 512),
    "resnet_v1_50": ([16, 16, 8, 4, 2], 2048),
    "resnet_v1_5_50": ([16, 16, 8, 4, 2], 2048),
    "resnet_v2_50": (
        [16, 8, 4, 2, 2],
        2048,
    ),  # TF-Slim: the stride is in the last block
    "resnet_d_50": ([16, 16, 8, 4, 2], 2048),
    "resnet_rs_50": ([16, 16, 8, 4, 2], 2048),
    "resnext_50_32x4d": ([16, 16, 8, 4, 2], 2048),
    "wide_resnet_50_2": ([16, 16, 8, 4, 2], 2048),
    "se_resnet_50": ([16, 16, 8, 4, 2], 2048),
    "bit_r50x1": ([16, 16, 8, 4, 2], 2048),
    "bit_r50x3": ([16, 16, 8, 4, 2], 6144),
    "resnet_cifar_20": ([64, 64, 32, 16], 64),
}


@pytest.mark.slow_except("resnet_v1_18", "resnet_cifar_20")
@pytest.mark.parametrize("arch", HEIGHTS)
def test_endpoints_and_shapes(arch):
    heights, features = HEIGHTS[arch]
    stages = [f"stage_{number}" for number in range(1, len(heights))]
    model = zoo.build(arch)
    endpoints = model.backbone(np.zeros((2, 64, 96, 3), np.float32))
    assert list(endpoints) == ["stem", *stages, "feature_map", "feature_vector"]
    shapes = {name: tuple(tensor.shape) for name, tensor in endpoints.items()}
    map_sizes = [shapes[name][:3] for name in ("stem", *stages)]
    assert map_sizes == [(2, height, height * 3 // 2) for height in heights]
    assert shapes["feature_map"] == (*map_sizes[-1], features)
    assert shapes["feature_vector"] == (2, features)
    assert all(tensor.dtype == "float32" for tensor in endpoints.values())
