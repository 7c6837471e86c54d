"""Reads NumPy's `.npz` files, in which Google publishes weights of Flax.

A `.npz` file is a zip archive of arrays. An array of Python objects would be a pickle,
which is a program: such files are refused.

Source: `numpy/lib/format.py`; `u.save_checkpoint` of google-research/big_vision.
"""

from __future__ import annotations

import pathlib
import zipfile
import zlib

import ml_dtypes
import numpy as np

from zoo.weights import lazy_tensor

_MOST_ARRAYS = 100_000
_LARGEST_HEADER = 10_000  # bytes, of one array
_BFLOAT16 = np.dtype("V2")  # how NumPy writes the dtype that it does not know


class _Archive:
    """An open archive; `get_tensor` reads an array."""

    def __init__(self, path: pathlib.Path) -> None:
        self.file = np.load(path, allow_pickle=False)

    def get_tensor(self, name: str) -> np.ndarray:
        array = self.file[name]
        return array.view(ml_dtypes.bfloat16) if array.dtype == _BFLOAT16 else array


def is_npz(path: pathlib.Path) -> bool:
    """Returns whether a zip archive has nothing but arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def read(path: pathlib.Path) -> dict[str, lazy_tensor.Tensor]:
    """Opens a file without reading the values.

    Raises:
      ValueError: the file is damaged, or has arrays of Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) > _MOST_ARRAYS:
                raise ValueError(f"it has more than {_MOST_ARRAYS:,} arrays")
            headers = {name: _header(archive, name) for name in names}
        reader = _Archive(path)
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, ValueError),
        RuntimeError,  # an encrypted archive, or an unknown compression
    ) as error:
        raise ValueError(f"{path} is not a usable .npz file: {error}.") from error
    return {
        name.removesuffix(".npy"): lazy_tensor.Tensor(
            reader, name.removesuffix(".npy"), shape, dtype
        )
        for name, (shape, dtype) in headers.items()
    }


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Reads shape and dtype of an array.

    Raises:
      ValueError: the header is damaged, or the array has Python objects.
    """
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{name} has the unknown version {version}")
        shape, _, dtype = read_header(file, max_header_size=_LARGEST_HEADER)
    if dtype.hasobject:
        raise ValueError(f"{name} has Python objects, which could run code")
    return shape, np.dtype(ml_dtypes.bfloat16) if dtype == _BFLOAT16 else dtype
