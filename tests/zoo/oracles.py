"""Imports the packages that some tests compare with, or skips the test.

`tools/setup oracles` installs them.
"""

import unittest.mock

import pytest

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
    """Returns the package torchvision, or skips the test if it is missing.

    torchvision has no Linux build without CUDA, and its C++ operators don't load beside
    a torch without CUDA. No classifier needs them, but the import fails where it
    registers their output shapes with torch. This function skips that registration.
    """
    torch = pytest.importorskip("torch", reason=HOW)
    register = torch.library.register_fake

    def register_others(operator, *args, **kwargs):
        if str(operator).startswith("torchvision::"):
            return lambda function: function
        return register(operator, *args, **kwargs)

    with unittest.mock.patch.object(torch.library, "register_fake", register_others):
        return pytest.importorskip("torchvision", reason=HOW)
