"""Loads published models: `reuse.KerasLayer`, `reuse.predict`."""

from __future__ import annotations

import typing


def __getattr__(name: str) -> typing.Any:
    """Returns `KerasLayer`; TensorFlow is imported on the first access."""
    if name != "KerasLayer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reuse import keras_layer

    return keras_layer.KerasLayer
