"""Image models as SavedModels: the package by which other projects import this one.

`zoo`, `reuse`, `images` … are plain names in a checkout, and too plain for everybody's
site-packages. In an installation these packages therefore lie in this folder. In a
checkout they lie next to it, and `image_model_zoo.reuse` is the same module as `reuse`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import pathlib
import sys
import types
from collections.abc import Sequence
from importlib import machinery


class _CheckoutFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `image_model_zoo.NAME` as the module `NAME` of the checkout."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != __name__ or name in ("", "__main__"):
            return None
        real_spec = importlib.util.find_spec(name)
        if real_spec is None:
            return None
        spec = machinery.ModuleSpec(fullname, self, origin=real_spec.origin)
        spec.submodule_search_locations = real_spec.submodule_search_locations
        return spec

    def create_module(self, spec: machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(name.partition(".")[2])


if not pathlib.Path(__file__).with_name("zoo").is_dir():
    sys.meta_path.insert(0, _CheckoutFinder())
