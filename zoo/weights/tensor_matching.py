"""Matches the tensors of a file with the variables of a model."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from zoo.weights import layer_names, names

OURS = "this project"
"""Source of tensors that have the names of this project's variables."""
# Without a scale, the indices of batch norm's other variables are smaller by one.
_WITHOUT_GAMMA = {"/1": "/0", "/2": "/1", "/3": "/2"}
# Rank of a PyTorch kernel -> transposition to TensorFlow's order of axes.
_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_TORCH_DEPTHWISE_AXES = (2, 3, 0, 1)


@dataclasses.dataclass(frozen=True)
class TensorSource:
    """The tensor that holds a variable's value, and how to convert it."""

    tensor: str
    shape: tuple[int, ...] | None = None  # to give the tensor first
    axes: tuple[int, ...] | None = None  # transposition of the tensor
    reversed_inputs: bool = False  # whether to reverse axis 2 after that
    bias: str | None = None  # a tensor to subtract from the value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """The tensors of a file matched with the variables of a model; lists are sorted.

    Attributes:
      source: the project that named the tensors.
      origins: variable path -> tensor that holds its value, for matching shapes.
      folded: biases that are folded into batch norms.
      ignored: tensors that no model needs.
      missing: variables without a tensor.
      unused: tensors without a variable.
      mismatched: variables with a tensor of another shape, or with a tensor that
        matches a second variable, and the reason: `path: reason`.
    """

    source: str
    origins: Mapping[str, TensorSource]
    folded: Sequence[str]
    ignored: Sequence[str]
    missing: Sequence[str]
    unused: Sequence[str]
    mismatched: Sequence[str]

    @property
    def lacks_head(self) -> bool:
        """Whether all variables of the head, and no others, lack tensors."""

        def is_head(path: str) -> bool:
            return path.partition("/")[0] == names.HEAD

        matched = [*self.origins, *(text.partition(":")[0] for text in self.mismatched)]
        return (
            bool(self.missing and matched)
            and all(map(is_head, self.missing))
            and not any(map(is_head, matched))
        )

    @property
    def complete(self) -> bool:
        """Whether all tensors are used and all variables outside the head have one.

        The head's variables must all have one too, or none of them.
        """
        if self.unused or self.mismatched:
            return False
        return not self.missing or self.lacks_head

    def summary(self) -> str:
        """Returns one line with the counts and the first names of each problem."""
        parts = [f"{len(self.origins)} matched"]
        for title in ("folded", "ignored"):
            if getattr(self, title):
                parts.append(f"{len(getattr(self, title))} {title}")
        for title in ("missing", "unused", "mismatched"):
            problems = getattr(self, title)
            if problems:
                shown = ", ".join(problems[:8]) + (", …" if len(problems) > 8 else "")
                parts.append(f"{len(problems)} {title} ({shown})")
        return f"names of {self.source}: " + "; ".join(parts)


def match(
    table: names.Table, shapes: Mapping[str, tuple[int, ...]], tensors: names.Tensors
) -> Matching:
    """Matches `tensors` with the variables by a table's names.

    Args:
      table: table of the project that wrote the tensors.
      shapes: paths and shapes of this project's variables, in network order.
      tensors: the tensors by name.
    """
    their_names = names.unscoped(tensors, table)
    replaced = set()
    if "averages" in table:
        suffix = f"/{table['averages']}"
        averages = {
            n.removesuffix(suffix): n for n in their_names if n.endswith(suffix)
        }
        replaced = {their_names[n] for n in averages if n in their_names}
        their_names |= {n: their_names[average] for n, average in averages.items()}
    origins = _tensor_sources(table, shapes, their_names, tensors)
    ignored = [*table["ignored"], *map(glob.escape, replaced)]
    return _matching(table["source"], ignored, origins, shapes, tensors)


def match_ours(
    shapes: Mapping[str, tuple[int, ...]],
    tensors: names.Tensors,
    *,
    ignored: Sequence[str],
) -> Matching:
    """Matches tensors that have the names of this project's variables."""
    origins = {path: TensorSource(path) for path in shapes if path in tensors}
    return _matching(OURS, ignored, origins, shapes, tensors)


def value(tensors: names.Tensors, origin: TensorSource) -> np.ndarray:
    """Returns the value of a variable; that of a 1 × 1 kernel may have rank 2 or 4."""
    array = np.asarray(tensors[origin.tensor])
    if origin.shape:
        array = array.reshape(origin.shape)
    if origin.axes:
        array = array.transpose(origin.axes)
    if origin.reversed_inputs:
        array = array[:, :, ::-1]
    if origin.bias is not None:
        array = array - np.asarray(tensors[origin.bias])
    return array


