"""What every architecture's description has in common."""

from __future__ import annotations

import abc
import dataclasses
import typing

import keras

# Least and largest value of the fields that specs name alike.
RANGES = {
    "image_size": (1, 4096),
    "width_multiplier": (0.01, 8.0),
    "depth_multiplier": (0.01, 8.0),
    "drop_path_rate": (0.0, 1.0),
    "batch_norm_momentum": (0.0, 1.0),
    "batch_norm_epsilon": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec(abc.ABC):
    """A frozen description of a backbone; gin sets its fields.

    Args:
      image_size: default height and width of the input, pixels. Weights depend on
        it only through training: the layers accept other sizes too.
    """

    image_size: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in RANGES:
                name = f"{type(self).__name__}.{field.name}"
                check_range(name, getattr(self, field.name), *RANGES[field.name])

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """Makes the backbone with freshly initialised variables.

        Returns:
          A functional model from normalised images [B, H, W, 3] float32 to a dict
          of endpoints in data-flow order: `stem`, `stage_1` …, `feature_map`
          [B, h, w, C] and `feature_vector` [B, D], float32.
        """


def check_range(name: str, value: typing.Any, low: float, high: float) -> None:
    """Raises a ValueError unless `value` is a number in [low, high].

    Where `low` is an integer, so must the value be.
    """
    kinds = int if isinstance(low, int) else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        kind = "an integer" if kinds is int else "a number"
        raise ValueError(
            f"{name} must be {kind} in [{low}, {high}], not {str(value)[:80]!r}."
        )
