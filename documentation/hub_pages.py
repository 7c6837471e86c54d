"""Generates the pages of a hub in a folder: a front page, and a page for each model.

The texts about a model are those of its Markdown page, from `templates/parts`. Pages have
no scripts or styles inside, which their content security policy would forbid: these are
in `hub_assets`, and work without them but for search and buttons.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import pathlib
import posixpath
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import markupsafe

from conformance import clauses
from conformance import report as reports
from documentation import model_page, page_data, rendering, version_changes
from exporters import formats as export_formats
from exporters import manifest as manifests
from foundation import messages

ASSETS = pathlib.Path(__file__).with_name("hub_assets")
BOM = "bom.cdx.json"
_PAGE = "index.html"  # of the hub, and of each model
_ASSETS_OF_PAGES = "pages"  # name of their folder of assets
_FORMATS = "formats/"
_ARCHIVE = ".tar.gz"
_TOP_1 = "top-1"
_ORIGINS = {"measured": "measured here", "published": "published"}
_DOCUMENTS = {  # what documents are, by name
    "conformance.json": "conformance report",
    BOM: "bill of materials (CycloneDX)",
    "page.md": "this page in Markdown",
    "stages.svg": "diagram of the stages",
}

Files = Mapping[str, Mapping[str, Any]]


class Pages:
    """Writes the pages of a hub; see `publishing.hub_site.Pages`.

    Args:
      extra_assets: more folders of assets, by name.
      signer: fingerprint of the key that signs the models; "" if none does.
    """

    def __init__(
        self,
        extra_assets: Mapping[str, pathlib.Path] | None = None,
        signer: str = "",
    ):
        folders = {_ASSETS_OF_PAGES: ASSETS, **(extra_assets or {})}
        self.assets = {name: _files_below(path) for name, path in folders.items()}
        self.signer = signer

    def summary(self, model: pathlib.Path, report: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the front page says about a model, for the hub's index."""
        return summary(page_data.for_export(model, report))

    def model_page(
        self,
        model: pathlib.Path,
        report: Mapping[str, Any],
        *,
        handle: str,
        other: str,
        files: Files,
        previous: Mapping[str, Any] | None,
        assets: Mapping[str, str],
    ) -> str:
        """Returns the page of a model; see `publishing.hub_site.Pages`."""
        published = PublishedModel(
            folder=model,
            report=report,
            handle=handle,
            other=other,
            files=files,
            previous=previous,
            assets=assets,
            signer=self.signer,
        )
        return model_html(published)

    def front_page(
        self, models: Mapping[str, Mapping[str, Any]], *, assets: Mapping[str, str]
    ) -> str:
        """Returns the front page of a hub with these models, by handle."""
        return front_page(models, assets=assets)


def _files_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


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
    files: Files
    previous: Mapping[str, Any] | None
    assets: Mapping[str, str]
    signer: str = ""

    @property
    def documents(self) -> str:
        """The folder of its documents in the hub."""
        publisher, _, name = self.handle.partition("/")
        return f"{publisher}/models/{name}"

    def link(self, path: str) -> str:
        """Returns the address of a path in the hub, relative to the page."""
        return link(path, self.documents)

    @property
    def archives(self) -> dict[str, str]:
        """The path of each archive by its format, the SavedModel first."""
        return {export_formats.SAVED_MODEL.name: self.handle, **formats(self.files)}


def link(path: str, folder: str = "") -> str:
    """Returns the address of a path in the hub, relative to a page in `folder`.

    It begins with a dot, so that no name in the path is taken for a scheme.
    """
    relative = posixpath.relpath(path, folder or ".")
    start = "" if relative.startswith("../") else "./"
    return start + urllib.parse.quote(relative)


def formats(files: Iterable[str]) -> dict[str, str]:
    """Returns the archives of other formats among a model's files, by format."""
    return {
        posixpath.basename(path).removesuffix(_ARCHIVE): path
        for path in sorted(files)
        if path.endswith(_ARCHIVE)
        and posixpath.basename(posixpath.dirname(path)) + "/" == _FORMATS
    }


