"""Generates the front page of a hub, from the index of its models alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from documentation import model_page, page_data, rendering
from exporters import formats as export_formats
from foundation import hub_paths
from zoo.weights import registry

_TOP_1 = "top-1"
_HANDLE = re.compile(r"[\w-]+(/\w[\w.-]*){2}/\d+", re.ASCII)
_ORIGINS = {"measured": "measured here", "published": "published"}


def summary(page: page_data.PageData) -> dict[str, Any]:
    """Returns what the front page says about an exported model.

    The sizes of its archives and its formats are not in it: the index has its files.
    """
    (model,) = page.models
    manifest = model.manifest
    output = manifest["output"]
    warning = model_page.warning(page)
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
      summary: that of one of the halves; an index of an earlier program has none.
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
        if "data" not in about:
            return []
        is_trained = about["data"] != "none"
        data = f"trained on {about['data']}" if is_trained else "not trained"
        return [
            about["architecture"],
            f"{about['image_size']} px",
            data,
            about["license"],
        ]

    @property
    def title(self) -> str:
        return self.summary.get("title") or self.name.rpartition("/")[2]


def html(models: Mapping[str, Mapping[str, Any]], *, assets: Mapping[str, str]) -> str:
    """Returns the front page of a hub.

    Args:
      models: the index's entries by handle.
      assets: paths of the folders of assets, by name.
    """
    cards = _cards(models)
    summaries = [card.summary for card in cards]
    halves = [half for card in cards for half in card.halves]
    return rendering.page(
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
        assets={name: hub_paths.link(path) for name, path in assets.items()},
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
        if _HANDLE.fullmatch(handle):
            name, kind, version = handle.rsplit("/", maxsplit=2)
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
        summary=_summary(models[handles[0]]),
        halves=tuple(
            _half(kind, handle, models[handle])
            for kind, handle in zip(kinds, handles, strict=True)
        ),
        earlier={
            version: _page_link(min(versions[version].values()), models)
            for version in others
        },
    )


def _summary(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns an entry's summary; of an earlier program's, what must be said loudly."""
    is_random = entry.get("weights") == registry.RANDOM
    return entry.get("summary") or ({"warning": "random weights"} if is_random else {})


def _half(kind: str, handle: str, entry: Mapping[str, Any]) -> Half:
    about = entry.get("summary", {})
    return Half(
        task=kind,
        page=_page_link(handle, {handle: entry}),
        params=about.get("params"),
        archive_size=entry["files"].get(handle, {}).get("size", 0),
        outputs=about.get("outputs"),
        formats=(export_formats.SAVED_MODEL.name, *hub_paths.formats(entry["files"])),
    )


def _page_link(handle: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the address of a model's page; earlier programs wrote page.html."""
    files, folder = models[handle]["files"], hub_paths.documents_folder(handle)
    pages = [f"{folder}/{name}" for name in (hub_paths.PAGE, "page.html")]
    return hub_paths.link(next((page for page in pages if page in files), handle))
