"""For those who load published models: `reuse.KerasLayer`, `reuse.predict`."""

from __future__ import annotations

import typing


def __getattr__(name: str) -> typing.Any:
    """`KerasLayer`; until it is asked for, no TensorFlow is imported."""
    if name != "KerasLayer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reuse import keras_layer

    return keras_layer.KerasLayer
