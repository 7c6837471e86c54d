"""Generates the page of one exported model, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from documentation import page_data, rendering
from exporters import formats as export_formats

KIND_NAMES = {"feature_vector": "Feature vector", "classification": "Classifier"}
HUB_ADDRESS = "http://127.0.0.1:8080/"  # in code, unless the page knows its hub's
_METRICS = {  # of evaluation on held-out images
    "test_top1": "top-1",
    "test_mean_average_precision": "mean average precision",
}
_WIDTH, _ROW, _MARGIN = 400, 28, 14
_LONGEST_BAR, _SHORTEST_BAR = 130, 28  # in units of the SVG


def markdown(
    page: page_data.PageData,
    *,
    picture: str | None = None,
    formats: Sequence[str] = (),
    with_json: bool = True,
) -> str:
    """Returns the page in Markdown.

    Args:
      page: data of one exported model.
      picture: address of the diagram of its stages.
      formats: names of the other formats that the hub has the model in.
      with_json: whether to add the facts for programs, as JSON in a comment.
    """
    (model,) = page.models
    return rendering.render(
        "page.md.jinja",
        page=page,
        title=title(page),
        model=model,
        rows=fact_rows(page, model),
        paper_url=paper_url(page.manifest["paper"]),
        formats={name: export_formats.FORMATS[name].use for name in formats},
        facts={"models": [model_facts(page, model)]} if with_json else None,
        accuracy=accuracy(page.manifest),
        **shared_values(page, picture=picture),
    )


def shared_values(
    page: page_data.PageData, *, picture: str | None, taxonomy_link: str | None = None
) -> dict[str, Any]:
    """Returns the values for `templates/parts`, on an arch or on one exported model.

    Args:
      page: data of the arch or the model.
      picture: address of the diagram of its stages.
      taxonomy_link: address of the page of its class-index definition.
    """
    checked = [model for model in page.models if model.suite_result]
    return {
        "models": page.models,
        "is_pair": len(page.models) == 2,
        "kind_names": KIND_NAMES,
        "hub_address": HUB_ADDRESS,
        "hub_comment": "address of tools/serve",
        "arguments": arguments(page),
        "picture": picture,
        "taxonomy_link": taxonomy_link,
        "checked": checked,
        "measured": [
            model
            for model in checked
            if model.suite_result and model.suite_result.measured
        ],
    }


def arguments(page: page_data.PageData) -> dict[str, dict[str, Any]]:
    """Returns the arguments that calls take, by name, with their effect in words."""
    of_backbone = page.models[0].manifest["hyperparameters"]
    return {
        name: {
            **argument,
            "effect": ("" if name in of_backbone else "classifier only: ")
            + argument["effect"],
        }
        for name, argument in page.manifest["hyperparameters"].items()
    }


def title(page: page_data.PageData) -> str:
    """Returns the title of the page of one exported model: the arch's, and the kind."""
    return f"{page.manifest['title']}: {rendering.words(page.models[0].kind)}"


def fact_rows(page: page_data.PageData, model: page_data.ModelData) -> dict[str, str]:
    """Returns the table of a model's facts: the cell in Markdown, by label.

    `conformance.statements.FACTS` has the same labels.
    """
    manifest, params = model.manifest, model.manifest["params"]
    output, class_index = manifest["output"], manifest["class_index"]
    rows = {"Handle": rendering.code(page.handle(model)), "Batch": "any, from 1"}
    for label, name in (("Height", "height_range"), ("Width", "width_range")):
        low, high = manifest["input"][name]
        rows[label] = f"{low} px only" if low == high else f"{low} to {high} px"
    rows["Image size"] = f"{manifest['preprocessing']['image_size']} px"
    rows["num_features"] = _count(output.get("num_features"))
    if page.models[-1].kind == "classification":
        rows["num_classes"] = _count(output.get("num_classes"))
        rows["Scores"] = rows["Class index"] = "–"
        if class_index:
            rows["Scores"] = f"logits, for a {class_index['scores']}"
            rows["Class index"] = rendering.code(class_index["file"])
    rows["Parameters"] = _count(params["all"])
    rows["Trainable parameters"] = _count(params["trainable"])
    rows["Multiply-adds"] = _count(manifest["multiply_adds"])
    rows["Size of the values"] = f"{4 * params['all']:,} bytes"
    if len(page.models) == 1 and model.suite_result:
        rows["Size of all files"] = f"{sum(model.suite_result.sizes.values()):,} bytes"
    rows["Fine-tunable"] = "yes" if params["trainable"] else "no"
    rows["Paper"] = paper_name(page.manifest["paper"])
    rows["Data"] = page.data
    rows["Licence"] = manifest["license"]
    rows["Weights"] = manifest["weights"]["name"]
    return rows


def _count(number: int | None) -> str:
    return "–" if number is None else rendering.count(number)


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


def accuracy(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the accuracy of a model's weights: measured, or else published.

    Returns:
      `metric` (`top-1` or `mean average precision`), `value` in [0, 1], `origin`
      (`measured` or `published`) and `source`, empty if it was measured; None if no
      accuracy is known.
    """
    metrics = manifest["weights"].get("metrics", {})
    for name, metric in _METRICS.items():
        if name in metrics:
            return {
                "metric": metric,
                "value": metrics[name],
                "origin": "measured",
                "source": "",
            }
    if published := manifest["weights"].get("published_top1"):
        return {"metric": "top-1", "origin": "published", **published}
    return None


def warning(page: page_data.PageData) -> str:
    """Says which weights were never trained; empty if all were."""
    if page.is_random:
        return "random weights"
    return "random head" if page.manifest["weights"].get("head") else ""


def paper_name(paper: Mapping[str, str]) -> str:
    """Returns the arXiv id of a paper, or else its title."""
    return f"arXiv:{paper['arxiv']}" if paper.get("arxiv") else paper["title"]


def paper_url(paper: Mapping[str, str]) -> str:
    """Returns the arXiv URL of a paper; empty without a valid arXiv id."""
    number = paper.get("arxiv", "")
    is_number = number.replace(".", "").isdigit()
    return f"https://arxiv.org/abs/{number}" if is_number else ""


def stages_svg(page: page_data.PageData) -> str:
    """Draws the stages as SVG: a bar each, longer for larger feature maps."""
    manifest = page.manifest
    side = manifest["preprocessing"]["image_size"]
    shapes = {"images": [side, side, 3], **page.shapes}
    shapes.pop("attention", None)  # beside the path from images to vectors
    if num_features := manifest["output"].get("num_features"):
        shapes["feature_vector"] = [num_features]
    tokens_side = shapes.get("patches", [1])[0]
    sides = {1: 1, 2: tokens_side}  # of vectors and of tokens; else that of the map
    rows = [
        {
            "name": rendering.words(name),
            "shape": " × ".join(map(str, shape)),
            "blocks": manifest["blocks"].get(name),
            "side": _bar_length(sides.get(len(shape), shape[0]), side),
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