def summary(page: page_data.PageData) -> dict[str, Any]:
    """Returns what the front page says about an exported model.

    The sizes of its archives and its formats are not in it: the index has its files.
    """
    (model,) = page.models
    manifest = model.manifest
    output = manifest["output"]
    warning = _warning(page)
    accuracy = model_page.accuracy(manifest)
    return {
        "title": manifest["title"],
        "task": model.kind,
        "architecture": manifest["architecture"],
        "image_size": manifest["preprocessing"]["image_size"],
        "params": manifest["params"]["all"],
        "multiply_adds": manifest["multiply_adds"],
        "outputs": output.get("num_classes", output.get("num_features")),
        "accuracy": None if warning or not accuracy else accuracy,
        "license": manifest["license"],
        "data": page.data,
        "warning": warning,
    }


def _warning(page: page_data.PageData) -> str:
    if page.is_random:
        return "random weights"
    return "random head" if page.manifest["weights"].get("head") else ""


def model_html(model: PublishedModel) -> str:
    """Returns the HTML page of a model in a hub."""
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
        return _focusable(rendering.to_html(part(name)))

    return _render(
        "hub/model.html.jinja",
        **values,
        part=part,
        section=section,
        published=model,
        full_manifest=manifest,
        title=model_page.title(page),
        warning=_warning(page),
        rows=_fact_rows(page),
        root=posixpath.relpath(".", model.documents),
        front_page=model.link(_PAGE),
        other_page=model.link(f"{_documents(model.other)}/{_PAGE}"),
        packages=_versions(manifest["packages"]),
        versions=_versions(page_model.suite_result.versions)
        if page_model.suite_result
        else "",
        archive_size=model.files[model.handle]["size"],
        uses={name: _use(name) for name in model.archives},
        documents=_documents_of(model),
        has_bom=f"{model.documents}/{BOM}" in model.files,
        onnx=values["archives"].get("onnx", ""),
        assets={name: model.link(path) for name, path in model.assets.items()},
        class_rows=_class_rows(model.folder) if page.manifest["class_index"] else [],
        clause_rows=_clause_rows(model.report),
        changes=_changes(model, manifest),
        gin=manifest["configuration"].get("gin", []),
        facts={"models": [model_page.model_facts(page, page_model)]},
    )


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _documents(handle: str) -> str:
    publisher, _, name = handle.partition("/")
    return f"{publisher}/models/{name}"


def _focusable(html: markupsafe.Markup) -> markupsafe.Markup:
    """Lets the keyboard scroll code, which may be wider than the page."""
    return markupsafe.Markup(html.replace("<pre>", '<pre tabindex="0">'))


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


