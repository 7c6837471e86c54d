"""Shortens a manifest to the values that the documentation needs."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

_OMITTED_KEYS = ("variables", "configuration", "packages", "files", "pair")
_BLOCK = re.compile(r"(stage_\d+)_block_(\d+)(?=[_/])")


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
    """Counts the blocks of each stage in the paths of variables."""
    counts: dict[str, int] = collections.defaultdict(int)
    for match in filter(None, map(_BLOCK.match, paths)):
        counts[match[1]] = max(counts[match[1]], int(match[2]))
    return dict(counts)
