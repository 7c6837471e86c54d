"""Maps the tensor names of other projects to this project's variables.

A family's `names/*.json` files are tables, one for each project and generation. The
keys of a table, with examples:

    source      the other project
                    "timm"
    framework   `torch` or `tensorflow`; Keras files follow `tensorflow`
                    "torch"
    archs       patterns of arch names; or an object that gives bindings to each pattern
                    ["mobilenet_v2", "mobilenet_v2_*"]
                    {"mnasnet_a1_*": ["MnasNetA1.padding = 'symmetric'"]}
    layers      rows, see below
                    [{"ours": "stem/conv", "theirs": "conv1/conv"}]
    ignored     patterns of tensors that no model needs
                    ["*.num_batches_tracked"]

Optional keys of a table:

    gin         bindings that fit the weights; the user's bindings override them
                    ["model.mean = 127.5"]
    habit       if the project made its weights in several ways: how it made most, and
                which bindings fit the others, as words for a message
                    "as timm's tf_* are; bind … for those trained in PyTorch"
    images      `layer` has the mean and variance of images; `twice` is a variance by
                whose root images are divided once more; see `normalization`
                    {"layer": "normalization*", "twice": [0.229, 0.224, 0.225]}
    scope       pattern of the first part of names; `theirs` leaves it out, and names
                outside it are not read
                    "efficientnet-b?"
    prefix      start of names that a file may lack; `theirs` leaves it out, and `?`
                stands for any character
                    "regnetx???_"
    averages    last part of the names of moving averages, which are read instead of the
                variables themselves
                    "ExponentialMovingAverage"
    numbered    what Keras calls layers without a name, see `_numbered`
                    {"conv": "conv2d"}
    blocks      the project's names of blocks, by patterns of `stage_S_block_B`: the
                first pattern that fits gives the field `{name}` of `theirs`
                    {"stage_1_block_1": "cell_stem_0", "*": "cell_{index-2}"}

The keys of a row; the last five are optional:

    ours        path of our layer; `{block}` stands for each `stage_S_block_B`
                    "{block}_project/conv"
    theirs      name of the project's layer, with the fields that `_fields` lists
                    "blocks.{stage-1}.{block-1}.conv_pwl"
    if          conditions, all of which must hold: parts that the block must have, or
                must not have if they begin with `!`, and the stage
                    ["!expand", "stage_1"]
    depthwise   whether it is a depthwise convolution of PyTorch
                    true
    pointwise   whether it is the second kernel of TensorFlow's separable convolution
                    true
    bgr         whether it is a convolution whose input has blue as channel 0
                    true
    folds       for a batch norm: the project's convolution before it, whose bias is
                folded into the batch norm
                    "conv1_conv"

Of the rows for a layer whose conditions hold, the first one whose tensor exists
applies. Later rows may have the names of other releases.
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

# Suffixes of tensor names by framework and variable name. Digits are the indices in
# files that Keras 3 writes; `LAYER/LAYER_W_1` is from Keras 1.
_SUFFIXES: dict[str, dict[str, tuple[str, ...]]] = {
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
            "_W_1",
        ),
        "bias": ("/bias", "/biases", "/1", "_b_1"),
        "gamma": ("/gamma", "/0"),
        "beta": ("/beta", "/1"),
        "moving_mean": ("/moving_mean", "/2"),
        "moving_variance": ("/moving_variance", "/3"),
    },
}
_POINTWISE = ("/pointwise_kernel", "/pointwise_weights", "/1")
# Without a scale, the indices of batch norm's other variables are smaller by one.
_WITHOUT_GAMMA = {"/1": "/0", "/2": "/1", "/3": "/2"}
# Rank of a PyTorch kernel -> transposition to TensorFlow's order of axes.
_TORCH_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
_TORCH_DEPTHWISE_AXES = (2, 3, 0, 1)
_BLOCK = re.compile(r"^stage_(\d+)_block_(\d+)(?=_)")
_MOST_WRAPPERS = 5  # nested wrappers; a hostile name may consist of dots
OURS = "this project"
"""Source of tensors that have the names of this project's variables."""
_OWN = re.compile(r"(stem|stage_\d+_block_\d+_\w+)/")
HEAD = "logits"
"""The layer that weights may lack: those of a backbone have no classes."""


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
            return path.partition("/")[0] == HEAD

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


