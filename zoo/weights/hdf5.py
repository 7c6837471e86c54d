"""Reads Keras weights files: `.weights.h5` of Keras 3, and `.h5` of older versions.

A file is untrusted: links to other files are refused, and values are read only once
their shapes are known to match. Source: `keras/src/saving/saving_lib.py` (`H5IOStore`)
and `keras/src/legacy/saving/legacy_h5_format.py`.
"""

from __future__ import annotations

import collections
import pathlib
import re
import typing

import h5py

_MOST_OBJECTS = 100_000
_DEEPEST = 50  # levels of nested groups
_UNNAMED = re.compile(r"^variable_\d+$")
_FILTERS = (1, 2, 3)  # deflate, shuffle, checksums; others run code of plug-ins


def read(path: pathlib.Path) -> dict[str, typing.Any]:
    """Returns the tensors of a file by name, without reading their values.

    The names are `LAYER/WEIGHT`, or `LAYER/INDEX` in files of Keras 3.

    Raises:
      ValueError: the file is damaged, or refers to another file.
    """
    try:
        file = h5py.File(path, "r")
        _check(file)
        if "model_weights" in file:  # a whole model of Keras 2
            return _legacy(file["model_weights"])
        if "layer_names" in file.attrs or "layer_names0" in file.attrs:
            return _legacy(file)
        return _by_layer(file)
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a usable HDF5 file: {reason}.") from error


def _check(file: h5py.File) -> None:
    """Raises OSError unless the file has only plain groups and datasets."""
    groups, count, seen = [(file, 0)], 0, set()
    while groups:
        group, depth = groups.pop()
        if depth > _DEEPEST:
            raise OSError(f"groups more than {_DEEPEST} deep")
        if group.id in seen:
            raise OSError("a group that contains itself")
        seen.add(group.id)
        for name in group:
            count += 1
            if count > _MOST_OBJECTS:
                raise OSError(f"more than {_MOST_OBJECTS} entries")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise OSError(f"{name!r} is a link, maybe to another file")
            child = group[name]
            if isinstance(child, h5py.Group):
                groups.append((child, depth + 1))
            elif not isinstance(child, h5py.Dataset) or child.shape is None:
                raise OSError(f"{name!r} has no values")
            elif child.external or child.is_virtual:
                raise OSError(f"{name!r} has its values in another file")
            elif not set(_filters(child)) <= set(_FILTERS):
                raise OSError(f"{name!r} has a compression that Keras does not use")


def _filters(dataset: h5py.Dataset) -> list[int]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]


def _add(tensors: dict[str, typing.Any], name: str, value: typing.Any) -> None:
    """Adds a dataset; raises OSError for a second one of this name, or a group."""
    if name in tensors or not isinstance(value, h5py.Dataset):
        raise OSError(f"{name!r} occurs twice, or has no values")
    tensors[name] = value


def _legacy(root: h5py.Group) -> dict[str, typing.Any]:
    """Reads the older layout: a group for each layer, with the names of its weights."""
    tensors: dict[str, typing.Any] = {}
    for layer in _texts(root, "layer_names"):
        names = _texts(root[layer], "weight_names")
        leaves = collections.Counter(name.rpartition("/")[2] for name in names)
        for name in names:
            leaf = name.rpartition("/")[2]
            # The weights of a nested model need the full path. Keras counts variables
            # without a name: `variable_17`.
            unnumbered = _UNNAMED.sub("variable", leaf)
            short = f"{layer}/{unnumbered}" if leaves[leaf] == 1 else name
            _add(tensors, short.removesuffix(":0"), root[layer][name])
    return tensors


def _texts(group: h5py.Group, name: str) -> list[str]:
    """Returns an attribute's strings, which may be split into `NAME0`, `NAME1`, …."""
    values = list(group.attrs.get(name, ()))
    chunk = 0
    while f"{name}{chunk}" in group.attrs:
        values += list(group.attrs[f"{name}{chunk}"])
        chunk += 1
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _by_layer(file: h5py.File) -> dict[str, typing.Any]:
    """Reads Keras 3's layout: groups with the layer's name and numbered weights."""
    tensors: dict[str, typing.Any] = {}

    def visit(name: str, group: typing.Any) -> None:
        if name.rpartition("/")[2] != "vars" or not isinstance(group, h5py.Group):
            return
        if not len(group):
            return
        if "name" not in group.attrs:
            raise KeyError(f"{name} has no attribute with the name of its layer")
        for index in group:
            _add(tensors, f"{group.attrs['name']}/{index}", group[index])

    file.visititems(visit)
    if not tensors:
        raise KeyError("it has no Keras weights")
    return tensors
