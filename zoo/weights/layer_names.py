"""The names that other projects give to layers, as templates with fields.

Templates are the entries `theirs` and `blocks` of the tables that `names` describes. A
field such as `{stage-1}` is a number or letter of the block that a layer is in.
"""

from __future__ import annotations

import fnmatch
import re
import string
import typing
from collections.abc import Iterable, Mapping

Table = Mapping[str, typing.Any]
BLOCK = re.compile(r"^(?:stage_(\d+)_)?block_(\d+)(?:_transformer_(\d+))?(?=_)")
"""Start of the names of layers in blocks; without stages, all are in stage 1.

A transformer inside a block, such as `stage_3_block_2_transformer_1`, is a block too.
"""


class Fields(dict[str, typing.Any]):
    """The fields of a block; of each also sums, such as `block-1` and `letter+1`."""

    def __missing__(self, key: str) -> typing.Any:
        match = re.fullmatch(r"(.+)([+-]\d+)", key)
        if not match:
            raise KeyError(key)
        value, offset = self[match[1]], int(match[2])
        return chr(ord(value) + offset) if isinstance(value, str) else value + offset


def fields(paths: Iterable[str]) -> dict[str, Fields]:
    """Returns the fields that a row's `theirs` may use, by block name.

    The empty name has the fields for layers outside blocks.
    """
    blocks: dict[str, tuple[int, int, int]] = {}
    for path in paths:
        match = BLOCK.match(path)
        if match:
            numbers = int(match[1] or 1), int(match[2]), int(match[3] or 0)
            blocks.setdefault(match[0], numbers)
    stages = len({stage for stage, *_ in blocks.values()})
    shared = {"stages": stages, "blocks": len(blocks)}
    fields = {"": Fields(shared)}
    in_order = sorted(blocks.items(), key=lambda item: item[1])
    for index, (name, (stage, block, transformer)) in enumerate(in_order):
        fields[name] = Fields(
            shared,
            stage=stage,  # from 1
            block=block,  # in its stage, from 1
            transformer=transformer,  # in its block, from 1; 0 for none
            letter=string.ascii_lowercase[block - 1] if block <= 26 else block,
            index=index,  # in the network, from 0
            **{
                "2*stage": 2 * stage,
                "2*index": 2 * index,
                # With a layer before or after each stage, such as a max pool.
                "index+stage": index + stage,
                "2*index+stage": 2 * index + stage,
                "3*index+stage": 3 * index + stage,
            },
        )
    return fields


def block_name(table: Table, block: str, fields: Mapping[str, typing.Any]) -> str:
    """Returns the project's name of a block; empty if the table has none."""
    for pattern, template in table.get("blocks", {}).items():
        if block and fnmatch.fnmatchcase(block, pattern):
            return str(template.format_map(fields))
    return ""


def pattern(template: str, blocks: Iterable[str] = ()) -> str:
    """Returns a regular expression that matches every name made from `template`.

    Args:
      template: a layer's name with fields.
      blocks: templates of the values of the field `{name}`.
    """
    name = f"(?:{'|'.join(map(pattern, blocks))})"
    return "".join(
        re.escape(text)
        + (name if field == "name" else r"(?:-?\d+|[a-z])" if field else "")
        for text, field, _, _ in string.Formatter().parse(template)
    )


def numbered(
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
        block = BLOCK.match(layer)
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
