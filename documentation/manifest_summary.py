"""Shortens a manifest to the values that the documentation needs."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

_OMITTED_KEYS = ("variables", "configuration", "packages", "files", "pair")
_BLOCK = re.compile(r"(stage_\d+)_block_(\d+)(?=[_/])")
_BLOCK_WITHOUT_STAGE = re.compile(r"block_(\d+)_")
BLOCKS = "block_N"
"""Name of all blocks of a network without stages."""


def summarize(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest's fields without those that no page shows.

    `blocks` replaces the variables: the number of blocks in each stage. `architecture`,
    `normalization` and `weight_decay` replace the configuration.
    """
    fields = {
        name: value for name, value in manifest.items() if name not in _OMITTED_KEYS
    }
    configuration = manifest["configuration"]
    return {
        **fields,
        "architecture": configuration["spec"]["class"],
        "normalization": configuration["normalization"],
        "weight_decay": configuration["weight_decay"],
        "blocks": blocks(manifest["variables"]),
    }


def blocks(paths: Iterable[str]) -> dict[str, int]:
    """Counts the blocks of each stage in the paths of variables.

    The blocks of a network without stages count as `BLOCKS`.
    """
    counts: dict[str, int] = collections.defaultdict(int)
    for path in paths:
        if match := _BLOCK.match(path):
            counts[match[1]] = max(counts[match[1]], int(match[2]))
        elif match := _BLOCK_WITHOUT_STAGE.match(path):
            counts[BLOCKS] = max(counts[BLOCKS], int(match[1]))
    return dict(counts)
