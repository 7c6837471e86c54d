"""The first page of the docs: every arch in one table, and plots of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from documentation import page_data, rendering
from zoo import catalog

AXES = {
    "params": "parameters",
    "multiply_adds": "multiply-adds for one image",
    "speed": "images a second of the classifier, on two cores, where it was timed",
}
_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 42, 52
_COLORS = ("#2b6cb0", "#b7541c", "#2f855a", "#8a4baf", "#a8326b", "#6b6b1e")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """An arch in a plot, in the picture's units."""

    arch: str
    x: float
    y: float
    color: str
    label: str


def markdown(known: Sequence[page_data.PageData]) -> str:
    """The page, in Markdown."""
    return rendering.render(
        "index.md.jinja",
        rows=[(record, catalog.entry(record.arch)) for record in known],
        plots={axis: AXES[axis] for axis in axes(known)},
        generations=len({record.about["architecture"] for record in known}),
    )


def axes(known: Sequence[page_data.PageData]) -> list[str]:
    """Those of `AXES` along which there is something to show."""
    return [axis for axis in AXES if _values(known, axis)]


def contents(known: Sequence[page_data.PageData]) -> str:
    """The page that lists the archs of each family, in Markdown."""
    families: dict[str, list[page_data.PageData]] = {}
    for record in known:
        families.setdefault(record.about["architecture"], []).append(record)
    return rendering.render("archs.md.jinja", families=families)


def plot(known: Sequence[page_data.PageData], *, axis: str) -> str:
    """Published top-1 accuracy on ImageNet over a figure of `AXES`, as SVG.

    Archs of which no accuracy was published are left out.
    """
    values = _values(known, axis)
    shown = [record for record in known if record.arch in values]
    tops = {r.arch: 100 * r.known["published_top1"]["value"] for r in shown}
    low, high = _ends(values, base=10)
    bottom, top = (
        5 * math.floor(min(tops.values()) / 5),
        5 * math.ceil(max(tops.values()) / 5),
    )
    architectures = list(dict.fromkeys(_family(record) for record in shown))
    colors = dict(zip(architectures, _COLORS, strict=False))

    def x_of(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(value: float) -> float:
        share = (value - bottom) / (top - bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    return rendering.render(
        "plot.svg.jinja",
        title=f"Published ImageNet top-1 accuracy over {AXES[axis]}",
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
        colors=colors,
        x_ticks={x_of(tick): _short(tick) for tick in _ticks(low, high)},
        y_ticks={y_of(tick): f"{tick} %" for tick in range(bottom, top + 1, 5)},
        x_name=AXES[axis],
        points=[
            Point(
                arch=record.arch,
                x=x_of(values[record.arch]),
                y=y_of(tops[record.arch]),
                color=colors[_family(record)],
                label=f"{record.arch}: {values[record.arch]:,}, "
                f"{rendering.percent(record.known['published_top1']['value'])}",
            )
            for record in shown
        ],
    )


def _values(known: Sequence[page_data.PageData], axis: str) -> dict[str, float]:
    """What a plot shows of each arch that has an accuracy on ImageNet."""
    found = {
        record.arch: _value(record, axis)
        for record in known
        if record.known.get("published_top1") and record.taxonomy == "ilsvrc_2012"
    }
    return {arch: value for arch, value in found.items() if value is not None}


def _value(record: page_data.PageData, axis: str) -> float | None:
    """What an axis shows of an arch; None where it was not measured."""
    if axis == "speed":
        return record.speed.get("images_per_second")
    about = record.about
    return about["params"]["all"] if axis == "params" else about["multiply_adds"]


def _family(record: page_data.PageData) -> str:
    return catalog.entry(record.arch)["family"]


def _ends(values: Mapping[str, float], *, base: int) -> tuple[float, float]:
    """A little more than the decimal logarithms of the least and the largest value."""
    logarithms = [math.log(value, base) for value in values.values()]
    return min(logarithms) - 0.08, max(logarithms) + 0.08


def _ticks(low: float, high: float) -> list[int]:
    """1, 2 and 5 of each power of ten between two decimal logarithms."""
    candidates = [
        digit * 10**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for digit in (1, 2, 5)
    ]
    return [value for value in candidates if low <= math.log10(value) <= high]


def _short(value: int) -> str:
    """A round number with the letter of its thousands."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g} {letter}"
    return str(value)
