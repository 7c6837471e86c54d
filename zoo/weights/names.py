"""From what other projects call their tensors to the variables of a model of ours.

A family's `names/*.json` files are tables, one for each project and generation:

    source      the project
    habit       how its weights are made where not all are made alike, and what to bind
                for the others
    framework   `torch` or `tensorflow`, which Keras' own files follow
    archs       patterns of the archs that it is for; or each with bindings, as in gin
    gin         bindings that its weights were made with; the user's own come after
    images      where they have the images' mean and variance, as `normalization` says
    scope       a pattern of the first part of all names, which is left out below
    prefix      how names begin, which is left out below; a backbone's may do without
    averages    a last part of names: where such a tensor is there, it is taken
    layers      rows: a layer of ours, and what they call it
    ignored     patterns of names that no model needs

A row's `ours` is the path of a layer, in which `{block}` stands for each
`stage_S_block_B`; `theirs` is their layer's name with fields in it, which `_fields`
lists. `if` names parts that the block must have, or with a `!` must not have. Of the
rows that hold, the first whose tensor is there is the row: a later one may have the
name of another release. `depthwise` marks such a convolution of PyTorch's; `bgr` one
that sees blue first; `folds`, beside a batch norm, names the convolution of theirs
before it, whose bias our batch norm takes over.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import glob
import itertools
import json
import pathlib
import re
import string
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

Table = Mapping[str, typing.Any]
Tensors = Mapping[str, typing.Any]  # name -> shape, dtype and, by np.asarray, values

# What ends a tensor's name, by the framework that wrote it and our variable. Digits
# are places in the files that Keras 3 writes.
_ENDS: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {
        "kernel": (".weight",),
        "bias": (".bias",),
        "gamma": (".weight", ".gamma"),
        "beta": (".bias",),
        "moving_mean": (".running_mean",),
        "moving_variance": (".running_var",),
    },
    "tensorflow": {
        "kernel": (
            "/kernel",
            "/depthwise_kernel",
            "/weights",
            "/depthwise_weights",
            "/0",
        ),
        "bias": ("/bias", "/biases", "/1"),
        "gamma": ("/gamma", "/0"),
        "beta": ("/beta", "/1"),
        "moving_mean": ("/moving_mean", "/2"),
        "moving_variance": ("/moving_variance", "/3"),
    },
}
# The axes of PyTorch's kernels in our order, by their number; TensorFlow's are ours.
_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_TORCH_DEPTHWISE_AXES = (2, 3, 0, 1)
_BLOCK = re.compile(r"^stage_(\d+)_block_(\d+)(?=_)")
_MOST_WRAPPERS = 5  # one in another; a hostile name may be all dots
OURS = "this project"
"""The source of tensors that are called as our variables are."""
_STEM = "stem/"
HEAD = "logits"
"""The layer that a file of weights may lack: the backbone's then, without classes."""


@dataclasses.dataclass(frozen=True)
class TensorSource:
    """Where a variable's value is, and what to do to it."""

    tensor: str
    axes: tuple[int, ...] | None = None  # the tensor's, in our order
    reversed_inputs: bool = False  # whether axis 2 then runs the other way
    bias: str | None = None  # a tensor to take off the value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
    """What an import would do; all lists hold names, sorted.

    Attributes:
      source: the project whose names they are.
      origins: our variable path -> where its value is, of those that fit.
      folded: their biases that go into our batch norms.
      ignored: their tensors that no model needs.
      missing: variables of ours without a tensor.
      unused: tensors of theirs without a variable.
      mismatched: `path: ours [shape], theirs [shape]`, or that two of ours would
        have the same.
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
        """Whether the whole head, and nothing but it, has no tensors."""

        def is_head(path: str) -> bool:
            return path.partition("/")[0] == HEAD

        found = [*self.origins, *(text.partition(":")[0] for text in self.mismatched)]
        return (
            bool(self.missing and found)
            and all(map(is_head, self.missing))
            and not any(map(is_head, found))
        )

    @property
    def complete(self) -> bool:
        """Whether every variable has a value, but perhaps the head's."""
        if self.unused or self.mismatched:
            return False
        return not self.missing or self.lacks_head

    def summary(self) -> str:
        """One line: the counts, and the first names of whatever is wrong."""
        parts = [f"{len(self.origins)} matched"]
        for title in ("folded", "ignored"):
            if getattr(self, title):
                parts.append(f"{len(getattr(self, title))} {title}")
        for title in ("missing", "unused", "mismatched"):
            found = getattr(self, title)
            if found:
                shown = ", ".join(found[:8]) + (", …" if len(found) > 8 else "")
                parts.append(f"{len(found)} {title} ({shown})")
        return f"names of {self.source}: " + "; ".join(parts)


