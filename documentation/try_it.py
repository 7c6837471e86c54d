"""The box on a classifier's page in which a browser runs the ONNX model."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from documentation import web_runtime
from exporters import manifest
from foundation import messages
from zoo import taxonomy

FORMAT = "onnx"  # the published format that the browser runs
ARCHIVE = f"formats/{FORMAT}.tar.gz"  # its address, relative to the page
SCRIPT, STYLE = "try_it.js", "try_it.css"  # files of `hub_assets` that the page loads
POLICY = "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'"
"""What the box needs of a content security policy, besides `style-src 'self'`."""
# Chromium took 2.1 GB of memory for a model of 350 MB; one of 900 MB did not fit.
LARGEST_MODEL = 400_000_000  # bytes
_LARGE_MODEL, _MEMORY = 100_000_000, 6  # bytes; bytes of memory for each of these
_MODEL, _INPUT, _OUTPUT = "model.onnx", "images", "logits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TryIt:
    """Values of `templates/parts/try_it.html.jinja`.

    Attributes:
      configuration: what `try_it.js` reads, as JSON.
      model_size: of the download with the model, in words.
      runtime_size: of the download that runs the model, in words.
      runtime_license: address of the licence of ONNX Runtime Web.
      memory: that a large model takes, in words; else empty.
      warning: a sentence about weights that were not trained; else empty.
    """

    configuration: dict[str, Any]
    model_size: str
    runtime_size: str
    runtime_license: str
    memory: str
    warning: str


def for_model(
    folder: pathlib.Path,
    *,
    runtime: Mapping[str, pathlib.Path],
    address: str,
    download: int,
) -> TryIt | None:
    """Returns the values of the box; None if a browser can't classify with the model.

    Args:
      folder: of the ONNX model.
      runtime: the result of `web_runtime.files`.
      address: of the folder with these files, relative to the page; ends with a slash.
      download: bytes of the archive with the model.

    Raises:
      ValueError: the folder has no manifest, or its class index is damaged.
    """
    record = manifest.read(folder)
    if record is None:
        raise ValueError(f"{folder} has no manifest: export it again.")
    size = (folder / _MODEL).stat().st_size
    if not runtime or record.class_index is None or size > LARGEST_MODEL:
        return None
    if record.files.keys() - {_MODEL, record.class_index["file"]}:
        return None  # weights in files of their own
    return TryIt(
        configuration=_configuration(folder, record, size)
        | {"runtime": web_runtime.configuration(runtime, address)},
        model_size=_megabytes(download),
        runtime_size=_megabytes(web_runtime.download_size(runtime)),
        runtime_license=address + web_runtime.LICENSE,
        memory=f"{_MEMORY * size / 1e9:.1f} GB" if size > _LARGE_MODEL else "",
        warning=_warning(record),
    )


def _configuration(
    folder: pathlib.Path, record: manifest.Manifest, size: int
) -> dict[str, Any]:
    """Returns what the manifest says about input, output and classes."""
    preprocessing, class_index = record.preprocessing, record.class_index
    assert class_index is not None
    classes = taxonomy.read_tsv(folder / class_index["file"])
    return {
        "classes": [messages.escape(definition.name) for definition in classes],
        "input": {
            "name": _INPUT,
            "height": preprocessing["image_size"],
            "width": preprocessing["image_size"],
            "crop_fraction": preprocessing["crop_fraction"],
            "interpolation": preprocessing["interpolation"],
            "range": record.input["range"],
        },
        "output": {"name": _OUTPUT, "scores": class_index["scores"]},
        "model": {
            "archive": ARCHIVE,
            "member": {"name": _MODEL, "size": size, "sha256": record.files[_MODEL]},
        },
    }


def _warning(record: manifest.Manifest) -> str:
    if record.weights["name"] == "random":
        return "These weights are random: the model was never trained, and it guesses."
    if record.weights.get("head"):
        return "The head of this model is random: it was never trained, and it guesses."
    return ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.{1 if size < 1e7 else 0}f} MB"
