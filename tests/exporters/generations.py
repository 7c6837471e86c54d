"""An arch of every architecture generation."""

from tests.zoo import generations

# The smallest of each; of those whose head or attention is of another kind, too.
ARCHS = (
    *generations.smallest(),
    *("mobilenet_v3_large_minimalistic", "resnet_v1_5_50"),
)
