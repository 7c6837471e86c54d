"""Tests that variable paths stay as they were, since users' weights files need them."""

import hashlib

import pytest

from tests.zoo import published, shapes

PINNED = published.table("PATHS")


@pytest.mark.slow_except(
    "mobilenet_v2",
    "mobilenet_v4_conv_small",
    "efficientnet_b0",
    "resnet_v1_18",
    "resnet_cifar_20",
)
@pytest.mark.parametrize("arch", PINNED)
def test_paths_are_as_they_were(arch):
    weights = shapes.build(arch).classifier.weights
    lines = sorted(f"{v.path} {tuple(v.shape)}\n" for v in weights)
    assert hashlib.sha256("".join(lines).encode()).hexdigest()[:32] == PINNED[arch], (
        lines
    )
