"""Generates the start page of the docs: a table of all archs, and plots of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from documentation import page_data, rendering
from zoo import catalog

AXES = {
    "params": "parameters",
    "multiply_adds": "multiply-adds per image",
    "speed": "images per second of the classifier on two CPU cores, where measured",
}
_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 20, 52
_KEYS, _KEY_WIDTH, _KEY_HEIGHT = 6, 115, 22  # families in a row of the legend
_COLORS = (
    *("#2b6cb0", "#b7541c", "#2f855a", "#8a4baf", "#a8326b", "#6b6b1e"),
    *("#0e7c86", "#c53030", "#4338ca", "#7b4a2d", "#4a5568", "#4d7c0f"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """A family in the legend of a plot, in the units of the SVG."""

    family: str
    x: int
    y: int
    color: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """An arch in a plot, in the units of the SVG."""

    arch: str
    x: float
    y: float
    color: str
    label: str


def markdown(architectures: Sequence[page_data.Architecture]) -> str:
    """Returns the start page in Markdown."""
    links = {
        page.arch: architecture.link(page.arch)
        for architecture in architectures
        for page in architecture.variants
    }
    variants = [page for each in architectures for page in each.variants]
    pages = sorted(variants, key=lambda page: page.arch)
    return rendering.render(
        "index.md.jinja",
        rows=[(page, catalog.entry(page.arch), links[page.arch]) for page in pages],
        plots={axis: AXES[axis] for axis in axes(pages)},
        num_architectures=len(architectures),
    )


def axes(pages: Sequence[page_data.PageData]) -> list[str]:
    """Returns the keys of `AXES` for which at least one arch has a value."""
    return [axis for axis in AXES if _values(pages, axis)]


def contents(architectures: Sequence[page_data.Architecture]) -> str:
    """Returns the page that lists the architectures, in Markdown."""
    return rendering.render("architectures.md.jinja", architectures=architectures)


def plot(pages: Sequence[page_data.PageData], *, axis: str) -> str:
    """Plots published ImageNet top-1 accuracy over one of `AXES`, as SVG.

    Archs without a published accuracy are left out.
    """
    values = _values(pages, axis)
    shown = [page for page in pages if page.arch in values]
    accuracies = {p.arch: 100 * p.facts["published_top1"]["value"] for p in shown}
    low, high = _log_range(values, base=10)
    bottom, top = (
        5 * math.floor(min(accuracies.values()) / 5),
        5 * math.ceil(max(accuracies.values()) / 5),
    )
    families = list(dict.fromkeys(_family(page) for page in shown))
    colors = dict(zip(families, itertools.cycle(_COLORS), strict=False))
    rows = math.ceil(len(families) / _KEYS)
    legend_top = _TOP + rows * _KEY_HEIGHT

    def x_of(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(value: float) -> float:
        share = (value - bottom) / (top - bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - legend_top - _BOTTOM), 1)

    return rendering.render(
        "plot.svg.jinja",
        title=f"Published ImageNet top-1 accuracy over {AXES[axis]}",
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=legend_top,
        bottom=_HEIGHT - _BOTTOM,
        keys=[
            Key(
                family=family,
                x=_LEFT + number % _KEYS * _KEY_WIDTH,
                y=_TOP + number // _KEYS * _KEY_HEIGHT,
                color=color,
            )
            for number, (family, color) in enumerate(colors.items())
        ],
        x_ticks={x_of(tick): _short(tick) for tick in _ticks(low, high)},
        y_ticks={y_of(tick): f"{tick} %" for tick in range(bottom, top + 1, 5)},
        x_name=AXES[axis],
        points=[
            Point(
                arch=page.arch,
                x=x_of(values[page.arch]),
                y=y_of(accuracies[page.arch]),
                color=colors[_family(page)],
                label=f"{page.arch}: {values[page.arch]:,}, "
                f"{rendering.percent(page.facts['published_top1']['value'])}",
            )
            for page in shown
        ],
    )


def _values(pages: Sequence[page_data.PageData], axis: str) -> dict[str, float]:
    """Returns the value on `axis` of each arch with a published ImageNet accuracy."""
    values = {
        page.arch: _value(page, axis)
        for page in pages
        if page.facts.get("published_top1") and page.taxonomy == "ilsvrc_2012"
    }
    return {arch: value for arch, value in values.items() if value is not None}


def _value(page: page_data.PageData, axis: str) -> float | None:
    """Returns the value of an arch on `axis`; None if it was not measured."""
    if axis == "speed":
        return page.speed.get("images_per_second")
    manifest = page.manifest
    return manifest["params"]["all"] if axis == "params" else manifest["multiply_adds"]


def _family(page: page_data.PageData) -> str:
    return catalog.entry(page.arch)["family"]


def _log_range(values: Mapping[str, float], *, base: int) -> tuple[float, float]:
    """Returns the logarithms of the smallest and largest value, with a margin."""
    logarithms = [math.log(value, base) for value in values.values()]
    return min(logarithms) - 0.08, max(logarithms) + 0.08


def _ticks(low: float, high: float) -> list[int]:
    """Returns 1, 2 and 5 times each power of ten between two decimal logarithms."""
    candidates = [
        digit * 10**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for digit in (1, 2, 5)
    ]
    return [value for value in candidates if low <= math.log10(value) <= high]


def _short(value: int) -> str:
    """Formats a round number with a metric prefix: `20 M`."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g} {letter}"
    return str(value)
