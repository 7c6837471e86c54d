"""Puts the values of a file into the variables of a model."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import safetensors
import safetensors.numpy

from zoo import config
from zoo.weights import pickled, registry, torch_names

_FLOATS = ("float64", "float32", "float16", "bfloat16")


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
        values = _checked(matching)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {arch}: {error}") from error
    for name, value in values.items():
        variables[name].assign(value)
    return matching


def read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    """The tensors of a file by their names in it.

    Raises:
      ValueError: it is no file of weights, or a damaged one.
    """
    if registry.kind(path) == "torch":
        return pickled.read(path)
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # a hostile file may raise anything
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} is not a usable safetensors file: {reason}."
        ) from error


def _checked(matching: torch_names.Matching) -> dict[str, np.ndarray]:
    """The values as float32, if all variables have one that can be meant."""
    if not matching.complete:
        raise ValueError(f"{matching.summary()}.")
    values = {}
    for name, value in matching.values.items():
        if value.dtype.name not in _FLOATS:
            raise ValueError(f"{name} would come from {value.dtype} values.")
        with np.errstate(over="ignore"):
            values[name] = value.astype(np.float32)
        if not np.isfinite(values[name]).all():
            raise ValueError(f"{name} would hold NaN or infinite values.")
        if name.endswith("/moving_variance") and values[name].min() < 0:
            raise ValueError(f"{name} would hold negative variances.")
    return values