def _matching(
    source: str,
    patterns: Sequence[str],
    origins: Mapping[str, TensorSource],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: names.Tensors,
) -> Matching:
    matched, mismatched = {}, []
    uses = collections.Counter(origin.tensor for origin in origins.values())
    for path, origin in origins.items():
        # If the tensor of a row is missing, a later row may match another row's tensor.
        if uses[origin.tensor] > 1:
            mismatched.append(f"{path}: {origin.tensor} matches another variable too")
            continue
        shape, expected = _shape(tensors, origin), shapes[path]
        bias_shape = tuple(tensors[origin.bias].shape) if origin.bias else expected
        fits = _without_ones(shape) == _without_ones(expected)
        if not fits or bias_shape != tuple(expected):
            mismatched.append(f"{path}: expected {list(expected)}, file has {shape}")
        else:
            matched[path] = origin
    folded = {origin.bias for origin in origins.values() if origin.bias}
    used = {origin.tensor for origin in origins.values()} | folded
    rest = set(tensors) - used
    ignored = {n for n in rest if any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    return Matching(
        source=source,
        origins=matched,
        folded=sorted(folded),
        ignored=sorted(ignored),
        missing=sorted(set(shapes) - set(origins)),
        unused=sorted(rest - ignored),
        mismatched=sorted(mismatched),
    )


def _shape(tensors: names.Tensors, origin: TensorSource) -> list[int]:
    """Returns the shape of a value, in TensorFlow's order of axes."""
    shape = list(origin.shape or tensors[origin.tensor].shape)
    return [shape[axis] for axis in origin.axes] if origin.axes else shape


def _without_ones(shape: Iterable[int]) -> list[int]:
    """Returns a shape; for a 1 × 1 convolution that of the equivalent dense kernel."""
    shape = list(shape)
    return shape[2:] if len(shape) == 4 and shape[:2] == [1, 1] else shape


def _tensor_sources(
    table: names.Table,
    shapes: Mapping[str, tuple[int, ...]],
    their_names: Mapping[str, str],
    tensors: names.Tensors,
) -> dict[str, TensorSource]:
    """Returns the tensor of each variable that has one, and how to convert it."""
    suffixes = names.SUFFIXES[table["framework"]]
    fields = layer_names.fields(shapes)
    for block, values in fields.items():
        values["name"] = layer_names.block_name(table, block, values)
    # Block name -> names of its parts, and its stage.
    parts: dict[str, set[str]] = collections.defaultdict(set)
    for path in shapes:
        block_match = layer_names.BLOCK.match(path)
        if block_match:
            part = path[block_match.end() + 1 :].partition("/")[0]
            parts[block_match[0]] |= {part, f"stage_{block_match[1]}"}
    numbered = layer_names.numbered(table, shapes, their_names)

    def find(template: str, ends: Iterable[str], block: str) -> str | None:
        layer = template.format_map(fields[block])
        candidates = (layer + end for end in ends)
        return next(
            (their_names[name] for name in candidates if name in their_names), None
        )

    origins = {}
    for path in shapes:
        layer, _, leaf = path.rpartition("/")
        block_match = layer_names.BLOCK.match(layer)
        block = block_match[0] if block_match else ""
        ends = suffixes[leaf]
        if f"{layer}/moving_mean" in shapes and f"{layer}/gamma" not in shapes:
            ends = tuple(_WITHOUT_GAMMA.get(end, end) for end in ends)
        rows = _rows(table, layer, block, parts[block])
        if layer in numbered:
            rows = iter([{"theirs": numbered[layer]}])
        for row in rows:
            is_second = leaf == "kernel" and "pointwise" in row
            tensor = find(row["theirs"], names.POINTWISE if is_second else ends, block)
            if tensor is not None:
                break
        else:
            continue
        is_torch, axes = table["framework"] == "torch", None
        shape = _unflattened(tensors[tensor].shape, shapes[path], is_torch=is_torch)
        if is_torch:
            axes = _TORCH_AXES.get(len(shape or tensors[tensor].shape))
            if row.get("depthwise") and axes:
                axes = _TORCH_DEPTHWISE_AXES
        folds = "folds" in row and leaf == "moving_mean"
        origins[path] = TensorSource(
            tensor,
            shape=shape,
            axes=axes,
            reversed_inputs=leaf == "kernel" and "bgr" in row,
            bias=find(row["folds"], suffixes["bias"], block) if folds else None,
        )
    return origins


def _unflattened(
    shape: Sequence[int], expected: Sequence[int], *, is_torch: bool
) -> tuple[int, ...] | None:
    """Returns the shape of a convolution kernel that a dense layer's kernel flattens.

    A dense layer on a flattened feature map equals a convolution with the map's size.
    PyTorch flattens [C, h, w], and its kernel has the outputs first.

    Args:
      shape: of the tensor.
      expected: shape of the variable, [h, w, C, N] if it is such a convolution.
      is_torch: whether PyTorch flattened the kernel.

    Returns:
      The shape before PyTorch's or TensorFlow's kernel was flattened; None if the
      tensor is not a flattened kernel of the expected size.
    """
    if len(shape) != 2 or len(expected) != 4 or tuple(expected[:2]) == (1, 1):
        return None
    height, width, channels, outputs = expected
    flat = height * width * channels
    if is_torch:
        return (
            (outputs, channels, height, width)
            if tuple(shape) == (outputs, flat)
            else None
        )
    return tuple(expected) if tuple(shape) == (flat, outputs) else None


def _rows(
    table: names.Table, layer: str, block: str, parts: set[str]
) -> Iterator[names.Table]:
    """Yields the rows that apply to a layer of this project."""
    general = "{block}" + layer.removeprefix(block) if block else layer
    for row in table["layers"]:
        conditions = row.get("if", ())
        holds = all((c.lstrip("!") in parts) != c.startswith("!") for c in conditions)
        if row["ours"] in (layer, general) and holds:
            yield row
