"""Plots the results of a benchmark."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from foundation import atomic, pictures

_HIGHER_IS_BETTER = "images/s"
_BETTER, _WORSE = "#2f6f9f", "#b0413e"
_FASTER = {"float32": "#2f6f9f", "bfloat16": "#d18f2c", "int8": "#b0413e"}


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


def draw_serving(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Plots images/s by batch size, and the latencies with several clients.

    Args:
      rows: as `benchmarks.serving.measure` returns them; a row of panels per arch.
      path: the picture, .png or .svg.
    """
    pyplot = pictures.pyplot()
    archs = list(dict.fromkeys(row["arch"] for row in rows))
    columns = len(rows[0]["images_per_second"]) + 1
    figure, panels = pyplot.subplots(
        len(archs),
        columns,
        figsize=(2 + 2.6 * columns, 0.6 + 0.3 * len(rows) + 0.6 * len(archs)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for line, arch in zip(panels, archs, strict=True):
        own = [row for row in rows if row["arch"] == arch]
        names = [f"{row['name']}, {row['precision']}" for row in own]
        colours = [_FASTER[row["precision"]] for row in own]
        places = range(len(own))
        for panel, batch in zip(line, own[0]["images_per_second"], strict=False):
            rates = [row["images_per_second"].get(batch, 0) for row in own]
            bars = panel.barh(places, rates, color=colours)
            labels = [f"{rate:.0f}" if rate else "–" for rate in rates]
            panel.bar_label(bars, labels, padding=3, color=pictures.INK, fontsize=8)
            panel.set_title(f"images/s, batch {batch}", loc="left", fontsize=9)
            panel.margins(x=0.2)
        _draw_latencies(line[-1], own, colours)
        line[0].set_yticks(places, names)
        line[0].invert_yaxis()
        line[0].set_ylabel(arch, color=pictures.INK, fontweight="bold")
        for panel in line:
            panel.spines[["top", "right", "left"]].set_visible(False)
            panel.tick_params(left=False, labelsize=8)
    atomic.write_file(path, pictures.encode(figure, path.suffix))


def _draw_latencies(
    panel: Any, records: list[dict[str, Any]], colours: list[str]
) -> None:
    """Draws a line from p50 to p99 for each number of clients."""
    clients = list(records[0]["latency_ms"])
    for place, (record, colour) in enumerate(zip(records, colours, strict=True)):
        for number, (p50, p99) in enumerate(record["latency_ms"].values()):
            height = place + 0.25 * (number - (len(clients) - 1) / 2)
            panel.plot([p50, p99], [height, height], color=colour, linewidth=1.2)
            panel.plot([p50], [height], ".", color=colour, markersize=5)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_title(
        f"ms, p50 to p99: {', '.join(clients)} clients", loc="left", fontsize=9
    )
