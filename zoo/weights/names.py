"""Tables of the tensor names of other projects, and whose names a file has.

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
    prefix      start of names that a file may lack; `theirs` leaves it out, `?` stands
                for any character, and `{arch}` for the arch
                    "regnetx???_"
    averages    last part of the names of moving averages, which are read instead of the
                variables themselves
                    "ExponentialMovingAverage"
    zeros       patterns of variables that this project's weights may lack, whose values
                are zeros
                    ["class_token/position"]
    numbered    what Keras calls layers without a name, see `layer_names.numbered`
                    {"conv": "conv2d"}
    blocks      the project's names of blocks, by patterns of `stage_S_block_B`: the
                first pattern that fits gives the field `{name}` of `theirs`
                    {"stage_1_block_1": "cell_stem_0", "*": "cell_{index-2}"}

The keys of a row; those after the first two are optional:

    ours        path of our layer, or of a variable; `{block}` stands for each
                `stage_S_block_B` or `block_B`, and `…_transformer_T` inside one
                    "{block}_project/conv"
    theirs      name of the project's layer, with the fields of `layer_names.fields`
                    "blocks.{stage-1}.{block-1}.conv_pwl"
    if          conditions, all of which must hold: parts that the block must have, or
                must not have if they begin with `!`, and the stage
                    ["!expand", "stage_1"]
    joined      further layers, whose tensors are appended on the last axis
                    ["{index}.key", "{index}.value"]
    rows        rows of the tensor to take, from and to: numbers or shares of all, and
                null for the end; leading axes of size 1 do not count
                    [1, null] or [0, "1/3"]
    inputs_first
                whether PyTorch has the kernel's inputs first, which is TensorFlow's
                order
                    true
    stacked     whether the tensor has all blocks on its first axis
                    true
    depthwise   whether it is a depthwise convolution of PyTorch, or one that Keras has
                as a grouped convolution
                    true
    pointwise   whether it is the second kernel of TensorFlow's separable convolution
                    true
    heads_first whether it is a table of position biases [heads, rows, columns] by the
                offset of the key from the query; ours are [rows · columns, heads] by
                that of the query from the key
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

import fnmatch
import itertools
import json
import pathlib
import re
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from zoo.weights import layer_names

Table = layer_names.Table
Tensors = Mapping[str, typing.Any]  # name -> shape, dtype and, by np.asarray, values

# Suffixes of tensor names by framework and variable name. Digits are the indices in
# files that Keras 3 writes; `LAYER/LAYER_W_1` is from Keras 1.
SUFFIXES: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {
        "kernel": (".weight", "_weight", ""),
        "bias": (".bias", "_bias"),
        "gamma": (
            *(".weight", ".gamma", ".layer_scale", ".layer_scale_parameter"),
            *(".lambda1", ""),
        ),
        "beta": (".bias", ".beta"),
        "moving_mean": (".running_mean",),
        "moving_variance": (".running_var",),
        "embedding": ("", ".weight"),
        "position": ("", ".weight"),
        "logit_scale": ("",),
        "query": ("",),
        "value": ("",),
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
        "gamma": ("/gamma", "/0", "/variable", "/scale"),
        "beta": ("/beta", "/1", "/bias"),
        "moving_mean": ("/moving_mean", "/2"),
        "moving_variance": ("/moving_variance", "/3"),
        "embedding": ("",),
        "position": ("",),
        "logit_scale": ("",),
        "query": ("",),
        "value": ("",),
    },
}
POINTWISE = ("/pointwise_kernel", "/pointwise_weights", "/1")
_MOST_WRAPPERS = 5  # nested wrappers; a hostile name may consist of dots
_OURS = re.compile(r"(stem|patches|(stage_\d+_)?block_\d+_\w+)/")
HEAD = "logits"
"""The layer that weights may lack: those of a backbone have no classes."""


def load(folder: pathlib.Path, arch: str) -> list[Table]:
    """Returns the tables in `folder` for `arch`, in the order of their file names.

    The bindings of that arch are added to each table's `gin`, and its name is put into
    the prefix.
    """
    tables: list[Table] = []
    for path in sorted(folder.glob("*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        archs = table["archs"]
        if not isinstance(archs, dict):
            archs = {pattern: [] for pattern in archs}
        lines = [archs[p] for p in archs if fnmatch.fnmatchcase(arch, p)]
        if lines:
            prefix = table.get("prefix", "").replace("{arch}", arch)
            gin = sum(lines, table.get("gin", []))
            tables.append({**table, "prefix": prefix, "gin": gin})
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
        if table is not None or any(map(_OURS.match, names)):
            return prefix, table
    return None


def _best(tables: Iterable[Table], tensors: Iterable[str]) -> Table | None:
    """Returns the table that matches most layers, if it matches over half of them."""
    best, most = None, 0
    for table in tables:
        blocks = table.get("blocks", {}).values()
        patterns = [
            layer_names.pattern(name, blocks)
            for row in table["layers"]
            for name in (row["theirs"], *row.get("joined", ()))
        ]
        numbered = table.get("numbered", {}).values()
        patterns += [rf"{re.escape(name)}(?:_\d+)?" for name in numbered]
        layer_pattern = re.compile("|".join(patterns))
        by_variable = SUFFIXES[table["framework"]]
        suffixes = {s for suffixes in by_variable.values() for s in suffixes if s}
        suffixes.update(POINTWISE)
        names = unscoped(tensors, table)
        layers = {
            name[: -len(suffix)]
            for name in names
            for suffix in suffixes
            if name.endswith(suffix)
        }
        layers |= {name for name in names if layer_pattern.fullmatch(name)}
        count = sum(bool(layer_pattern.fullmatch(layer)) for layer in layers)
        if count > max(most, len(layers) // 2):
            best, most = table, count
    return best


def num_classes(table: Table, tensors: Tensors) -> int | None:
    """Returns the number of logits of the head; None if there is no head."""
    names = unscoped(tensors, table)
    for row in table["layers"]:
        for suffix in SUFFIXES[table["framework"]]["bias"]:
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


def unscoped(tensors: Iterable[str], table: Table) -> dict[str, str]:
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
