"""Generates the table of architectures in README.md."""

from __future__ import annotations

from collections.abc import Iterable

from documentation import model_page, page_data
from zoo import config
from zoo.weights import registry

FILE = page_data.ROOT / "README.md"
_BEGIN = "<!-- architectures: written by tools/docs -->\n"
_END = "<!-- end of architectures -->\n"
_IMAGENET = "ilsvrc_2012"  # taxonomy of ImageNet's 1000 classes
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
    pages = map(page_data.for_arch, config.config_files())
    rows = [_row(each) for each in page_data.architectures(pages)]
    return f"{_HEADER}{''.join(rows)}\n{_weights_summary()}\n"


def _weights_summary() -> str:
    """Returns a sentence with the numbers of archs and of their weights."""
    archs = config.config_files()
    entries = {arch: registry.records(arch) for arch in archs}
    sets = [entry for of_arch in entries.values() for entry in of_arch.values()]
    with_imagenet = sum(
        any(entry.get("taxonomy") == _IMAGENET for entry in of_arch.values())
        for of_arch in entries.values()
    )
    return (
        f"{len(sets)} sets of weights are known by name; {with_imagenet} of the "
        f"{len(archs)} archs have ImageNet weights."
    )


def _row(architecture: page_data.Architecture) -> str:
    pages = architecture.variants
    page = f"[{architecture.name}](docs/architectures/{architecture.page_name}.md)"
    url = model_page.paper_url(architecture.default.manifest["paper"])
    top1 = [p.facts["published_top1"]["value"] for p in pages if _has_top1(p)]
    weighted = sum(bool(set(page.weights) - {registry.RANDOM}) for page in pages)
    cells = [
        f"{page} ([paper]({url}))" if url else page,
        _arch_summary(architecture),
        f"{_range((100 * value for value in top1), '{:.1f}')} %" if top1 else "–",
        _range((page.manifest["params"]["all"] / 1e6 for page in pages), "{:.3g}"),
        _range((page.manifest["multiply_adds"] / 1e6 for page in pages), "{:,.0f}"),
        f"{weighted} of {len(pages)}",
    ]
    return f"| {' | '.join(cells)} |\n"


def _has_top1(page: page_data.PageData) -> bool:
    return page.facts.get("published_top1") is not None


def _arch_summary(architecture: page_data.Architecture) -> str:
    """Returns the name of the default arch and the number of other archs."""
    others = len(architecture.variants) - 1
    name = architecture.default.arch
    return f"`{name}`" + (f" and {others} more" if others else "")


def _range(values: Iterable[float], form: str) -> str:
    """Formats the smallest and largest value, or a single value."""
    ordered = sorted(values)
    ends = dict.fromkeys(form.format(value) for value in (ordered[0], ordered[-1]))
    return " – ".join(ends)
