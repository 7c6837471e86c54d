"""Packages that some tests compare with; `tools/setup oracles` installs them."""

import unittest.mock

import pytest

HOW = "tools/setup oracles"


def timm():
    """The package timm; skips the test where it is missing."""
    torchvision()  # timm imports it
    return pytest.importorskip("timm", reason=HOW)


def transformers():
    """The package transformers; skips the test where it is missing."""
    torchvision()  # transformers imports it
    return pytest.importorskip("transformers", reason=HOW)


def torchvision():
    """The package torchvision; skips the test where it is missing.

    There is no build of it without CUDA for Linux, and beside a torch without CUDA its
    operators in C++ don't load. No classifier needs them; but the import fails where it
    tells torch the shapes that they give, which is left out here.
    """
    torch = pytest.importorskip("torch", reason=HOW)
    register = torch.library.register_fake

    def register_others(operator, *args, **kwargs):
        if str(operator).startswith("torchvision::"):
            return lambda function: function
        return register(operator, *args, **kwargs)

    with unittest.mock.patch.object(torch.library, "register_fake", register_others):
        return pytest.importorskip("torchvision", reason=HOW)
