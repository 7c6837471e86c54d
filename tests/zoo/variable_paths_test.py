"""Variable paths are the contract of weights files: a change breaks users' files."""

import hashlib

import pytest

import zoo

# First 32 hex digits of the SHA-256 over the classifier's sorted `path shape` lines.
PINNED = {
    "mobilenet_v1": "34d72f9bfcd7a90e3cea0794d80429eb",
    "mobilenet_v2": "32bb3cab9904e0044edd477483dc8b67",
    "mobilenet_v3_large": "58383ef6f803339986c68a6e1d489586",
    "mobilenet_v3_small_minimalistic": "8d1fe5b78518b8f385c1b35c0e00e2c3",
    "mobilenet_v4_conv_small": "686f60eea1cc92034b5888d76e12be9c",
    "mobilenet_v4_conv_large": "e1420802d76233c74af011794537b566",
    "mobilenet_v4_hybrid_medium": "8b0567877d643bd5b50cd7e8a77351d1",
    "efficientnet_lite0": "11092df630d526e4090a7f6f6ec6ad5d",
    "efficientnet_b0": "d50442f6be2404bdf5b370f917e7005c",
    "efficientnet_v2_b0": "a662efa7f0a8a34675501068e629d754",
    "efficientnet_v2_s": "1cc1f82d3e8e7a6612d1588971cd09b9",
    "resnet_v1_18": "25dbb47b8423c163cec72f61ef4bf7e8",
    "resnet_v1_50": "8e3533233020fe90e55bb7f8d35778d4",
    "resnet_v2_50": "8fd006012a79ffb298217a8fec4422e8",
    "resnet_d_50": "39ac7a28db136a16858c94cea1abb010",
    "resnet_rs_50": "0cdee9598b06924ea76e9b1a9996593b",
    "resnet_cifar_20": "f275706614f5ee05033d0faafb2f1a90",
}


@pytest.mark.slow_except(
    "mobilenet_v2",
    "mobilenet_v4_conv_small",
    "efficientnet_b0",
    "resnet_v1_18",
    "resnet_cifar_20",
)
@pytest.mark.parametrize("arch", PINNED)
def test_paths_are_as_they_were(arch):
    weights = zoo.build(arch).classifier.weights
    lines = sorted(f"{v.path} {tuple(v.shape)}\n" for v in weights)
    assert hashlib.sha256("".join(lines).encode()).hexdigest()[:32] == PINNED[arch], (
        lines
    )
