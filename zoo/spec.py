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
    "se_ratio": (0.0, 1.0),
}
CHOICES = {
    "activation": ("relu", "relu6", "silu", "hard_silu", "hard_swish", "gelu", "elu"),
}
"""What they may be, where they are names."""
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "True or False"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
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
        check_kinds(self)
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__}.{field.name}"
            value = getattr(self, field.name)
            if field.name in RANGES and value is not None:
                check_range(name, value, *RANGES[field.name])
            if field.name in CHOICES and value not in CHOICES[field.name]:
                choices = ", ".join(CHOICES[field.name])
                raise ValueError(f"{name} must be one of {choices}, not {value!r}.")

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """Makes the backbone with freshly initialised variables.

        Returns:
          A functional model from normalised images [B, H, W, 3] float32 to a dict
          of endpoints in data-flow order: `stem`, `stage_1` …, `feature_map`
          [B, h, w, C] and `feature_vector` [B, D], float32.
        """


def check_kinds(bound: typing.Any, *, room: str = "") -> None:
    """Raises a ValueError where a field of a dataclass is of another kind than it says.

    Args:
      bound: an object of a dataclass that gin fills.
      room: before its name, such as `training`.
    """
    prefix = f"{room}." if room else ""
    for field in dataclasses.fields(bound):
        name = f"{prefix}{type(bound).__name__}.{field.name}"
        check_kind(name, getattr(bound, field.name), str(field.type))


def check_kind(name: str, value: typing.Any, kind: str) -> None:
    """Raises a ValueError unless `value` is of the kind that an annotation names.

    Other kinds than `bool`, `int`, `float` and `str`, tuples of them, or those and
    `None`, are let through.
    """
    kind, _, none = kind.partition(" | ")
    if kind.startswith("tuple["):
        _check_tuple(name, value, kind.removeprefix("tuple[").removesuffix("]"))
        return
    if kind not in _KINDS or (none == "None" and value is None):
        return
    types, says = _KINDS[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} must be {says}, not {str(value)[:80]!r}.")


def _check_tuple(name: str, value: typing.Any, kinds: str) -> None:
    first, *others = kinds.split(", ")
    if first not in _KINDS or {*others} - {first, "..."}:
        return
    count = "two" if others == [first] else "any number of"
    if not isinstance(value, tuple) or (count == "two" and len(value) != 2):
        raise ValueError(
            f"{name} must be a tuple of {count} values, not {str(value)[:80]!r}."
        )
    for each in value:
        check_kind(name, each, first)


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
