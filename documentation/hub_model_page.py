"""Generates the page of a model in a hub, in HTML.

The texts about the model are those of its Markdown page, from `templates/parts`. The
page has no scripts or styles inside, which its content security policy would forbid:
they are in `hub_assets`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import pathlib
import posixpath
from collections.abc import Mapping
from typing import Any

import markupsafe

from conformance import clauses
from conformance import report as reports
from documentation import (
    model_page,
    page_data,
    rendering,
    version_changes,
)
from exporters import formats as export_formats
from exporters import manifest as manifests
from foundation import hub_paths

BOM = "bom.cdx.json"
_TFHUB_DOCUMENT = "VERSION.md"  # the only one beside the folder of documents
_DOCUMENTS = {  # what documents are, by name
    "conformance.json": "conformance report",
    BOM: "bill of materials (CycloneDX)",
    "page.md": "this page in Markdown",
    _TFHUB_DOCUMENT: "documentation for TensorFlow Hub",
    "stages.svg": "diagram of the stages",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model in a hub, and what its page is made of.

    Args:
      folder: of the SavedModel, on this machine.
      report: its conformance report.
      handle: its handle.
      other: handle of the other model of the pair.
      files: size and SHA-256 of its other files in the hub, by path.
      previous: `version`, `manifest` and `report` of the version before, or None.
      assets: paths of the folders of assets in the hub, by name.
      signer: fingerprint of the key that signs it, or "".
    """

    folder: pathlib.Path
    report: Mapping[str, Any]
    handle: str
    other: str
    files: hub_paths.Files
    previous: Mapping[str, Any] | None
    assets: Mapping[str, str]
    signer: str = ""

    @property
    def documents(self) -> str:
        """The folder of its documents in the hub."""
        return hub_paths.documents_folder(self.handle)

    def link(self, path: str) -> str:
        """Returns the address of a path in the hub, relative to the page."""
        return hub_paths.link(path, self.documents)

    @property
    def archives(self) -> dict[str, str]:
        """The path of each archive by its format, the SavedModel first."""
        return {
            export_formats.SAVED_MODEL.name: self.handle,
            **hub_paths.formats(self.files),
        }


def html(model: PublishedModel, *, try_it: object = None) -> str:
    """Returns the HTML page of a model in a hub.

    Args:
      model: the model.
      try_it: values of the box in which a browser runs the model; None without one.
    """
    publisher = model.handle.partition("/")[0]
    page = page_data.for_export(model.folder, model.report, publisher=publisher)
    exported = manifests.read(model.folder)
    assert exported is not None  # or else `for_export` would have raised
    manifest = dataclasses.asdict(exported)
    (page_model,) = page.models
    values = {
        **model_page.shared_values(page, picture=None),
        "hub_comment": "address of this hub",
        "page": page,
        "manifest": page.manifest,
        "model": page_model,
        "accuracy": model_page.accuracy(page.manifest),
        "paper_url": model_page.paper_url(page.manifest["paper"]),
        "archives": {name: model.link(path) for name, path in model.archives.items()},
        "folder_name": model.handle.partition("/")[2].replace("/", "-"),
        "sha256": model.files[model.handle]["sha256"],
    }

    def part(name: str, **more: str) -> str:
        return rendering.render(f"parts/{name}.md.jinja", **values, **more).strip("\n")

    def section(name: str) -> markupsafe.Markup:
        return _accessible(rendering.to_html(part(name)))

    return rendering.page(
        "hub/model.html.jinja",
        **values,
        part=part,
        section=section,
        published=model,
        title=model_page.title(page),
        warning=model_page.warning(page),
        rows=_fact_rows(page),
        root=posixpath.relpath(".", model.documents),
        front_page=model.link(hub_paths.PAGE),
        other_page=model.link(
            f"{hub_paths.documents_folder(model.other)}/{hub_paths.PAGE}"
        ),
        packages=_versions(manifest["packages"]),
        versions=_versions(page_model.suite_result.versions)
        if page_model.suite_result
        else "",
        archive_size=model.files[model.handle]["size"],
        uses={name: _use(name) for name in model.archives},
        documents=_documents(model),
        has_bom=f"{model.documents}/{BOM}" in model.files,
        try_it=try_it,
        assets={name: model.link(path) for name, path in model.assets.items()},
        class_rows=_class_rows(model.folder) if page.manifest["class_index"] else [],
        clause_rows=_clause_rows(model.report),
        changes=_changes(model, manifest),
        gin=manifest["configuration"].get("gin", []),
        facts={"models": [model_page.model_facts(page, page_model)]},
    )


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _accessible(html: markupsafe.Markup) -> markupsafe.Markup:
    """Makes code and tables scroll, also by keyboard; leaves no header empty."""
    region = '<div class="scroll" role="group" aria-label="Table" tabindex="0"><table>'
    text = str(html).replace("<pre>", '<pre tabindex="0">')
    text = text.replace("<table>", region).replace("</table>", "</table></div>")
    return markupsafe.Markup(text.replace("<th></th>", "<td></td>"))


