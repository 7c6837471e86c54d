"""Rows of a benchmark's table: a measure of both sides, and their ratio."""

from __future__ import annotations

import statistics
from typing import Any

Row = dict[str, Any]
Figures = dict[str, list[float]]  # values of each side, one per repetition


def row(arch: str, name: str, unit: str, figures: Figures) -> Row:
    """Returns the medians of both sides, their ratio, and the spread of each side."""
    medians = {side: statistics.median(values) for side, values in figures.items()}
    return {
        "arch": arch,
        "measure": name,
        "unit": unit,
        **medians,
        "ratio": medians["ours"] / medians["theirs"],
        "spread": {
            side: (max(values) - min(values)) / medians[side]
            for side, values in figures.items()
        },
    }
