"""Generates the table of architectures in README.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from documentation import page_data
from zoo import config
from zoo.weights import registry

FILE = page_data.ROOT / "README.md"
_BEGIN = "<!-- architectures: written by tools/docs -->\n"
_END = "<!-- end of architectures -->\n"
_HEADER = (
    "| Architecture | archs | top-1 | parameters, million | multiply-adds, million "
    "| weights |\n|---|---|---|---|---|---|\n"
)


def updated() -> str:
    """Returns README.md with a current table.

    Raises:
      ValueError: README.md lacks the two marker lines, or an arch has no record.
    """
    text = FILE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{FILE.name} must have the lines {_BEGIN!r} and {_END!r}.")
    return f"{before}{begin}{table()}{end}{after}"


def is_current() -> bool:
    """Whether README.md has the current table."""
    return updated() == FILE.read_text(encoding="utf-8")


def table() -> str:
    """Returns the table in Markdown, and a sentence on weights.

    A row is an architecture, with the ranges of its archs' figures.
    """
    pages: dict[str, list[page_data.PageData]] = {}
    for arch in config.config_files():
        page = page_data.for_arch(arch)
        pages.setdefault(page.manifest["architecture"], []).append(page)
    rows = [_row(name, group) for name, group in sorted(pages.items())]
    return f"{_HEADER}{''.join(rows)}\n{_weights_summary()}\n"


def _weights_summary() -> str:
    """A sentence with the numbers of archs and of their weights."""
    archs = config.config_files()
    entries = {arch: registry.records(arch) for arch in archs}
    sets = [entry for of_arch in entries.values() for entry in of_arch.values()]
    with_imagenet = sum("imagenet" in of_arch for of_arch in entries.values())
    return (
        f"{len(sets)} sets of weights are known by name; {with_imagenet} of the "
        f"{len(archs)} archs have ImageNet weights."
    )


def _row(name: str, pages: Sequence[page_data.PageData]) -> str:
    paper = pages[0].manifest["paper"].get("arxiv", "")
    title = f"[{name}](https://arxiv.org/abs/{paper})" if paper[:1].isdigit() else name
    top1 = [p.facts["published_top1"]["value"] for p in pages if _has_top1(p)]
    weighted = sum(bool(set(page.weights) - {registry.RANDOM}) for page in pages)
    cells = [
        title,
        _arch_summary([page.arch for page in pages]),
        f"{_range((100 * value for value in top1), '{:.1f}')} %" if top1 else "–",
        _range((page.manifest["params"]["all"] / 1e6 for page in pages), "{:.3g}"),
        _range((page.manifest["multiply_adds"] / 1e6 for page in pages), "{:,.0f}"),
        f"{weighted} of {len(pages)}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _has_top1(page: page_data.PageData) -> bool:
    return page.facts.get("published_top1") is not None


def _arch_summary(names: Sequence[str]) -> str:
    """Returns the shortest name and the number of other archs."""
    first = min(names, key=lambda name: (len(name), name))
    others = len(names) - 1
    return f"`{first}`" + (f" and {others} more" if others else "")


def _range(values: Iterable[float], form: str) -> str:
    """Formats the smallest and largest value, or a single value."""
    ordered = sorted(values)
    ends = dict.fromkeys(form.format(value) for value in (ordered[0], ordered[-1]))
    return " – ".join(ends)
