"""Generates the page of an arch, or of one exported model, in Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from documentation import page_data, rendering
from zoo.weights import registry

_WIDTH, _ROW, _MARGIN = 400, 28, 14
_LONGEST_BAR, _SHORTEST_BAR = 130, 28  # in units of the SVG


def markdown(
    page: page_data.PageData,
    *,
    picture: str | None = None,
    taxonomy_link: str | None = None,
    with_json: bool = True,
) -> str:
    """Returns the page in Markdown.

    Args:
      page: data of an arch or of one exported model.
      picture: address of the diagram of its stages.
      taxonomy_link: address of the page of its class-index definition.
      with_json: whether to add the facts for programs, as JSON in a comment.
    """
    models = page.models
    checked = [model for model in models if model.suite_result]
    return rendering.render(
        "page.md.jinja",
        page=page,
        title=title(page),
        models=models,
        model=models[-1],
        checked=checked,
        measured=[
            model
            for model in checked
            if model.suite_result and model.suite_result.measured
        ],
        picture=picture,
        taxonomy_link=taxonomy_link,
        paper_url=paper_url(page.manifest["paper"]),
        published_top1=page.facts.get("published_top1"),
        published_multiply_adds=page.facts.get("published_multiply_adds"),
        training_data=training_data,
        best_weights=best_weights(page.weights),
        facts={"models": [model_facts(page, model) for model in models]}
        if with_json
        else None,
    )


def best_weights(entries: Mapping[str, registry.Entry]) -> str | None:
    """Returns the name of the weights with the best known top-1; None without any."""

    def top1(name: str) -> float:
        entry = entries[name]
        if entry.get("metrics"):
            return entry["metrics"]["test_top1"]
        return (entry.get("published_top1") or {}).get("value", 0.0)

    return max(entries, key=top1, default=None)


def html(page: page_data.PageData) -> str:
    """Returns the page of one exported model as HTML that needs no other file."""
    return rendering.to_html(
        markdown(page, picture="stages.svg"),
        title=title(page),
        pictures={"stages.svg": stages_svg(page)},
    )


def title(page: page_data.PageData) -> str:
    """Returns the title: the arch's, with the kind if the page is of one model."""
    name = page.manifest["title"]
    if len(page.models) == 2:
        return name
    return f"{name}: {rendering.words(page.models[0].kind)}"


def model_facts(page: page_data.PageData, model: page_data.ModelData) -> dict[str, Any]:
    """Returns the facts of one model for the JSON block of the page."""
    manifest = model.manifest
    return {
        "kind": model.kind,
        "input": {
            "batch": [1, None],
            "height_range": manifest["input"]["height_range"],
            "width_range": manifest["input"]["width_range"],
            "image_size": manifest["preprocessing"]["image_size"],
        },
        "output": {
            name: manifest["output"][name]
            for name in ("num_features", "num_classes")
            if name in manifest["output"]
        },
        "class_index": manifest["class_index"],
        "fine_tunable": manifest["params"]["trainable"] > 0,
        "hyperparameters": manifest["hyperparameters"],
        "endpoints": manifest["endpoints"],
        "params": manifest["params"],
        "multiply_adds": manifest["multiply_adds"],
        "paper": paper_name(manifest["paper"]),
        "data": page.data,
        "license": manifest["license"],
        "weights": manifest["weights"]["name"],
    }


def paper_name(paper: Mapping[str, str]) -> str:
    """Returns the arXiv id of a paper, or else its title."""
    return f"arXiv:{paper['arxiv']}" if paper.get("arxiv") else paper["title"]


def paper_url(paper: Mapping[str, str]) -> str:
    """Returns the arXiv URL of a paper; empty without a valid arXiv id."""
    number = paper.get("arxiv", "")
    is_number = number.replace(".", "").isdigit()
    return f"https://arxiv.org/abs/{number}" if is_number else ""


def training_data(entry: registry.Entry) -> str:
    """Returns the title of the data set that registered weights were trained on."""
    name = entry.get("taxonomy") or entry.get("data") or ""
    return page_data.dataset_title(name) if name else "see the source"


def stages_svg(page: page_data.PageData) -> str:
    """Draws the stages as SVG: a bar each, longer for larger feature maps."""
    manifest = page.manifest
    side = manifest["preprocessing"]["image_size"]
    endpoints = manifest["endpoints"]
    shapes = {name.split("/")[-1]: shape for name, shape in endpoints.items()}
    shapes = {"images": [side, side, 3], **shapes}
    if num_features := manifest["output"].get("num_features"):
        shapes["feature_vector"] = [num_features]
    rows = [
        {
            "name": rendering.words(name),
            "shape": " × ".join(map(str, shape)),
            "blocks": manifest["blocks"].get(name),
            "side": _bar_length(shape[0] if len(shape) == 3 else 1, side),
            "y": _MARGIN + number * _ROW,
        }
        for number, (name, shape) in enumerate(shapes.items())
    ]
    return rendering.render(
        "stages.svg.jinja",
        title=f"The stages of {manifest['title']}",
        rows=rows,
        width=_WIDTH,
        height=2 * _MARGIN + len(rows) * _ROW - 8,
    )


def _bar_length(pixels: int, largest: int) -> int:
    """Returns a bar's length, linear in the logarithm of a side in pixels."""
    share = math.log2(pixels + 1) / math.log2(largest + 1)
    return round(_SHORTEST_BAR + (_LONGEST_BAR - _SHORTEST_BAR) * share)
