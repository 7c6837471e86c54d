"""Matches the tensors of a file with the variables of a model."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import fractions
import glob
import itertools
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import numpy as np

from zoo.weights import layer_names, names

OURS = "this project"
"""Source of tensors that have the names of this project's variables."""
# Without a scale, the indices of batch norm's other variables are smaller by one.
_WITHOUT_GAMMA = {"/1": "/0", "/2": "/1", "/3": "/2"}
# Rank of a PyTorch kernel -> transposition to TensorFlow's order of axes.
_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
# The same of a depthwise kernel: PyTorch's, or that of a grouped convolution in Keras.
_DEPTHWISE_AXES = {"torch": (2, 3, 0, 1), "tensorflow": (0, 1, 3, 2)}


@dataclasses.dataclass(frozen=True)
class TensorSource:
    """The tensor that holds a variable's value, and how to convert it."""

    tensor: str
    others: tuple[str, ...] = ()  # tensors to append on the last axis
    index: int | None = None  # on axis 0 of tensors that stack those of all blocks
    blocks: int = 0  # number of blocks that such a tensor must have
    rows: slice | None = None  # after leading axes of size 1
    shape: tuple[int, ...] | None = None  # to give each tensor after that
    axes: tuple[int, ...] | None = None  # transposition of the tensor
    reversed_axis: int | None = None  # of the value
    bias: str | None = None  # a tensor to subtract from the value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """The tensors of a file matched with the variables of a model; lists are sorted.

    Attributes:
      source: the project that named the tensors.
      origins: variable path -> tensor that holds its value, for matching shapes.
      folded: biases that are folded into batch norms.
      zeros: variables without a tensor, whose value is zero.
      ignored: tensors that no model needs.
      missing: variables without a tensor.
      unused: tensors without a variable.
      mismatched: variables with a tensor of another shape, or with a tensor that
        matches a second variable, and the reason: `path: reason`.
    """

    source: str
    origins: Mapping[str, TensorSource]
    folded: Sequence[str]
    zeros: Sequence[str]
    ignored: Sequence[str]
    missing: Sequence[str]
    unused: Sequence[str]
    mismatched: Sequence[str]

    @property
    def lacks_head(self) -> bool:
        """Whether all variables of the head, and no others, lack tensors."""
        matched = [*self.origins, *(text.partition(":")[0] for text in self.mismatched)]
        return (
            bool(self.missing and matched)
            and all(map(_is_head, self.missing))
            and not any(map(_is_head, matched))
        )

    def without_head(self) -> Matching:
        """Returns the matching with all variables of the head as missing ones."""
        heads = [p for p in (*self.origins, *self.missing) if _is_head(p)]
        heads += [t.partition(":")[0] for t in self.mismatched if _is_head(t)]
        return dataclasses.replace(
            self,
            origins={p: o for p, o in self.origins.items() if not _is_head(p)},
            missing=sorted({*self.missing, *heads}),
            mismatched=[text for text in self.mismatched if not _is_head(text)],
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
        for title in ("folded", "zeros", "ignored"):
            if getattr(self, title):
                parts.append(f"{len(getattr(self, title))} {title}")
        for title in ("missing", "unused", "mismatched"):
            problems = getattr(self, title)
            if problems:
                shown = ", ".join(problems[:8]) + (", …" if len(problems) > 8 else "")
                parts.append(f"{len(problems)} {title} ({shown})")
        return f"names of {self.source}: " + "; ".join(parts)


def _is_head(path: str) -> bool:
    return path.partition("/")[0] == names.HEAD


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
    zeros = _matches(shapes, table.get("zeros", ())) - set(origins)
    return _matching(table["source"], ignored, origins, shapes, tensors, zeros)


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
    arrays = [
        _converted(np.asarray(tensors[name]), origin)
        for name in (origin.tensor, *origin.others)
    ]
    array = np.concatenate(arrays, axis=-1) if origin.others else arrays[0]
    if origin.reversed_axis is not None:
        array = np.flip(array, origin.reversed_axis)
    if origin.bias is not None:
        array = array - np.asarray(tensors[origin.bias])
    return array


def _converted(array: np.ndarray, origin: TensorSource) -> np.ndarray:
    if origin.index is not None:
        array = array[origin.index]
    if origin.rows is not None:
        array = array.reshape(_without_leading_ones(array.shape))[origin.rows]
    if origin.shape:
        array = array.reshape(origin.shape)
    return array.transpose(origin.axes) if origin.axes else array


def _matching(
    source: str,
    patterns: Sequence[str],
    origins: Mapping[str, TensorSource],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: names.Tensors,
    zeros: Set[str] = frozenset(),
) -> Matching:
    matched, mismatched = {}, []
    uses = collections.Counter(_part(origin) for origin in origins.values())
    for path, origin in origins.items():
        # If the tensor of a row is missing, a later row may match another row's tensor.
        if uses[_part(origin)] > 1:
            mismatched.append(f"{path}: {origin.tensor} matches another variable too")
            continue
        if problem := _not_joined(tensors, origin):
            mismatched.append(f"{path}: {problem}")
            continue
        shape, expected = _shape(tensors, origin), shapes[path]
        bias_shape = tuple(tensors[origin.bias].shape) if origin.bias else expected
        fits = _without_ones(shape) == _without_ones(expected)
        if not fits or bias_shape != tuple(expected):
            mismatched.append(f"{path}: expected {list(expected)}, file has {shape}")
        else:
            matched[path] = origin
    folded = {origin.bias for origin in origins.values() if origin.bias}
    used = {n for origin in origins.values() for n in (origin.tensor, *origin.others)}
    used |= folded
    rest = set(tensors) - used
    ignored = _matches(rest, patterns)
    return Matching(
        source=source,
        origins=matched,
        folded=sorted(folded),
        zeros=sorted(zeros),
        ignored=sorted(ignored),
        missing=sorted(set(shapes) - set(origins) - zeros),
        unused=sorted(rest - ignored),
        mismatched=sorted(mismatched),
    )


def _matches(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Returns the names that match one of the patterns."""
    return {n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)}


