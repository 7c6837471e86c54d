"""Generates the pages and pictures of `docs/` from the records."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from documentation import (
    architecture_page,
    front_page,
    model_page,
    page_data,
    reference,
    rendering,
)
from zoo import config, taxonomy

FOLDER = page_data.ROOT / "docs"
GENERATED = ("architectures", "class_index", "index.md", "plots", "reference")
"""Files and folders in `FOLDER` whose contents all come from `files`."""
_FORMER = ("archs",)  # a folder that `files` filled before: what is in it is stale


def files() -> Iterator[tuple[str, str]]:
    """Yields the path below `FOLDER` and the text of each generated file.

    Raises:
      ValueError: an arch has no record.
    """
    pages = [page_data.for_arch(arch) for arch in config.config_files()]
    architectures = page_data.architectures(pages)
    for each in architectures:
        path = f"architectures/{each.page_name}"
        yield f"{path}.md", architecture_page.markdown(each)
        yield f"{path}.svg", model_page.stages_svg(each.default)
    for name in taxonomy.names():
        yield f"class_index/{name}.md", class_index(name)
    yield "index.md", front_page.markdown(architectures)
    yield "architectures/index.md", front_page.contents(architectures)
    yield (
        "class_index/index.md",
        rendering.render(
            "class_indices.md.jinja",
            taxonomies={
                name: page_data.taxonomy_info(name) for name in taxonomy.names()
            },
        ),
    )
    for axis in front_page.axes(pages):
        yield f"plots/{axis}.svg", front_page.plot(pages, axis=axis)
    yield from reference.files()


def class_index(name: str) -> str:
    """Returns the page of a class-index definition, with the table of all classes."""
    return rendering.render(
        "class_index.md.jinja",
        taxonomy=taxonomy.load(name),
        info=page_data.taxonomy_info(name),
    )


def for_sphinx(
    output: pathlib.Path, *, scratch: pathlib.Path, docs: pathlib.Path = FOLDER
) -> list[str]:
    """Returns Sphinx arguments to build the site; a warning makes the build fail.

    Args:
      output: folder of the site.
      scratch: folder for Sphinx's intermediate files.
      docs: folder of the sources.
    """
    strict = ["-W", "--keep-going", "-q"]
    return [*strict, *map(str, ("-c", docs / "site", "-d", scratch, docs, output))]


def stale() -> list[str]:
    """Returns the paths below `FOLDER` that are outdated, missing or superfluous."""
    expected = dict(files())
    tops = [FOLDER / name for name in (*GENERATED, *_FORMER)]
    paths = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    present = {path.relative_to(FOLDER).as_posix() for path in paths}
    changed = {name for name, text in expected.items() if read(FOLDER / name) != text}
    return sorted(changed | (present - expected.keys()))


def read(path: pathlib.Path) -> str | None:
    """Returns the text of a file; None if there is no file."""
    return path.read_text(encoding="utf-8") if path.is_file() else None
