"""The page of an arch, or of one exported model, as Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from documentation import page_data, rendering
from zoo.weights import registry

_WIDTH, _ROW, _MARGIN = 400, 28, 14
_LONGEST_BAR, _SHORTEST_BAR = 130, 28  # of the picture's units


def markdown(
    record: page_data.PageData,
    *,
    picture: str | None = None,
    taxonomy_link: str | None = None,
    for_programs: bool = True,
) -> str:
    """The page in Markdown.

    Args:
      record: of an arch or of one exported model.
      picture: address of the picture of its stages.
      taxonomy_link: address of the page of its class-index definition.
      for_programs: whether what it says is in a comment too, as JSON.
    """
    models = record.models
    judged = [model for model in models if model.suite_result]
    return rendering.render(
        "page.md.jinja",
        record=record,
        title=title(record),
        models=models,
        model=models[-1],
        judged=judged,
        measured=[
            model
            for model in judged
            if model.suite_result and model.suite_result.measured
        ],
        picture=picture,
        taxonomy_link=taxonomy_link,
        paper_url=paper_url(record.about["paper"]),
        published_top1=record.known.get("published_top1"),
        published_multiply_adds=record.known.get("published_multiply_adds"),
        data_of=data_of,
        facts={"models": [facts_of(record, model) for model in models]}
        if for_programs
        else None,
    )


def html(record: page_data.PageData) -> str:
    """The page of one exported model in HTML that needs nothing beside it."""
    return rendering.to_html(
        markdown(record, picture="stages.svg"),
        title=title(record),
        pictures={"stages.svg": stages(record)},
    )


def title(record: page_data.PageData) -> str:
    """Of the page: the arch's, and which model it is of, if it is of one."""
    name = record.about["title"]
    if len(record.models) == 2:
        return name
    return f"{name}: {rendering.words(record.models[0].kind)}"


def facts_of(record: page_data.PageData, model: page_data.ModelData) -> dict[str, Any]:
    """What the page says of one model, for programs."""
    about = model.about
    return {
        "kind": model.kind,
        "input": {
            "batch": [1, None],
            "height_range": about["input"]["height_range"],
            "width_range": about["input"]["width_range"],
            "image_size": about["preprocessing"]["image_size"],
        },
        "output": {
            name: about["output"][name]
            for name in ("num_features", "num_classes")
            if name in about["output"]
        },
        "class_index": about["class_index"],
        "fine_tunable": about["params"]["trainable"] > 0,
        "hyperparameters": about["hyperparameters"],
        "endpoints": about["endpoints"],
        "params": about["params"],
        "multiply_adds": about["multiply_adds"],
        "paper": paper_name(about["paper"]),
        "data": record.data,
        "license": about["license"],
        "weights": about["weights"]["name"],
    }


def paper_name(paper: Mapping[str, str]) -> str:
    """By what the paper is found: its number at arXiv, or its title."""
    return f"arXiv:{paper['arxiv']}" if paper.get("arxiv") else paper["title"]


def paper_url(paper: Mapping[str, str]) -> str:
    """The address of a paper at arXiv, or nothing."""
    number = paper.get("arxiv", "")
    is_number = number.replace(".", "").isdigit()
    return f"https://arxiv.org/abs/{number}" if is_number else ""


def data_of(known: registry.Entry) -> str:
    """What weights of the registry were trained on."""
    name = known.get("taxonomy") or known.get("data") or ""
    return page_data.data_title(name) if name else "see the source"


def stages(record: page_data.PageData) -> str:
    """The picture of the stages: SVG, a bar for each as wide as its image is large."""
    about = record.about
    side = about["preprocessing"]["image_size"]
    shapes = {name.split("/")[-1]: shape for name, shape in about["endpoints"].items()}
    shapes = {"images": [side, side, 3], **shapes}
    if features := about["output"].get("num_features"):
        shapes["feature_vector"] = [features]
    rows = [
        {
            "name": rendering.words(name),
            "shape": " × ".join(map(str, shape)),
            "blocks": about["blocks"].get(name),
            "side": _bar(shape[0] if len(shape) == 3 else 1, side),
            "y": _MARGIN + number * _ROW,
        }
        for number, (name, shape) in enumerate(shapes.items())
    ]
    return rendering.render(
        "stages.svg.jinja",
        title=f"The stages of {about['title']}",
        rows=rows,
        width=_WIDTH,
        height=2 * _MARGIN + len(rows) * _ROW - 8,
    )


def _bar(pixels: int, largest: int) -> int:
    """A bar's length, by the logarithm of the side."""
    share = math.log2(pixels + 1) / math.log2(largest + 1)
    return round(_SHORTEST_BAR + (_LONGEST_BAR - _SHORTEST_BAR) * share)