def _part(origin: TensorSource) -> tuple[typing.Any, ...]:
    """Returns what an origin takes of its tensor; no two variables take the same."""
    rows = origin.rows
    return origin.tensor, origin.index, rows and (rows.start, rows.stop)


def _not_joined(tensors: names.Tensors, origin: TensorSource) -> str:
    """Returns why the tensors of an origin can't be read together; usually empty."""
    first = list(tensors[origin.tensor].shape)
    for name in origin.others:
        if list(tensors[name].shape) != first:
            shape = list(tensors[name].shape)
            return f"{origin.tensor} has shape {first}, but {name} {shape}"
    if origin.index is not None and (not first or first[0] != origin.blocks):
        return f"expected {origin.blocks} blocks in {origin.tensor}, file has {first}"
    return ""


def _shape(tensors: names.Tensors, origin: TensorSource) -> list[int]:
    """Returns the shape of a value, in TensorFlow's order of axes."""
    whole = tensors[origin.tensor].shape
    shape = list(origin.shape or _taken(whole, origin.index, origin.rows))
    if origin.axes:
        shape = [shape[axis] for axis in origin.axes]
    if origin.others:
        shape[-1] *= 1 + len(origin.others)
    return shape


def _taken(shape: Sequence[int], index: int | None, rows: slice | None) -> list[int]:
    """Returns the shape of the part of a tensor that an origin takes."""
    taken = list(shape if index is None else shape[1:])
    if rows is None:
        return taken
    count, *others = _without_leading_ones(taken)
    return [len(range(*rows.indices(count))), *others]


def _without_leading_ones(shape: Sequence[int]) -> list[int]:
    """Returns a shape from its first axis of another size than 1; at least one axis."""
    leading = itertools.takewhile(lambda n: n == 1, shape[:-1])
    return list(shape[len(list(leading)) :]) or [1]


def _rows_taken(shape: Sequence[int], row: names.Table) -> slice | None:
    """Returns the rows of a tensor that a row of a table takes; None for all."""
    if "rows" not in row:
        return None
    count = _without_leading_ones(shape)[0]
    limits = [
        int(fractions.Fraction(limit) * count) if isinstance(limit, str) else limit
        for limit in row["rows"]
    ]
    return slice(*limits)


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
            parts[block_match[0]] |= {part, f"stage_{block_match[1] or 1}"}
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
        rows = _rows(table, path, block, parts[block])
        if layer in numbered:
            rows = iter([{"theirs": numbered[layer]}])
        for row in rows:
            is_second = leaf == "kernel" and "pointwise" in row
            row_ends = names.POINTWISE if is_second else ends
            templates = (row["theirs"], *row.get("joined", ()))
            found = [find(template, row_ends, block) for template in templates]
            if None in found:
                continue
            folds = "folds" in row and leaf == "moving_mean"
            origins[path] = _tensor_source(
                [name for name in found if name is not None],
                row,
                is_torch=table["framework"] == "torch",
                is_kernel=leaf == "kernel",
                shape=tensors[found[0] or ""].shape,
                expected=shapes[path],
                index=fields[block]["index"] if row.get("stacked") else None,
                blocks=fields[block]["blocks"],
                bias=find(row["folds"], suffixes["bias"], block) if folds else None,
            )
            break
    return origins


