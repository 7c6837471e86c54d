"""All generated files of `docs/`, from the records that are kept there."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from documentation import front_page, model_page, page_data, rendering
from zoo import config, taxonomy

FOLDER = page_data.ROOT / "docs"
GENERATED = ("archs", "class_index", "index.md", "plots")
"""What there is in `FOLDER` that only `files` writes."""


def files() -> Iterator[tuple[str, str]]:
    """Names below `FOLDER`, and contents.

    Raises:
      ValueError: an arch has no record.
    """
    known = [page_data.for_arch(arch) for arch in config.config_files()]
    for record in known:
        link = f"../class_index/{record.taxonomy}.md"
        picture = f"{record.arch}.svg"
        text = model_page.markdown(record, picture=picture, taxonomy_link=link)
        yield f"archs/{record.arch}.md", text
        yield f"archs/{picture}", model_page.stages(record)
    for name in taxonomy.names():
        yield f"class_index/{name}.md", class_index(name)
    yield "index.md", front_page.markdown(known)
    yield "archs/index.md", front_page.contents(known)
    yield (
        "class_index/index.md",
        rendering.render(
            "class_indices.md.jinja",
            names=taxonomy.names(),
            about={name: page_data.about_taxonomy(name) for name in taxonomy.names()},
        ),
    )
    for axis in front_page.axes(known):
        yield f"plots/{axis}.svg", front_page.plot(known, axis=axis)


def class_index(name: str) -> str:
    """The page of one class-index definition, with its whole table."""
    known = taxonomy.load(name)
    about = page_data.about_taxonomy(name)
    return rendering.render("class_index.md.jinja", taxonomy=known, about=about)


def for_sphinx(
    output: pathlib.Path, *, scratch: pathlib.Path, docs: pathlib.Path = FOLDER
) -> list[str]:
    """Arguments with which Sphinx makes a site; it fails where it would warn.

    Args:
      output: folder of the site.
      scratch: folder for what is of no use to readers.
      docs: what it is made of.
    """
    strict = ["-W", "--keep-going", "-q"]
    return [*strict, *map(str, ("-c", docs / "site", "-d", scratch, docs, output))]


def stale() -> list[str]:
    """Names below `FOLDER` of what differs from `files`, or should not be there."""
    wanted = dict(files())
    kept = [FOLDER / name for name in GENERATED]
    paths = [path for top in kept for path in (top, *top.rglob("*")) if path.is_file()]
    found = {path.relative_to(FOLDER).as_posix() for path in paths}
    changed = {name for name, text in wanted.items() if read(FOLDER / name) != text}
    return sorted(changed | (found - wanted.keys()))


def read(path: pathlib.Path) -> str | None:
    """The text of a file; None if there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else None
