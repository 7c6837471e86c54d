"""Plots the ratios of a benchmark."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from foundation import atomic, pictures

_HIGHER_IS_BETTER = "images/s"
_BETTER, _WORSE = "#2f6f9f", "#b0413e"


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Plots one panel per arch and one bar per measure; right means ours is better."""
    pyplot = pictures.pyplot()
    from matplotlib import ticker

    archs = list(dict.fromkeys(row["arch"] for row in rows))
    tallest = max(sum(row["arch"] == arch for row in rows) for arch in archs)
    figure, panels = pyplot.subplots(
        1,
        len(archs),
        figsize=(1.6 + 3.4 * len(archs), 1.2 + 0.32 * tallest),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, arch in zip(panels[0], archs, strict=True):
        arch_rows = [row for row in rows if row["arch"] == arch]
        names = [row["measure"] for row in arch_rows]
        gains = [
            row["ratio"] if row["unit"] == _HIGHER_IS_BETTER else 1 / row["ratio"]
            for row in arch_rows
        ]
        colours = [_BETTER if gain >= 1 else _WORSE for gain in gains]
        bars = panel.barh(names, [math.log2(gain) for gain in gains], color=colours)
        labels = [f"{gain:.2f}×" for gain in gains]
        panel.bar_label(bars, labels, padding=3, color=pictures.INK, fontsize=8)
        panel.axvline(0, color=pictures.INK, linewidth=0.8)
        panel.invert_yaxis()
        panel.margins(x=0.25)
        panel.set_title(
            arch, loc="left", color=pictures.INK, fontsize=10, fontweight="bold"
        )
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False, labelsize=8)
        panel.xaxis.set_major_locator(ticker.MultipleLocator(1))
        panel.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}×")
    figure.supxlabel("improvement over the alternative", color=pictures.INK, fontsize=9)
    atomic.write_file(path, pictures.encode(figure, path.suffix))
