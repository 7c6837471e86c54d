"""Reads the IDX files of Fashion-MNIST, compressed or not.

Source: arXiv:1708.07747; the format is that of MNIST (Yann LeCun's page): two bytes of
zero, the type, the number of dimensions, each dimension as a big-endian 32-bit integer,
and the values.
"""

from __future__ import annotations

import gzip
import pathlib
import struct
import zlib

import numpy as np

from training.data import split

_FILES = {
    split.TRAIN: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    split.TEST: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_BYTES = 0x08
_MAX_FILE = 1 << 30  # bytes


def open_split(folder: str, name: str, source: str) -> split.Split:
    """Reads the images and labels of a split.

    Raises:
      ValueError: a file is missing, or is not an IDX file.
    """
    images, labels = (_read(pathlib.Path(folder), file) for file in _FILES[name])
    if images.ndim != 3 or labels.ndim != 1:
        raise ValueError(
            f"{folder} must contain images [N, H, W] and labels [N], not arrays of "
            f"{images.ndim} and {labels.ndim} dimensions."
        )
    return split.pixel_split(
        images, labels, source=source, name=name, taxonomy="fashion_mnist"
    )


def _read(folder: pathlib.Path, file: str) -> np.ndarray:
    paths = [folder / f"{file}.gz", folder / file]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"{folder} has no {file}.gz: Debian's package dataset-fashion-mnist "
            "installs the four files in /usr/share/datasets/fashion-mnist."
        )
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as stream:
            data = stream.read(_MAX_FILE)
        zeros, kind, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
        if zeros or kind != _BYTES:
            raise ValueError("it has another header")
        return values.reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} is not a complete IDX file: {error}.") from error