def load(folder: pathlib.Path, arch: str) -> list[Table]:
    """The tables below `folder` that are for `arch`, by file name.

    Their `gin` has the bindings of that arch, too.
    """
    tables: list[Table] = []
    for path in sorted(folder.glob("*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        archs = table["archs"]
        if not isinstance(archs, dict):
            archs = {pattern: [] for pattern in archs}
        lines = [archs[p] for p in archs if fnmatch.fnmatchcase(arch, p)]
        if lines:
            tables.append({**table, "gin": sum(lines, table.get("gin", []))})
    return tables


def prefixes(tensors: Iterable[str]) -> list[str]:
    """Returns the dotted prefixes that all names share, the empty one first.

    Wrappers such as DataParallel (`module.`), torch.compile (`_orig_mod.`) and
    Lightning (`model.`) add them, sometimes several in a row.
    """
    parts = (name.split(".", _MOST_WRAPPERS)[:-1] for name in tensors)
    shared = itertools.takewhile(lambda p: len(set(p)) == 1, zip(*parts, strict=False))
    wrappers = (f"{part[0]}." for part in shared)
    return list(itertools.accumulate(wrappers, initial=""))


def recognise(
    tables: Sequence[Table], tensors: Collection[str]
) -> tuple[str, Table | None] | None:
    """Finds the project that wrote the names, removing a wrapper's prefix if needed.

    Args:
      tables: those of the projects known for an arch.
      tensors: the names.

    Returns:
      The shortest prefix that must be removed, often empty, and the project's table,
      which is None for names of this project. None if the names are unknown.
    """
    for prefix in prefixes(tensors):
        names = [name.removeprefix(prefix) for name in tensors]
        table = _best(tables, names)
        if table is not None or any(name.startswith(_STEM) for name in names):
            return prefix, table
    return None


def _best(tables: Iterable[Table], tensors: Iterable[str]) -> Table | None:
    """Returns the table that knows most layers, or None if none knows half of them."""
    best, most = None, 0
    for table in tables:
        patterns = [_pattern(row["theirs"]) for row in table["layers"]]
        known = re.compile("|".join(patterns))
        ends = {end for ends in _ENDS[table["framework"]].values() for end in ends}
        layers = {
            name[: -len(end)]
            for name in _unscoped(tensors, table)
            for end in ends
            if name.endswith(end)
        }
        count = sum(bool(known.fullmatch(layer)) for layer in layers)
        if count > max(most, len(layers) // 2):
            best, most = table, count
    return best


def num_classes(table: Table, tensors: Tensors) -> int | None:
    """How many logits the head has; None where there is none."""
    names = _unscoped(tensors, table)
    for row in table["layers"]:
        for end in _ENDS[table["framework"]]["bias"]:
            name = names.get(row["theirs"] + end) if row["ours"] == HEAD else None
            if name and len(tensors[name].shape) == 1:
                return int(tensors[name].shape[0])
    return None


def normalization(table: Table, tensors: Tensors) -> list[str]:
    """Bindings for the normalisation of images that the file has a layer of.

    The table's `images` names that layer, `layer`, by a pattern. It is Keras': it takes
    images in [0, 1], subtracts its mean and divides by the root of its variance. Where
    the variance is `twice`, its network divides by that root once more.

    Raises:
      ValueError: the layer has no such values.
    """
    if "images" not in table:
        return []
    layer, twice = table["images"]["layer"], table["images"]["twice"]
    values = []
    for ends in (("/mean", "/0"), ("/variance", "/1")):
        found = [n for n in tensors for e in ends if fnmatch.fnmatchcase(n, layer + e)]
        if not found:
            return []
        tensor = tensors[found[0]]
        if tuple(tensor.shape) != (3,) or np.dtype(tensor.dtype).kind != "f":
            raise ValueError(f"{found[0]} is not one number per colour.")
        values.append(np.asarray(tensor, np.float64))
    mean, variance = values
    if not np.isfinite(values).all() or variance.min() <= 0:
        raise ValueError(f"{layer} holds a mean and a variance that no image has.")
    std = variance if np.allclose(variance, twice) else np.sqrt(variance)
    pairs = {"mean": mean, "std": std}
    return [f"model.{key} = {tuple((255 * v).tolist())}" for key, v in pairs.items()]


def match(
    table: Table, shapes: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> Matching:
    """Matches `tensors` with the variables by a table's names.

    Args:
      table: of the project that wrote them.
      shapes: our variables' paths and shapes, in network order.
      tensors: theirs.
    """
    names = _unscoped(tensors, table)
    averaged = set()
    if "averages" in table:
        end = f"/{table['averages']}"
        averages = {n.removesuffix(end): n for n in names if n.endswith(end)}
        averaged = {names[n] for n in averages if n in names}
        names |= {n: names[average] for n, average in averages.items()}
    origins = _tensor_sources(table, shapes, names, tensors)
    ignored = [*table["ignored"], *map(glob.escape, averaged)]
    return _matching(table["source"], ignored, origins, shapes, tensors)


def match_ours(
    shapes: Mapping[str, tuple[int, ...]], tensors: Tensors, *, ignored: Sequence[str]
) -> Matching:
    """Matches tensors that are called as our variables are."""
    origins = {path: TensorSource(path) for path in shapes if path in tensors}
    return _matching(OURS, ignored, origins, shapes, tensors)


def value(tensors: Tensors, origin: TensorSource) -> np.ndarray:
    """The value of a variable; a 1 × 1 kernel's may lack the ones, or have them."""
    array = np.asarray(tensors[origin.tensor])
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
    tensors: Tensors,
) -> Matching:
    fitting, mismatched = {}, []
    takers = collections.Counter(origin.tensor for origin in origins.values())
    for path, origin in origins.items():
        # Where a row's own tensor is missing, a later row may have taken another's.
        if takers[origin.tensor] > 1:
            mismatched.append(f"{path}: {origin.tensor} is another variable's too")
            continue
        theirs = _shape(tensors, origin)
        biases = tuple(tensors[origin.bias].shape) if origin.bias else shapes[path]
        fits = _without_ones(theirs) == _without_ones(shapes[path])
        if not fits or biases != tuple(shapes[path]):
            mismatched.append(f"{path}: ours {list(shapes[path])}, theirs {theirs}")
        else:
            fitting[path] = origin
    folded = {origin.bias for origin in origins.values() if origin.bias}
    used = {origin.tensor for origin in origins.values()} | folded
    rest = set(tensors) - used
    ignored = {n for n in rest if any(fnmatch.fnmatchcase(n, p) for p in patterns)}
    return Matching(
        source=source,
        origins=fitting,
        folded=sorted(folded),
        ignored=sorted(ignored),
        missing=sorted(set(shapes) - set(origins)),
        unused=sorted(rest - ignored),
        mismatched=sorted(mismatched),
    )


def _shape(tensors: Tensors, origin: TensorSource) -> list[int]:
    """The shape of a value, in our order of axes."""
    shape = list(tensors[origin.tensor].shape)
    return [shape[axis] for axis in origin.axes] if origin.axes else shape


def _without_ones(shape: Iterable[int]) -> list[int]:
    """A kernel's shape, a dense one's for that of a 1 × 1 convolution."""
    shape = list(shape)
    return shape[2:] if len(shape) == 4 and shape[:2] == [1, 1] else shape


def _unscoped(tensors: Iterable[str], table: Table) -> dict[str, str]:
    """Their names without the scope or prefix -> with it."""
    if "scope" not in table:
        return {name.removeprefix(table.get("prefix", "")): name for name in tensors}
    return {
        rest: name
        for name in tensors
        for scope, _, rest in [name.partition("/")]
        if fnmatch.fnmatchcase(scope, table["scope"])
    }


def _tensor_sources(
    table: Table,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    tensors: Tensors,
) -> dict[str, TensorSource]:
    """Where each variable is to be found, for those that are."""
    ends = _ENDS[table["framework"]]
    fields = _fields(shapes)
    parts = collections.defaultdict(set)  # block -> what it consists of
    for path in shapes:
        found = _BLOCK.match(path)
        if found:
            parts[found[0]].add(path[found.end() + 1 :].partition("/")[0])

    def find(template: str, leaf: str, block: str) -> str | None:
        layer = template.format(**fields[block])
        return next((names[layer + e] for e in ends[leaf] if layer + e in names), None)

    origins = {}
    for path in shapes:
        layer, _, leaf = path.rpartition("/")
        found = _BLOCK.match(layer)
        block = found[0] if found else ""
        for row in _rows(table, layer, block, parts[block]):
            tensor = find(row["theirs"], leaf, block)
            if tensor is not None:
                break
        else:
            continue
        axes = None
        if table["framework"] == "torch":
            axes = _TORCH_AXES.get(len(tensors[tensor].shape))
            if row.get("depthwise") and axes:
                axes = _TORCH_DEPTHWISE_AXES
        folds = "folds" in row and leaf == "moving_mean"
        origins[path] = TensorSource(
            tensor,
            axes=axes,
            reversed_inputs=leaf == "kernel" and "bgr" in row,
            bias=find(row["folds"], "bias", block) if folds else None,
        )
    return origins


def _rows(table: Table, layer: str, block: str, parts: set[str]) -> Iterator[Table]:
    """The rows that hold for a layer of ours."""
    general = "{block}" + layer.removeprefix(block) if block else layer
    for row in table["layers"]:
        conditions = row.get("if", ())
        holds = all((c.lstrip("!") in parts) != c.startswith("!") for c in conditions)
        if row["ours"] in (layer, general) and holds:
            yield row


def _fields(paths: Iterable[str]) -> dict[str, dict[str, typing.Any]]:
    """What a row's `theirs` may speak of, by block; `` is for what is in no block."""
    blocks: dict[str, tuple[int, int]] = {}
    for path in paths:
        found = _BLOCK.match(path)
        if found:
            blocks.setdefault(found[0], (int(found[1]), int(found[2])))
    stages = len({stage for stage, _ in blocks.values()})
    shared = {"stages": stages, "stages+1": stages + 1, "blocks+1": len(blocks) + 1}
    fields: dict[str, dict[str, typing.Any]] = {"": shared}
    for index, (name, (stage, block)) in enumerate(blocks.items()):
        fields[name] = {
            **shared,
            "stage": stage,  # from 1
            "stage-1": stage - 1,
            "stage+1": stage + 1,
            "block": block,  # of its stage, from 1
            "block-1": block - 1,
            "letter": string.ascii_lowercase[block - 1] if block <= 26 else block,
            "index": index,  # of the network, from 0
            "index-1": index - 1,
            "index+1": index + 1,
            "2*index": 2 * index,
            "2*index+1": 2 * index + 1,
        }
    return fields


def _pattern(template: str) -> str:
    """A regular expression for the names that `template` may become."""
    return "".join(
        re.escape(text) + (r"(?:-?\d+|[a-z])" if field else "")
        for text, field, _, _ in string.Formatter().parse(template)
    )
