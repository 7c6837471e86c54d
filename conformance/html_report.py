"""Formats a report as one self-contained HTML page. Does not import TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from conformance import clauses as clauses_lib
from conformance import html_templates
from conformance import report as report_lib

_SLOWEST = 8  # number of clauses that have their own time bar
_MOST_TICKS = 10  # on an axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """A group of clauses, with a row of result and clause for each.

    A row's clause is None if this version of the suite does not have it.
    """

    letter: str
    name: str
    rows: list[tuple[report_lib.ClauseResult, clauses_lib.Clause | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A range of pixels and its line on the axis.

    Args:
      low: lower end in pixels; None if there is no limit.
      high: upper end in pixels; None if there is no limit.
      start: start of the line, in percent of the axis.
      end: end of the line, in percent of the axis.
    """

    low: int | None
    high: int | None
    start: float
    end: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The measured and the documented range of height, width or square size."""

    name: str
    sides: report_lib.SizeRange
    measured: Span
    documented: Span | None

    @property
    def is_short(self) -> bool:
        """Whether the documented range exceeds the measured one."""
        if self.documented is None:
            return False
        low, high = self.documented.low, self.documented.high
        return (low is not None and low < self.sides.smallest) or (
            high is not None and high > self.sides.largest
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of the time chart; `length` is in percent of the longest bar."""

    name: str
    seconds: float
    length: float
    is_clause: bool


def render(report: report_lib.Report) -> str:
    """Returns the HTML page of a report, to be encoded as UTF-8."""
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
    """Returns the ticks of a logarithmic axis, by pixels, and the ranges on it.

    A tick's position is in percent of the axis.
    """
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
        def position(pixels: int) -> float:
            return round(100 * (_log2(pixels) - low) / (high - low), 2)

        return Span(
            low=start,
            high=end,
            start=0 if start is None else position(start),
            end=100 if end is None else position(end),
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
    """Returns time bars: the slowest clauses, the other clauses, and the rest."""
    slowest = sorted(report.clauses, key=lambda result: -result.seconds)
    own_bar, others = slowest[:_SLOWEST], slowest[_SLOWEST:]
    times = [(result.id, result.seconds, True) for result in own_bar]
    if others:
        rest = sum(result.seconds for result in others)
        times.append((f"{len(others)} other clauses", rest, False))
    outside = report.seconds - sum(result.seconds for result in report.clauses)
    times.append(("outside clauses", outside, False))
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
