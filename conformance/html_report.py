"""A report as one HTML page that needs nothing beside it. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from conformance import clauses as clauses_lib
from conformance import html_templates
from conformance import report as report_lib

_SLOWEST = 8  # clauses whose times are drawn one by one
_MOST_TICKS = 10  # of an axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The clauses with one letter, each with its words and what was found."""

    letter: str
    name: str
    rows: list[tuple[report_lib.ClauseResult, clauses_lib.Clause | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """One range on the axis.

    Args:
      low: in pixels; None if open.
      high: the same.
      start: of the drawn line, in percent of the axis.
      end: the same.
    """

    low: int | None
    high: int | None
    start: float
    end: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """What was measured of one side of images, and what is documented."""

    name: str
    sides: report_lib.Sides
    measured: Span
    documented: Span | None

    @property
    def is_short(self) -> bool:
        """Whether some of what is documented was not seen to work."""
        if self.documented is None:
            return False
        low, high = self.documented.low, self.documented.high
        return (low is not None and low < self.sides.smallest) or (
            high is not None and high > self.sides.largest
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A time, and its length in percent of the longest."""

    name: str
    seconds: float
    length: float
    is_clause: bool


def render(report: report_lib.Report) -> str:
    """The page, to be encoded as UTF-8."""
    ticks, ranges = _ranges(report)
    return html_templates.render(
        "page.html.jinja",
        report=report,
        counts=report.counts,
        groups=_groups(report.clauses),
        bars=_bars(report),
        ticks=ticks,
        ranges=ranges,
        seconds=_seconds,
        span=_span_text,
    )


def _groups(results: Iterable[report_lib.ClauseResult]) -> list[Group]:
    groups: dict[str, Group] = {}
    for result in results:
        letter = result.id[:1]
        name = html_templates.group_name(letter)
        group = groups.setdefault(letter, Group(letter=letter, name=name, rows=[]))
        group.rows.append((result, clauses_lib.BY_ID.get(result.id)))
    return list(groups.values())


def _ranges(report: report_lib.Report) -> tuple[dict[int, float], list[Range]]:
    """The ticks of one logarithmic axis, by pixels, and the ranges along it."""
    if not report.measured or not report.measured.sides:
        return {}, []
    measured = report.measured.sides
    documented = {
        name: tuple(report.documented[f"{name}_range"])
        for name in measured
        if report.documented.get(f"{name}_range")
    }
    ends = [end for pair in documented.values() for end in pair if end is not None]
    ends += [
        end for sides in measured.values() for end in (sides.smallest, sides.largest)
    ]
    low = math.floor(_log2(min(ends)))
    high = max(math.ceil(_log2(max(ends))), low + 1)

    def span(start: int | None, end: int | None) -> Span:
        def at(pixels: int) -> float:
            return round(100 * (_log2(pixels) - low) / (high - low), 2)

        return Span(
            low=start,
            high=end,
            start=0 if start is None else at(start),
            end=100 if end is None else at(end),
        )

    stride = math.ceil((high - low) / _MOST_TICKS)
    ticks = {
        2**exponent: round(100 * (exponent - low) / (high - low), 2)
        for exponent in range(low, high + 1, stride)
    }
    return ticks, [
        Range(
            name=name,
            sides=sides,
            measured=span(sides.smallest, sides.largest),
            documented=span(*documented[name]) if name in documented else None,
        )
        for name, sides in measured.items()
    ]


def _log2(pixels: int) -> float:
    return math.log2(max(pixels, 1))


def _bars(report: report_lib.Report) -> list[Bar]:
    """The slowest clauses, the others together, and what was done outside of them."""
    slowest = sorted(report.clauses, key=lambda result: -result.seconds)
    alone, others = slowest[:_SLOWEST], slowest[_SLOWEST:]
    times = [(result.id, result.seconds, True) for result in alone]
    if others:
        rest = sum(result.seconds for result in others)
        times.append((f"{len(others)} other clauses", rest, False))
    outside = report.seconds - sum(result.seconds for result in report.clauses)
    times.append(("outside of clauses", outside, False))
    times = [time for time in times if time[1] >= 0.005]
    longest = max((seconds for _, seconds, _ in times), default=1.0)
    return [
        Bar(
            name=name,
            seconds=seconds,
            length=round(100 * seconds / longest, 1),
            is_clause=is_clause,
        )
        for name, seconds, is_clause in times
    ]


def _seconds(value: float) -> str:
    if value < 0.005:
        return "< 0.01 s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def _span_text(pair: Sequence[int | None]) -> str:
    low, high = pair
    if low is None and high is None:
        return "no limits"
    if low is None:
        return f"up to {high} px"
    if high is None:
        return f"{low} px and more"
    return f"{low} px" if low == high else f"{low} to {high} px"
