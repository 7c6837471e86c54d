"""Imports the packages that some tests compare with, or skips the test.

`tools/setup oracles` installs them.
"""

import pytest

from benchmarks import pytorch_speed

HOW = "tools/setup oracles"


def timm():
    """Returns the package timm, or skips the test if it is missing."""
    torchvision()  # timm imports it
    return pytest.importorskip("timm", reason=HOW)


def transformers():
    """Returns the package transformers, or skips the test if it is missing."""
    torchvision()  # transformers imports it
    return pytest.importorskip("transformers", reason=HOW)


def torchvision():
    """Returns the package torchvision, or skips the test if it is missing."""
    pytest.importorskip("torch", reason=HOW)
    with pytorch_speed.torchvision_without_operators():
        return pytest.importorskip("torchvision", reason=HOW)
