"""What documentation keeps of a manifest."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

_DROPPED = ("variables", "configuration", "packages", "files", "pair")
_BLOCK = re.compile(r"(stage_\d+)_block_(\d+)(?=[_/])")


def summarize(about: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's record without what no page shows.

    Of the variables the number of blocks of each stage is left, of the configuration
    the architecture and what is applied to the input.
    """
    kept = {name: value for name, value in about.items() if name not in _DROPPED}
    chosen = about["configuration"]
    return {
        **kept,
        "architecture": chosen["spec"]["class"],
        "normalization": chosen["normalization"],
        "weight_decay": chosen["weight_decay"],
        "blocks": blocks(about["variables"]),
    }


def blocks(paths: Iterable[str]) -> dict[str, int]:
    """How many blocks each stage has, by the paths of the variables."""
    found: dict[str, int] = collections.defaultdict(int)
    for match in filter(None, map(_BLOCK.match, paths)):
        found[match[1]] = max(found[match[1]], int(match[2]))
    return dict(found)
