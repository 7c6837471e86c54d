"""Packages that some tests compare with; `tools/setup oracles` installs them."""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

import pytest

HOW = "tools/setup oracles"


def timm():
    """The package timm, with torch behind it; skips the test where either is missing.

    timm imports torchvision, which its models do not need, and of which there is no
    build without CUDA for Linux: where it is missing, a hollow one stands in for it
    during the import, and leaves no trace.
    """
    pytest.importorskip("torch", reason=HOW)
    with _torchvision():
        return pytest.importorskip("timm", reason=HOW)


@contextlib.contextmanager
def _torchvision():
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    finder = _HollowFinder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


class _HollowFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Hollow(spec.name)

    def exec_module(self, module):
        pass


class _Hollow(types.ModuleType):
    """A module with a class of every name, each with attributes of every name."""

    def __getattr__(self, name):
        return _Anything(name, (), {}) if not name.startswith("__") else _refuse(name)


class _Anything(type):
    def __getattr__(cls, name):
        return _Anything(name, (), {}) if not name.startswith("__") else _refuse(name)


def _refuse(name):
    raise AttributeError(name)