def _fact_rows(page: page_data.PageData) -> dict[str, markupsafe.Markup]:
    """Returns the cells of the table of facts in HTML, by label."""
    rows = model_page.fact_rows(page, page.models[0])
    html = {label: rendering.to_html(_cell(cell)) for label, cell in rows.items()}
    return {
        label: markupsafe.Markup(cell.strip().removeprefix("<p>").removesuffix("</p>"))
        for label, cell in html.items()
    }


def _cell(text: str) -> str:
    is_markdown = isinstance(text, rendering.Unescaped)
    return text if is_markdown else str(rendering.escape(text))


def _use(name: str) -> markupsafe.Markup:
    known = export_formats.FORMATS.get(name)
    html = rendering.to_html(known.use if known else "").strip()
    return markupsafe.Markup(html.removeprefix("<p>").removesuffix("</p>"))


def _documents(model: PublishedModel) -> list[dict[str, Any]]:
    """Returns all files of a model but its archives: the known documents first."""
    order = list(_DOCUMENTS)
    rows = []
    for path in sorted(model.files.keys() - set(model.archives.values())):
        name = path.removeprefix(f"{model.documents}/")
        if path == f"{model.documents}.md":
            name = _TFHUB_DOCUMENT
        about = {"name": name, "label": _DOCUMENTS.get(name)}
        rows.append({"path": path, **about, **model.files[path]})
    return sorted(
        rows,
        key=lambda row: order.index(row["name"]) if row["label"] else len(order),
    )


def _class_rows(folder: pathlib.Path) -> list[tuple[str, str, str]]:
    """Reads index, id and name of each class from the table inside the model."""
    path = folder / "assets" / manifests.CLASS_INDEX
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    padded = ((*row, "", "", "")[:3] for row in itertools.islice(rows, 1, None))
    return [(row[0], row[1], row[2]) for row in padded]


def _clause_rows(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns each clause of the report, with its requirement."""
    rows = []
    for result in reports.from_json(report).clauses:
        clause = clauses.BY_ID.get(result.id)
        rows.append(
            {
                "id": result.id,
                "status": result.status,
                "text": clause.text if clause else "",
                "message": "" if result.status == reports.PASS else result.message,
            }
        )
    return rows


def _changes(
    model: PublishedModel, manifest: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what changed since the version before; None for a first version."""
    previous = model.previous
    if not previous:
        return None
    before, report = previous["manifest"], previous["report"]
    handle = f"{model.handle.rpartition('/')[0]}/{previous['version']}"
    return {
        "version": previous["version"],
        "page": model.link(f"{hub_paths.documents_folder(handle)}/{hub_paths.PAGE}"),
        "is_complete": before is not None and report is not None,
        "rows": [
            *(version_changes.of_manifests(before, manifest) if before else []),
            *(version_changes.of_reports(report, model.report) if report else []),
        ],
    }
