"""Base class of backbone specs, and type and range checks of gin parameters."""

from __future__ import annotations

import abc
import dataclasses
import typing
from collections.abc import Mapping

import keras

from zoo import head

# Smallest and largest value of the fields that several specs share.
RANGES = {
    "image_size": (1, 4096),
    "width_multiplier": (0.01, 8.0),
    "depth_multiplier": (0.01, 8.0),
    "drop_path_rate": (0.0, 1.0),
    "dropout_rate": (0.0, 0.999),
    "batch_norm_momentum": (0.0, 1.0),
    "batch_norm_epsilon": (0.0, 1.0),
    "se_ratio": (0.0, 1.0),
}
CHOICES = {
    "activation": ("relu", "relu6", "silu", "hard_silu", "hard_swish", "gelu", "elu"),
}
"""Allowed values of fields whose value is a name, by field."""
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "True or False"),
    "int": ((int,), "an integer"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec(abc.ABC):
    """Frozen description of a backbone; gin sets its fields.

    Args:
      image_size: default height and width of the input, pixels. If `takes_any_size`, it
        affects only training and evaluation: the layers accept other sizes too.
    """

    head_input: typing.ClassVar[str] = "feature_vector"
    """Endpoint [B, D] that the classification head reads."""
    takes_any_size: typing.ClassVar[bool] = True
    """Whether the layers accept images of other sizes than `image_size`."""

    image_size: int

    @property
    def is_head_normalised(self) -> bool:
        """Whether the head divides its input by its L2 norm first."""
        return False

    def __post_init__(self) -> None:
        check_types(self)
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__}.{field.name}"
            value = getattr(self, field.name)
            if field.name in RANGES and value is not None:
                check_range(name, value, *RANGES[field.name])
            if field.name in CHOICES and value not in CHOICES[field.name]:
                choices = ", ".join(CHOICES[field.name])
                raise ValueError(f"{name} must be one of {choices}, not {value!r}.")

    @property
    def only_size(self) -> int | None:
        """Height and width of the images that the layers accept; None if any works."""
        return None if self.takes_any_size else self.image_size

    @property
    def input_shape(self) -> tuple[int | None, int | None, int]:
        """Shape of the images that the layers accept; None stands for any size."""
        return self.only_size, self.only_size, 3

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """Builds the backbone with newly initialised variables.

        Returns:
          A functional model from normalised images of `input_shape` [B, H, W, 3]
          float32 to a dict of endpoints in data-flow order: `stem`, `stage_1` …,
          `feature_map` [B, h, w, C] and `feature_vector` [B, D], float32. Networks on
          patches have `patches` [B, h, w, C] and the tokens `block_1` … [B, T, C]
          instead of stem and stages; transformers also have `attention`
          [B, heads, T, T].
        """

    def build_head(
        self,
        endpoints: Mapping[str, keras.KerasTensor],
        *,
        num_classes: int,
        dropout_rate: float,
    ) -> keras.Model:
        """Builds the classification head: dropout -> dense on `head_input`.

        A spec overrides this if the head of its paper is another one.

        Args:
          endpoints: symbolic endpoints of the backbone.
          num_classes: number K of logits.
          dropout_rate: share of features dropped in training, in [0, 1).

        Returns:
          A functional model from one endpoint to logits [B, K], float32. Its input has
          the name of the endpoint, its variables are `logits/kernel` and `logits/bias`.
        """
        return head.build(
            endpoints[self.head_input].shape[-1],
            num_classes=num_classes,
            dropout_rate=dropout_rate,
            is_normalised=self.is_head_normalised,
            name=self.head_input,
        )


def check_types(instance: typing.Any, *, package: str = "") -> None:
    """Raises ValueError if a field of a dataclass does not have its annotated type.

    Args:
      instance: instance of a dataclass that gin configures.
      package: package name to put before the class name, such as `training`.
    """
    prefix = f"{package}." if package else ""
    for field in dataclasses.fields(instance):
        name = f"{prefix}{type(instance).__name__}.{field.name}"
        check_type(name, getattr(instance, field.name), str(field.type))


def check_type(name: str, value: typing.Any, annotation: str) -> None:
    """Raises ValueError unless `value` has the annotated type.

    Checked are `bool`, `int`, `float`, `str`, and `tuple[T, T]` or `tuple[T, ...]` of
    one of these, each also with `| None`; other annotations accept every value.
    """
    annotation, _, none = annotation.partition(" | ")
    if none == "None" and value is None:
        return
    if annotation.startswith("tuple["):
        _check_tuple(name, value, annotation.removeprefix("tuple[").removesuffix("]"))
        return
    if annotation not in _TYPES:
        return
    types, description = _TYPES[annotation]
    is_unexpected_bool = isinstance(value, bool) and annotation != "bool"
    if not isinstance(value, types) or is_unexpected_bool:
        raise ValueError(f"{name} must be {description}, not {value!r:.80}.")


def _check_tuple(name: str, value: typing.Any, annotations: str) -> None:
    """Raises ValueError unless `value` is a tuple[`annotations`]."""
    first, *others = annotations.split(", ")
    if first not in _TYPES or {*others} - {first, "..."}:
        return
    count = "two" if others == [first] else "any number of"
    if not isinstance(value, tuple) or (count == "two" and len(value) != 2):
        raise ValueError(
            f"{name} must be a tuple of {count} values, not {value!r:.80}."
        )
    for element in value:
        check_type(name, element, first)


def check_range(name: str, value: typing.Any, low: float, high: float) -> None:
    """Raises ValueError unless `value` is a number in [low, high].

    If `low` is an integer, `value` must be an integer too.
    """
    types = int if isinstance(low, int) else (int, float)
    is_number = isinstance(value, types) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        description = "an integer" if types is int else "a number"
        raise ValueError(
            f"{name} must be {description} in [{low}, {high}], not {value!r:.80}."
        )