def load(folder: pathlib.Path, arch: str) -> list[Table]:
    """Returns the tables in `folder` for `arch`, in the order of their file names.

    The bindings of that arch are added to each table's `gin`.
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
      tables: the tables for an arch.
      tensors: the names.

    Returns:
      The shortest prefix that must be removed, often empty, and the project's table,
      which is None for names of this project. None if the names match no table.
    """
    for prefix in prefixes(tensors):
        names = [name.removeprefix(prefix) for name in tensors]
        table = _best(tables, names)
        if table is not None or any(map(_OWN.match, names)):
            return prefix, table
    return None


def _best(tables: Iterable[Table], tensors: Iterable[str]) -> Table | None:
    """Returns the table that matches most layers, if it matches over half of them."""
    best, most = None, 0
    for table in tables:
        blocks = table.get("blocks", {}).values()
        patterns = [_pattern(row["theirs"], blocks) for row in table["layers"]]
        numbered = table.get("numbered", {}).values()
        patterns += [rf"{re.escape(name)}(?:_\d+)?" for name in numbered]
        layer_pattern = re.compile("|".join(patterns))
        by_variable = _SUFFIXES[table["framework"]]
        suffixes = {s for suffixes in by_variable.values() for s in suffixes}
        suffixes.update(_POINTWISE)
        layers = {
            name[: -len(suffix)]
            for name in _unscoped(tensors, table)
            for suffix in suffixes
            if name.endswith(suffix)
        }
        count = sum(bool(layer_pattern.fullmatch(layer)) for layer in layers)
        if count > max(most, len(layers) // 2):
            best, most = table, count
    return best


def num_classes(table: Table, tensors: Tensors) -> int | None:
    """Returns the number of logits of the head; None if there is no head."""
    names = _unscoped(tensors, table)
    for row in table["layers"]:
        for suffix in _SUFFIXES[table["framework"]]["bias"]:
            name = names.get(row["theirs"] + suffix) if row["ours"] == HEAD else None
            if name and len(tensors[name].shape) == 1:
                return int(tensors[name].shape[0])
    return None


def normalization(table: Table, tensors: Tensors) -> list[str]:
    """Returns gin bindings for the normalisation layer of a Keras model.

    The table's `images` has the pattern of that layer's name, `layer`. The layer takes
    images in [0, 1], subtracts its mean and divides by the square root of its variance.
    If the variance equals `twice`, the network divides by that root a second time.

    Raises:
      ValueError: the layer's mean or variance is not valid.
    """
    if "images" not in table:
        return []
    layer, twice = table["images"]["layer"], table["images"]["twice"]
    values = []
    for ends in (("/mean", "/0"), ("/variance", "/1")):
        names = [n for n in tensors for e in ends if fnmatch.fnmatchcase(n, layer + e)]
        if not names:
            return []
        tensor = tensors[names[0]]
        if tuple(tensor.shape) != (3,) or np.dtype(tensor.dtype).kind != "f":
            raise ValueError(
                f"{names[0]} must have one floating-point number per colour channel, "
                f"not shape {list(tensor.shape)} of {tensor.dtype}."
            )
        values.append(np.asarray(tensor, np.float64))
    mean, variance = values
    if not np.isfinite(values).all() or variance.min() <= 0:
        raise ValueError(f"{layer} must have a finite mean and a positive variance.")
    std = variance if np.allclose(variance, twice) else np.sqrt(variance)
    pairs = {"mean": mean, "std": std}
    return [f"model.{key} = {tuple((255 * v).tolist())}" for key, v in pairs.items()]


def match(
    table: Table, shapes: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> Matching:
    """Matches `tensors` with the variables by a table's names.

    Args:
      table: table of the project that wrote the tensors.
      shapes: paths and shapes of this project's variables, in network order.
      tensors: the tensors by name.
    """
    names = _unscoped(tensors, table)
    replaced = set()
    if "averages" in table:
        suffix = f"/{table['averages']}"
        averages = {n.removesuffix(suffix): n for n in names if n.endswith(suffix)}
        replaced = {names[n] for n in averages if n in names}
        names |= {n: names[average] for n, average in averages.items()}
    origins = _tensor_sources(table, shapes, names, tensors)
    ignored = [*table["ignored"], *map(glob.escape, replaced)]
    return _matching(table["source"], ignored, origins, shapes, tensors)


def match_ours(
    shapes: Mapping[str, tuple[int, ...]], tensors: Tensors, *, ignored: Sequence[str]
) -> Matching:
    """Matches tensors that have the names of this project's variables."""
    origins = {path: TensorSource(path) for path in shapes if path in tensors}
    return _matching(OURS, ignored, origins, shapes, tensors)


def value(tensors: Tensors, origin: TensorSource) -> np.ndarray:
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
    tensors: Tensors,
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


def _shape(tensors: Tensors, origin: TensorSource) -> list[int]:
    """Returns the shape of a value, in TensorFlow's order of axes."""
    shape = list(origin.shape or tensors[origin.tensor].shape)
    return [shape[axis] for axis in origin.axes] if origin.axes else shape


def _without_ones(shape: Iterable[int]) -> list[int]:
    """Returns a shape; for a 1 × 1 convolution that of the equivalent dense kernel."""
    shape = list(shape)
    return shape[2:] if len(shape) == 4 and shape[:2] == [1, 1] else shape


def _unscoped(tensors: Iterable[str], table: Table) -> dict[str, str]:
    """Maps names without the table's scope or prefix to the full names.

    Names outside the scope are left out.
    """
    if "scope" not in table:
        return {_unprefixed(name, table.get("prefix", "")): name for name in tensors}
    return {
        rest: name
        for name in tensors
        for scope, _, rest in [name.partition("/")]
        if fnmatch.fnmatchcase(scope, table["scope"])
    }


def _unprefixed(name: str, prefix: str) -> str:
    """Removes a prefix in which `?` stands for any character."""
    start, rest = name[: len(prefix)], name[len(prefix) :]
    return rest if fnmatch.fnmatchcase(start, prefix) else name


def _tensor_sources(
    table: Table,
    shapes: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    tensors: Tensors,
) -> dict[str, TensorSource]:
    """Returns the tensor of each variable that has one, and how to convert it."""
    suffixes = _SUFFIXES[table["framework"]]
    fields = _fields(shapes)
    for block, values in fields.items():
        values["name"] = _block_name(table, block, values)
    # Block name -> names of its parts, and its stage.
    parts: dict[str, set[str]] = collections.defaultdict(set)
    for path in shapes:
        block_match = _BLOCK.match(path)
        if block_match:
            part = path[block_match.end() + 1 :].partition("/")[0]
            parts[block_match[0]] |= {part, f"stage_{block_match[1]}"}
    numbered = _numbered(table, shapes, names)

    def find(template: str, ends: Iterable[str], block: str) -> str | None:
        layer = template.format_map(fields[block])
        candidates = (layer + end for end in ends)
        return next((names[name] for name in candidates if name in names), None)

    origins = {}
    for path in shapes:
        layer, _, leaf = path.rpartition("/")
        block_match = _BLOCK.match(layer)
        block = block_match[0] if block_match else ""
        ends = suffixes[leaf]
        if f"{layer}/moving_mean" in shapes and f"{layer}/gamma" not in shapes:
            ends = tuple(_WITHOUT_GAMMA.get(end, end) for end in ends)
        rows = _rows(table, layer, block, parts[block])
        if layer in numbered:
            rows = iter([{"theirs": numbered[layer]}])
        for row in rows:
            is_second = leaf == "kernel" and "pointwise" in row
            tensor = find(row["theirs"], _POINTWISE if is_second else ends, block)
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


def _rows(table: Table, layer: str, block: str, parts: set[str]) -> Iterator[Table]:
    """Yields the rows that apply to a layer of this project."""
    general = "{block}" + layer.removeprefix(block) if block else layer
    for row in table["layers"]:
        conditions = row.get("if", ())
        holds = all((c.lstrip("!") in parts) != c.startswith("!") for c in conditions)
        if row["ours"] in (layer, general) and holds:
            yield row


def _numbered(
    table: Table, shapes: Iterable[str], names: Iterable[str]
) -> dict[str, str]:
    """Returns the layers that Keras named by numbers, by layers of this project.

    Keras calls a layer without a name `conv2d_17`, after its class and the number of
    such layers that its process has created before. The first number differs between
    files, but the order in a file is that in which the code creates the layers: block
    by block and, as in the names of this project's parts, branch by branch.

    Args:
      table: `numbered` maps the last part of our layers, such as `conv`, to `conv2d`.
        Layers that a row names are left out.
      shapes: paths of our variables, in network order.
      names: names of the tensors.
    """
    named = {row["ours"] for row in table["layers"]}
    groups: dict[str, set[str]] = {}  # layers by block, or by layer outside blocks
    for path in shapes:
        layer = path.rpartition("/")[0]
        block = _BLOCK.match(layer)
        group = block[0] if block else layer.partition("/")[0]
        if not named & {layer, layer.replace(group, "{block}")}:
            groups.setdefault(group, set()).add(layer)
    ours = [layer for group in groups.values() for layer in sorted(group, key=_natural)]
    found: dict[str, str] = {}
    for part, name in table.get("numbered", {}).items():
        pattern = re.compile(rf"{re.escape(name)}(?:_\d+)?")
        layers = {tensor.rpartition("/")[0] for tensor in names}
        theirs = sorted(filter(pattern.fullmatch, layers), key=_natural)
        same = [layer for layer in ours if layer.endswith(f"/{part}")]
        found.update(zip(same, theirs, strict=False))  # what is over does not match
    return found


def _natural(name: str) -> list[int | str]:
    """Returns a key that sorts the numbers in names by value."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts]


class _Fields(dict[str, typing.Any]):
    """The fields of a block; of each also sums, such as `block-1` and `letter+1`."""

    def __missing__(self, key: str) -> typing.Any:
        match = re.fullmatch(r"(.+)([+-]\d+)", key)
        if not match:
            raise KeyError(key)
        value, offset = self[match[1]], int(match[2])
        return chr(ord(value) + offset) if isinstance(value, str) else value + offset


def _fields(paths: Iterable[str]) -> dict[str, _Fields]:
    """Returns the fields that a row's `theirs` may use, by block name.

    The empty name has the fields for layers outside blocks.
    """
    blocks: dict[str, tuple[int, int]] = {}
    for path in paths:
        match = _BLOCK.match(path)
        if match:
            blocks.setdefault(match[0], (int(match[1]), int(match[2])))
    stages = len({stage for stage, _ in blocks.values()})
    shared = {"stages": stages, "blocks": len(blocks)}
    fields = {"": _Fields(shared)}
    in_order = sorted(blocks.items(), key=lambda item: item[1])
    for index, (name, (stage, block)) in enumerate(in_order):
        fields[name] = _Fields(
            shared,
            stage=stage,  # from 1
            block=block,  # in its stage, from 1
            letter=string.ascii_lowercase[block - 1] if block <= 26 else block,
            index=index,  # in the network, from 0
            **{
                "2*index": 2 * index,
                # With a layer before or after each stage, such as a max pool.
                "index+stage": index + stage,
                "2*index+stage": 2 * index + stage,
                "3*index+stage": 3 * index + stage,
            },
        )
    return fields


def _block_name(table: Table, block: str, fields: Mapping[str, typing.Any]) -> str:
    """Returns the project's name of a block; empty if the table has none."""
    for pattern, template in table.get("blocks", {}).items():
        if block and fnmatch.fnmatchcase(block, pattern):
            return str(template.format_map(fields))
    return ""


def _pattern(template: str, blocks: Iterable[str] = ()) -> str:
    """Returns a regular expression that matches every name made from `template`.

    Args:
      template: a layer's name with fields.
      blocks: templates of the values of the field `{name}`.
    """
    name = f"(?:{'|'.join(map(_pattern, blocks))})"
    return "".join(
        re.escape(text)
        + (name if field == "name" else r"(?:-?\d+|[a-z])" if field else "")
        for text, field, _, _ in string.Formatter().parse(template)
    )