def _documents_of(model: PublishedModel) -> list[dict[str, Any]]:
    """Returns all files of a model but its archives: the known documents first."""
    archives = set(model.archives.values())
    order = list(_DOCUMENTS)
    rows = []
    for path, entry in model.files.items():
        name = path.removeprefix(f"{model.documents}/")
        if path in archives:
            continue
        rows.append(
            {"path": path, "name": name, "label": _DOCUMENTS.get(name), **entry}
        )
        rows[-1]["rank"] = order.index(name) if name in order else len(order)
    return sorted(rows, key=lambda row: (row["rank"], row["path"]))


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
        "page": model.link(f"{_documents(handle)}/{_PAGE}"),
        "is_complete": before is not None and report is not None,
        "rows": [
            *(version_changes.of_manifests(before, manifest) if before else []),
            *(version_changes.of_reports(report, model.report) if report else []),
        ],
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
    """A model of a pair on the front page, in its latest version."""

    task: str
    page: str
    params: int | None
    archive_size: int
    outputs: int | None
    formats: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A pair on the front page, in its latest version.

    Attributes:
      name: PUBLISHER/ARCH.
      version: the latest.
      summary: that of one of the halves; empty if an older program published them.
      halves: the models.
      earlier: link of each earlier version, by version.
    """

    name: str
    version: int
    summary: Mapping[str, Any]
    halves: tuple[Half, ...]
    earlier: Mapping[int, str]

    @property
    def facts(self) -> list[str]:
        """What a card says below the title."""
        about = self.summary
        if not about:
            return []
        data = (
            "not trained" if about["data"] == "none" else f"trained on {about['data']}"
        )
        return [
            about["architecture"],
            f"{about['image_size']} px",
            data,
            about["license"],
        ]

    @property
    def title(self) -> str:
        return self.summary.get("title") or self.name.rpartition("/")[2]


def front_page(
    models: Mapping[str, Mapping[str, Any]], *, assets: Mapping[str, str]
) -> str:
    """Returns the front page of a hub.

    Args:
      models: the index's entries by handle.
      assets: paths of the folders of assets, by name.
    """
    cards = _cards(models)
    summaries = [card.summary for card in cards]
    halves = [half for card in cards for half in card.halves]
    return _render(
        "hub/front.html.jinja",
        cards=cards,
        model_count=len(halves),
        kind_names=model_page.KIND_NAMES,
        tasks=[
            (task, model_page.KIND_NAMES.get(task, task))
            for task, _ in _choices(half.task for half in halves)
        ],
        architectures=_choices(about.get("architecture") for about in summaries),
        sizes=_size_choices([half.params for half in halves if half.params]),
        accuracies=_accuracy_choices(summaries),
        origins=[
            (name, _ORIGINS.get(name, name))
            for name, _ in _choices(
                (about.get("accuracy") or {}).get("origin") for about in summaries
            )
        ],
        licenses=_choices(about.get("license") for about in summaries),
        formats=_choices(name for half in halves for name in half.formats),
        assets={name: link(path) for name, path in assets.items()},
    )


def _choices(values: Iterable[str | None]) -> list[tuple[str, str]]:
    """Returns the values of a filter with their texts, without repetition."""
    names = sorted({value for value in values if value}, key=str.casefold)
    return [(name, name) for name in names]


def _size_choices(params: list[int]) -> list[tuple[str, str]]:
    """Returns 0.1, 0.2, 0.5, 1 … million, as far as they tell the models apart."""
    steps = [step * 10**power for power in range(5, 11) for step in (1, 2, 5)]
    return [
        (str(step), f"up to {step / 1e6:g} M")
        for step in steps
        if params and min(params) <= step < max(params)
    ]


def _accuracy_choices(summaries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    tops = [
        100 * about["accuracy"]["value"]
        for about in summaries
        if about.get("accuracy") and about["accuracy"]["metric"] == _TOP_1
    ]
    return [
        (str(step), f"{step} % or more")
        for step in (50, 60, 70, 75, 80, 85, 90, 95)
        if tops and step <= max(tops)
    ]


def _cards(models: Mapping[str, Mapping[str, Any]]) -> list[Card]:
    """Groups handles by publisher and arch, in the order of their titles."""
    groups: dict[str, dict[int, dict[str, str]]] = {}
    for handle in models:
        parts = handle.rsplit("/", maxsplit=2)
        if len(parts) == 3 and parts[2].isascii() and parts[2].isdigit():
            name, kind, version = parts
            groups.setdefault(name, {}).setdefault(int(version), {})[kind] = handle
    cards = [_card(name, versions, models) for name, versions in groups.items()]
    return sorted(cards, key=lambda card: (card.title.casefold(), card.name))


def _card(
    name: str,
    versions: Mapping[int, Mapping[str, str]],
    models: Mapping[str, Mapping[str, Any]],
) -> Card:
    latest, *others = sorted(versions, reverse=True)
    kinds = sorted(versions[latest])
    handles = [versions[latest][kind] for kind in kinds]
    return Card(
        name=name,
        version=latest,
        summary=models[handles[0]].get("summary", {}),
        halves=tuple(
            _half(kind, handle, models[handle])
            for kind, handle in zip(kinds, handles, strict=True)
        ),
        earlier={
            version: _page_link(min(versions[version].values()), models)
            for version in others
        },
    )


def _half(kind: str, handle: str, entry: Mapping[str, Any]) -> Half:
    about = entry.get("summary", {})
    return Half(
        task=kind,
        page=_page_link(handle, {handle: entry}),
        params=about.get("params"),
        archive_size=entry["files"].get(handle, {}).get("size", 0),
        outputs=about.get("outputs"),
        formats=(export_formats.SAVED_MODEL.name, *formats(entry["files"])),
    )


def _page_link(handle: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the address of a model's page; hubs of earlier versions have page.html."""
    files, folder = models[handle]["files"], _documents(handle)
    names = [name for name in (_PAGE, "page.html") if f"{folder}/{name}" in files]
    return link(f"{folder}/{names[0]}" if names else handle)


def _render(template: str, **values: Any) -> str:
    """Renders a page, in which characters that can't be seen appear as escapes.

    Marks that turn the direction of text could make a page say what it does not.
    """
    return messages.escape(rendering.render(template, **values))
