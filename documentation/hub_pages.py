"""Writes the pages of a hub in a folder, for `publishing.hub`."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from documentation import hub_front_page, hub_model_page, hub_paths, page_data

ASSETS = pathlib.Path(__file__).with_name("hub_assets")
_ASSETS_OF_PAGES = "pages"  # name of their folder of assets


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
        return hub_front_page.summary(page_data.for_export(model, report))

    def model_page(
        self,
        model: pathlib.Path,
        report: Mapping[str, Any],
        *,
        handle: str,
        other: str,
        files: hub_paths.Files,
        previous: Mapping[str, Any] | None,
        assets: Mapping[str, str],
    ) -> str:
        """Returns the page of a model; see `publishing.hub_site.Pages`."""
        published = hub_model_page.PublishedModel(
            folder=model,
            report=report,
            handle=handle,
            other=other,
            files=files,
            previous=previous,
            assets=assets,
            signer=self.signer,
        )
        return hub_model_page.html(published)

    def front_page(
        self, models: Mapping[str, Mapping[str, Any]], *, assets: Mapping[str, str]
    ) -> str:
        """Returns the front page of a hub with these models, by handle."""
        return hub_front_page.html(models, assets=assets)


def _files_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}
