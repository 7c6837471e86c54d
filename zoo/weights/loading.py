"""Puts the values of a file into the variables of a model."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import safetensors
import safetensors.numpy

from zoo import config
from zoo.weights import pickled, torch_names


def load(arch: str, model: keras.Model, path: pathlib.Path) -> torch_names.Matching:
    """Reads `path` and assigns every variable of `model`.

    The kind of file is found from its bytes: safetensors, or a PyTorch state dict.

    Returns:
      What was matched and ignored.

    Raises:
      ValueError: the file is not readable, or a variable would be left without a
        value or a tensor without a variable, or a value is not finite. Nothing is
        assigned then.
    """
    variables = {variable.path: variable for variable in model.weights}
    tensors = read(path)
    names_files = (config.config_file(arch).parent.parent / "names").glob("*.json")
    shapes = {name: tuple(v.shape) for name, v in variables.items()}
    try:
        matching = torch_names.match(shapes, tensors, names_files)
        _check(matching)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {arch}: {error}") from error
    for name, value in matching.values.items():
        variables[name].assign(value)
    return matching


def read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    """The tensors of a file by their names in it."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        try:
            return safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, KeyError, OSError) as error:
            raise ValueError(
                f"{path} is not a usable safetensors file: {error}."
            ) from error
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return pickled.read(path)
    raise ValueError(f"{path} is neither a safetensors file nor a PyTorch state dict.")


def _check(matching: torch_names.Matching) -> None:
    if not matching.complete:
        raise ValueError(f"{matching.summary()}.")
    broken = _not_finite(matching.values.items())
    if broken:
        raise ValueError(f"{', '.join(broken[:4])} hold NaN or infinite values.")


def _not_finite(values: Iterable[tuple[str, np.ndarray]]) -> list[str]:
    return [name for name, value in values if not np.isfinite(value).all()]
