"""Writes the pages of a hub in a folder, for `publishing.hub`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from documentation import hub_front_page, hub_model_page, page_data
from foundation import hub_paths

ASSETS = pathlib.Path(__file__).with_name("hub_assets")
_OWN, _RUNTIME = "pages", "runtime"  # names of folders of assets
_ONNX = "onnx"


class Pages:
    """Writes the pages of a hub; see `publishing.hub_site.Pages`.

    Args:
      runtime: files that run models in a browser, by path.
      try_it: takes the folder of an ONNX model, the `address` of the folder of these
        files, which ends with a slash, and the bytes of the `download`. Returns the
        values of `try_it` in `templates/parts/try_it.html.jinja`; None if a browser
        can't run the model.
      signer: fingerprint of the key that signs the models; "" if none does.
    """

    def __init__(
        self,
        *,
        runtime: Mapping[str, pathlib.Path] | None = None,
        try_it: Callable[..., object] | None = None,
        signer: str = "",
    ):
        self.assets: Mapping[str, Mapping[str, pathlib.Path]] = {
            _OWN: _files_below(ASSETS),
            _RUNTIME: runtime or {},
        }
        self.signer = signer
        self._try_it = try_it

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
        formats: Mapping[str, pathlib.Path],
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
        try_it = None
        is_classifier = report["kind"] == "classification"
        if self._try_it and _RUNTIME in assets and is_classifier and _ONNX in formats:
            address = f"{published.link(assets[_RUNTIME])}/"
            archive = hub_paths.format_archive(handle, _ONNX)
            try_it = self._try_it(
                formats[_ONNX], address=address, download=files[archive]["size"]
            )
        return hub_model_page.html(published, try_it=try_it)

    def front_page(
        self, models: Mapping[str, Mapping[str, Any]], *, assets: Mapping[str, str]
    ) -> str:
        """Returns the front page of a hub with these models, by handle."""
        return hub_front_page.html(models, assets=assets)


def _files_below(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}
