"""From a PyTorch state dict to the variables of a model of ours, by name.

A family's `names/*.json` files say what other projects call its layers. A row's
`ours` is a layer's path, in which `{block}` stands for every `stage_S_block_B`, and
`theirs` a module's name, in which `{index}` is that block's place in the network.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import pathlib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# kind of layer -> our variable -> their tensor, and the order of its axes in ours.
_KINDS: dict[str, dict[str, tuple[str, tuple[int, ...] | None]]] = {
    "conv": {"kernel": ("weight", (2, 3, 1, 0)), "bias": ("bias", None)},
    "depthwise": {"kernel": ("weight", (2, 3, 0, 1)), "bias": ("bias", None)},
    "dense": {"kernel": ("weight", (1, 0)), "bias": ("bias", None)},
    "norm": {
        "gamma": ("weight", None),
        "beta": ("bias", None),
        "moving_mean": ("running_mean", None),
        "moving_variance": ("running_var", None),
    },
}
_BLOCK = re.compile(r"^stage_\d+_block_\d+(?=_)")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a variable's value is: their tensor's name, and its axes in our order."""

    tensor: str
    axes: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """What an import would do; all lists hold names, sorted.

    Attributes:
      source: the project whose names they are.
      values: our variable path -> value, ready to assign.
      ignored: their tensors that no model needs.
      missing: variables of ours without a tensor.
      unused: tensors of theirs without a variable.
      mismatched: `path: ours [shape], theirs [shape]`.
    """

    source: str
    values: Mapping[str, np.ndarray]
    ignored: Sequence[str]
    missing: Sequence[str]
    unused: Sequence[str]
    mismatched: Sequence[str]

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unused or self.mismatched)

    def summary(self) -> str:
        """One line: the counts, and the first names of whatever is wrong."""
        parts = [f"{len(self.values)} matched", f"{len(self.ignored)} ignored"]
        for title in ("missing", "unused", "mismatched"):
            found = getattr(self, title)
            if found:
                shown = ", ".join(found[:4]) + (", …" if len(found) > 4 else "")
                parts.append(f"{len(found)} {title} ({shown})")
        return f"names of {self.source}: " + "; ".join(parts)


def match(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray],
    names_files: Iterable[pathlib.Path],
) -> Matching:
    """Matches `tensors` with the variables by the names file that fits best.

    Args:
      shapes: our variables' paths and shapes, in network order.
      tensors: their state dict.
      names_files: the family's names files.

    Raises:
      ValueError: the family has no names files.
    """
    matchings = [_match(shapes, tensors, path) for path in sorted(names_files)]
    if not matchings:
        raise ValueError("no PyTorch names are known for this family yet.")
    return max(matchings, key=lambda matching: len(matching.values))


def _match(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray],
    path: pathlib.Path,
) -> Matching:
    names = json.loads(path.read_text(encoding="utf-8"))
    origins = _origins(shapes, names["layers"])
    values, missing, mismatched, used = {}, [], [], set()
    for variable, shape in shapes.items():
        origin = origins.get(variable)
        if origin is None or origin.tensor not in tensors:
            missing.append(variable)
            continue
        used.add(origin.tensor)
        tensor = tensors[origin.tensor]
        fits = origin.axes is None or tensor.ndim == len(origin.axes)
        value = tensor.transpose(origin.axes) if origin.axes and fits else tensor
        if value.shape != tuple(shape):
            mismatched.append(f"{variable}: ours {list(shape)}, theirs {value.shape}")
        else:
            values[variable] = value
    rest = set(tensors) - used
    ignored = {n for n in rest if any(fnmatch.fnmatch(n, p) for p in names["ignored"])}
    return Matching(
        source=names["source"],
        values=values,
        ignored=sorted(ignored),
        missing=sorted(missing),
        unused=sorted(rest - ignored),
        mismatched=sorted(mismatched),
    )


def _origins(
    variables: Iterable[str], rows: Iterable[Mapping[str, typing.Any]]
) -> dict[str, Origin]:
    """Where each variable is to be found, for those whose layer has a row."""
    by_layer = {row["ours"]: row for row in rows}
    blocks: dict[str, int] = {}
    origins = {}
    for variable in variables:
        layer, _, leaf = variable.rpartition("/")
        block = _BLOCK.match(layer)
        if block:
            blocks.setdefault(block[0], len(blocks))
        row = by_layer.get(_BLOCK.sub("{block}", layer))
        if row is None or leaf not in _KINDS[row["kind"]]:
            continue
        index = blocks[block[0]] if block else ""
        tensor, axes = _KINDS[row["kind"]][leaf]
        origins[variable] = Origin(
            f"{row['theirs'].format(index=index)}.{tensor}", axes
        )
    return origins
