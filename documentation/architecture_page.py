"""Generates the page of an architecture, which has all of its archs, in Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from documentation import model_page, page_data, rendering
from zoo import config
from zoo.weights import registry

_OWN_COLUMNS = ("Image size", "num_features")  # of the first table of archs
_WITHOUT_COLUMNS = ("Handle", "Size of the values")  # which follow from other values
_SETTINGS_WITH_COLUMNS = ("image_size",)  # in the first table of archs

_PUBLISHED = {"published_top1", "published_multiply_adds"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a row for each arch.

    Args:
      columns: the headers after the column of archs.
      rows: the cells after the arch, by arch.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[object]]


def markdown(architecture: page_data.Architecture) -> str:
    """Returns the page of an architecture in Markdown.

    Values that all archs share are stated once; the others are columns of tables. The
    diagram, the table of endpoints and the examples are of the default arch.
    """
    variants, page = architecture.variants, architecture.default
    return rendering.render(
        "architecture.md.jinja",
        architecture=architecture,
        variants=variants,
        page=page,
        best_weights={each.arch: best_weights(each) for each in variants},
        other_networks=[
            (each.arch, name, entry["network"])
            for each in variants
            for name, entry in each.weights.items()
            if "network" in entry
        ],
        papers=_papers([page, *variants]),
        common_facts=_common_facts(variants),
        counts=_varying_facts(variants),
        settings=_varying(variants, _settings),
        shapes=_varying(variants, _shapes),
        blocks=_varying(variants, lambda each: each.manifest["blocks"]),
        with_suite=[_suite_values(each) for each in variants if _was_checked(each)],
        published=[each for each in variants if _PUBLISHED & each.facts.keys()],
        published_notes=_published_notes(variants),
        classes=page_data.dataset_title(page.taxonomy),
        training_data=training_data,
        **{
            **model_page.shared_values(
                page,
                picture=f"{architecture.page_name}.svg",
                taxonomy_link=f"../class_index/{page.taxonomy}.md",
            ),
            "arguments": _arguments(architecture),
        },
    )


def best_weights(page: page_data.PageData) -> str | None:
    """Returns the name of the weights with the best known top-1; None without any.

    Weights for the arch's own classes are better than others.
    """

    def rank(name: str) -> tuple[bool, float]:
        entry = page.weights[name]
        if entry.get("metrics"):
            top1 = entry["metrics"]["test_top1"]
        else:
            top1 = (entry.get("published_top1") or {}).get("value", 0.0)
        return entry.get("taxonomy") == page.taxonomy, top1

    return max(page.weights, key=rank, default=None)


def training_data(entry: registry.Entry) -> str:
    """Returns the title of the data set that registered weights were trained on."""
    name = entry.get("taxonomy") or entry.get("data") or ""
    return page_data.dataset_title(name) if name else "see the source"


def _papers(variants: Iterable[page_data.PageData]) -> list[dict[str, str]]:
    """Returns the different papers: title, name, and URL if there is one.

    `where` is the place in a paper, if it is the same for all archs.
    """
    papers = {
        (paper["title"], model_page.paper_name(paper)): {
            "title": paper["title"],
            "name": model_page.paper_name(paper),
            "url": model_page.paper_url(paper),
        }
        for paper in (page.manifest["paper"] for page in variants)
    }
    places = {page.manifest["paper"].get("where", "") for page in variants}
    where = places.pop() if len(places) == 1 else ""
    return [{**paper, "where": where} for paper in papers.values()]


def _common_facts(
    variants: Sequence[page_data.PageData],
) -> dict[str, list[str]]:
    """Returns the facts that all archs share: the cells of both models, by label."""
    first, *others = (_facts(page) for page in variants)
    return {
        label: cells
        for label, cells in first.items()
        if all(facts[label] == cells for facts in others)
    }


def _varying_facts(variants: Sequence[page_data.PageData]) -> Table:
    """Returns the facts that differ between archs, in columns for both models."""

    def columns(page: page_data.PageData) -> dict[str, str]:
        values = {}
        for label, cells in _facts(page).items():
            if label in (*_OWN_COLUMNS, *_WITHOUT_COLUMNS):
                continue
            for model, cell in zip(page.models, cells, strict=True):
                kind = model_page.KIND_NAMES[model.kind].lower()
                values[f"{label}, {kind}"] = cell
        return values

    return _varying(variants, columns)


def _facts(page: page_data.PageData) -> dict[str, list[str]]:
    tables = [model_page.fact_rows(page, model) for model in page.models]
    return {label: [table[label] for table in tables] for label in tables[0]}


def _varying(
    variants: Sequence[page_data.PageData],
    columns: Callable[[page_data.PageData], Mapping[str, object]],
) -> Table:
    """Returns a table of the columns in which at least two archs differ.

    Args:
      variants: the archs.
      columns: returns an arch's cells by column.
    """
    if len(variants) == 1:
        return Table(columns=[], rows={})
    cells = {page.arch: columns(page) for page in variants}
    names = dict.fromkeys(name for each in cells.values() for name in each)
    values = {name: [each.get(name, "–") for each in cells.values()] for name in names}
    varying = {name: all_of for name, all_of in values.items() if len(set(all_of)) > 1}
    return Table(
        columns=list(varying),
        rows={
            arch: [all_of[number] for all_of in varying.values()]
            for number, arch in enumerate(cells)
        },
    )


def _settings(page: page_data.PageData) -> dict[str, str]:
    """Returns the settings of the backbone, and what the text states for one arch."""
    manifest = page.manifest
    values = {
        "Mean": manifest["normalization"]["mean"],
        "Standard deviation": manifest["normalization"]["std"],
        "Central crop": manifest["preprocessing"]["crop_fraction"],
        "Interpolation": manifest["preprocessing"]["interpolation"],
        "Weight decay": manifest["weight_decay"],
        "Classes": (manifest["class_index"] or {}).get("taxonomy", "–"),
    }
    for name, argument in manifest["hyperparameters"].items():
        values[name] = argument["default"]
    for name, value in config.backbone_settings(page.arch).items():
        if name not in (*values, *_SETTINGS_WITH_COLUMNS):
            values[name] = value
    values["In the paper"] = manifest["paper"].get("where", "–")
    return {
        name: f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }


def _arguments(architecture: page_data.Architecture) -> dict[str, dict[str, Any]]:
    """Returns the arguments that calls of the default arch or of another arch take."""
    default = architecture.default
    arguments = model_page.arguments(default)
    for page in architecture.variants:
        for name, argument in model_page.arguments(page).items():
            effect = f"not of {default.arch}: {argument['effect']}"
            arguments.setdefault(name, {**argument, "default": "–", "effect": effect})
    return arguments


def _shapes(page: page_data.PageData) -> dict[str, str]:
    """Returns the shape of each endpoint but vectors, by its short name."""
    return {
        name: _shape(shape) for name, shape in page.shapes.items() if len(shape) > 1
    }


def _shape(shape: Sequence[int]) -> str:
    """Formats a shape without the batch dimension: `48² × 16`, `48 × 32 × 16`."""
    if len(shape) == 3 and shape[0] == shape[1]:
        return f"{shape[0]}² × {shape[2]}"
    return " × ".join(map(str, shape))


def _was_checked(page: page_data.PageData) -> bool:
    return any(model.suite_result for model in page.models)


def _suite_values(page: page_data.PageData) -> dict[str, Any]:
    return {"arch": page.arch, **model_page.shared_values(page, picture=None)}


def _published_notes(variants: Iterable[page_data.PageData]) -> list[str]:
    """Returns the different notes on published accuracies."""
    facts = [page.facts.get("published_top1") or {} for page in variants]
    return list(dict.fromkeys(each["note"] for each in facts if each.get("note")))