def _tensor_source(
    found: Sequence[str],
    row: names.Table,
    *,
    is_torch: bool,
    is_kernel: bool,
    shape: Sequence[int],
    expected: Sequence[int],
    index: int | None,
    blocks: int,
    bias: str | None,
) -> TensorSource:
    """Returns how to convert the tensors that a row of a table names.

    Args:
      found: names of the tensors, which are joined.
      row: the row.
      is_torch: whether PyTorch wrote the tensors.
      is_kernel: whether the variable is a kernel.
      shape: shape of the first tensor.
      expected: shape of the variable.
      index: position of the variable's block in tensors that stack all blocks, or None.
      blocks: number of blocks of the model.
      bias: see `TensorSource`.
    """
    rows = _rows_taken(shape, row)
    taken = _taken(shape, index, rows)
    *others, last = expected
    reshaped = _reshaped(
        taken, (*others, last // len(found)), is_kernel=is_kernel, is_torch=is_torch
    )
    axes: tuple[int, ...] | None = None
    reversed_axis = 2 if is_kernel and row.get("bgr") else None
    if row.get("heads_first") and taken:
        reshaped, axes, reversed_axis = (taken[0], math.prod(taken[1:])), (1, 0), 0
    if is_kernel and is_torch and "inputs_first" not in row:
        axes = _TORCH_AXES.get(len(reshaped or taken))
    if is_kernel and row.get("depthwise"):
        axes = _DEPTHWISE_AXES["torch" if is_torch else "tensorflow"]
    return TensorSource(
        found[0],
        others=tuple(found[1:]),
        index=index,
        blocks=blocks,
        rows=rows,
        shape=reshaped,
        axes=axes,
        reversed_axis=reversed_axis,
        bias=bias,
    )


def _reshaped(
    shape: Sequence[int], expected: Sequence[int], *, is_kernel: bool, is_torch: bool
) -> tuple[int, ...] | None:
    """Returns the shape to give a tensor before its axes are transposed.

    A dense layer on a flattened feature map equals a convolution with the map's size.
    PyTorch flattens [C, h, w], and its kernel has the outputs first. In Flax, kernels
    and biases of attention have an axis for the heads. Vectors and position embeddings
    may have further axes of size 1.

    Args:
      shape: of the tensor.
      expected: shape of the variable, [h, w, C, N] if it is such a convolution.
      is_kernel: whether the variable is a kernel.
      is_torch: whether PyTorch wrote the tensor.

    Returns:
      None if the tensor has as many axes as expected, or not as many values.
    """
    if len(shape) == len(expected) or math.prod(shape) != math.prod(expected):
        return None
    if not is_kernel:
        same = [n for n in shape if n > 1] == [n for n in expected if n > 1]
        return tuple(expected) if same or not is_torch else None
    if tuple(expected[:2]) == (1, 1) and len(shape) == 2:
        return None
    if not is_torch:
        # Inputs or outputs stay an axis; a transposed kernel is none of these.
        same = shape[0] == expected[0] or shape[-1] == expected[-1]
        return tuple(expected) if same else None
    if len(shape) == 2 and shape[0] == expected[-1]:
        height, width, channels, outputs = expected
        return outputs, channels, height, width
    return None


def _rows(
    table: names.Table, path: str, block: str, parts: set[str]
) -> Iterator[names.Table]:
    """Yields the rows that apply to a variable of this project, or to its layer."""
    general = "{block}" + path.removeprefix(block) if block else path
    ours = {name for p in (path, general) for name in (p, p.rpartition("/")[0])}
    for row in table["layers"]:
        conditions = row.get("if", ())
        holds = all((c.lstrip("!") in parts) != c.startswith("!") for c in conditions)
        if row["ours"] in ours and holds:
            yield row
