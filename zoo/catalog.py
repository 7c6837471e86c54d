"""Lists the architectures that can be built, without building any."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from zoo import config, facts
from zoo.weights import registry

Entry = dict[str, typing.Any]

_FACTS = tuple(name for name in facts.REQUIRED if name != "multiply_adds")


def entry(arch: str) -> Entry:
    """Returns the entry that `tools/list --format=json` prints for `arch`.

    `params` and `trainable_params` are the classifier's parameter counts;
    `image_size` and the ranges are in pixels.
    """
    arch_facts = facts.load(arch)
    return {
        "arch": arch,
        "family": config.config_file(arch).parent.parent.name,
        "title": arch_facts["title"],
        **{name: facts.value(arch_facts, name) for name in _FACTS},
        "paper": f"arXiv:{arch_facts['paper']['arxiv']}",
        "weights": registry.names(arch),
    }


def table(entries: Sequence[Entry]) -> str:
    """Formats the entries as a table with a header and aligned columns."""
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
