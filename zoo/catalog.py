"""What there is to build: one entry per arch, from its files alone."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from zoo import config, facts
from zoo.weights import registry

Entry = dict[str, typing.Any]

_FACTS = tuple(name for name in facts.REQUIRED if name != "multiply_adds")


def entry(arch: str) -> Entry:
    """What `tools/list --format=json` says of an arch.

    `params` and `trainable_params` count values of the classifier's variables,
    `image_size` and the ranges are pixels.
    """
    known = facts.load(arch)
    return {
        "arch": arch,
        "family": config.config_file(arch).parent.parent.name,
        "title": known["title"],
        **{name: facts.value(known, name) for name in _FACTS},
        "paper": f"arXiv:{known['paper']['arxiv']}",
        "weights": registry.names(arch),
    }


def table(entries: Sequence[Entry]) -> str:
    """The entries as aligned columns under a header."""
    rows = [("ARCH", "PARAMS", "FEATURES", "PIXELS", "PAPER", "WEIGHTS")]
    rows += [
        (
            e["arch"],
            f"{e['params']:,}",
            str(e["num_features"]),
            str(e["image_size"]),
            e["paper"],
            ", ".join(e["weights"]),
        )
        for e in entries
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right_aligned = {1, 2, 3}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
