"""A report as one HTML page that needs nothing beside it. Imports no TensorFlow.

All of a report is text of unknown origin: the template's environment escapes whatever
it prints, and the page forbids itself scripts other than its own and every request.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import pathlib
import re
from collections.abc import Iterable, Sequence

import jinja2

from conformance import clauses as clauses_lib
from conformance import plain
from conformance import report as report_lib

_TEMPLATE = pathlib.Path(__file__).with_name("page.html.jinja")

_GROUPS = {
    "R": "Reusable SavedModel",
    "I": "Image input",
    "F": "Image feature vector",
    "C": "Image classification",
    "P": "Pair",
    "S": "Signatures",
    "T": "TF1 Hub format",
    "D": "Documentation",
    "K": "Clients",
}
_SLOWEST = 8  # clauses whose times are drawn one by one
_MOST_TICKS = 10  # of an axis

# What `verdict.Broken` and `judging.judge` write. Of a path that holds the words
# between the parts, and of observations that do, the outermost reading is taken.
_BROKEN = re.compile(
    r"expected (?P<Expected>.*?); observed (?P<Observed>.*)\. To mend: (?P<mend>.*)",
    re.DOTALL,
)
_RAISED = re.compile(r"raised (?P<Raised>.*)", re.DOTALL)


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
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        parts=_parts, seconds=_seconds, sha256=_sha256, span=_span_text
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    ticks, ranges = _ranges(report)
    return template.render(
        report=report,
        counts=report.counts,
        groups=_groups(report.clauses),
        bars=_bars(report),
        ticks=ticks,
        ranges=ranges,
    )


def _printable(value: object) -> object:
    """What the template prints; its own markup is left as it is."""
    return plain.text(value) if type(value) is str else value


def _groups(results: Iterable[report_lib.ClauseResult]) -> list[Group]:
    groups: dict[str, Group] = {}
    for result in results:
        letter = result.id[:1]
        name = _GROUPS.get(letter, "Further clauses")
        group = groups.setdefault(letter, Group(letter=letter, name=name, rows=[]))
        group.rows.append((result, clauses_lib.BY_ID.get(result.id)))
    return list(groups.values())


def _parts(result: report_lib.ClauseResult, path: str) -> dict[str, str]:
    """A message's parts by their labels; under no label, if it is of another form.

    Clause and path, which begin a message, stand elsewhere on the page: a path other
    than `path` is kept.
    """
    if result.status not in (report_lib.FAIL, report_lib.WARN):
        return {"": result.message}
    own = f"{result.id} {path}: "
    if result.message.startswith(own):
        where, found = "", result.message.removeprefix(own)
    else:
        start = re.escape(result.id)
        told = re.match(rf"{start} (.*?): (?=expected |raised )", result.message, re.S)
        where, found = (told[1], result.message[told.end() :]) if told else ("", "")
    parts = {"Path": where} if where else {}
    if match := _BROKEN.fullmatch(found):
        return {
            **parts,
            "Expected": match["Expected"],
            "Observed": match["Observed"],
            "To mend": match["mend"],
        }
    if match := _RAISED.fullmatch(found):
        return {**parts, "Raised": match["Raised"]}
    return {"": result.message}


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


def _sha256(text: str) -> str:
    """As a content security policy names the script that it allows."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
