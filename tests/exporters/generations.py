"""One arch for each architecture generation."""

from tests.zoo import generations

# The smallest of each, and the archs with another kind of head or attention.
ARCHS = (
    *generations.smallest(),
    *("mobilenet_v3_large_minimalistic", "resnet_v1_5_50"),
)
