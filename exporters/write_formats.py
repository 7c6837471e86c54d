"""Writes the pair of a built model in each requested format."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import typing
from collections.abc import Sequence

import tensorflow as tf

from exporters import comparison, describe, export_folder, formats, manifest
from exporters import request as requests
from foundation import progress, stderr
from zoo import facts
from zoo import model as zoo_model

_LOG = progress.logger(__name__)

Folders = dict[str, pathlib.Path]


def write(
    request: requests.Request,
    model: zoo_model.ImageModel,
    requested: Sequence[formats.Format],
    folder: pathlib.Path,
) -> dict[formats.Format, Folders]:
    """Writes a pair with manifests in each format, in subfolders of `folder` by format.

    Converted formats are compared with the SavedModels of the same build. These, and
    formats that others are converted from, are written even if they are not requested.
    The report of the comparison is written to the folder of the pair.

    Returns:
      The folders of both models by kind, for each format.

    Raises:
      formats.ExportCheckError: a converted model differs too much.
      OSError: a file can't be written, for example because the disk is full.
    """
    converted = [entry for entry in requested if entry.is_converted]
    references = [formats.SAVED_MODEL] if converted else []
    sources = [entry.source for entry in converted if entry.source]
    pairs: dict[formats.Format, Folders] = {}
    # Always in one order: TensorFlow numbers functions in a process, and SavedModels
    # hold the numbers.
    for export_format in formats.FORMATS.values():
        if export_format not in (*references, *sources, *requested):
            continue
        _LOG.info(f"write {export_format.name}")
        is_converted = export_format.is_converted
        with stderr.silenced() if is_converted else contextlib.nullcontext():
            folders = _save(export_format, model, folder / export_format.name, pairs)
        describe.write_manifests(request, model, export_format, folders)
        pairs[export_format] = folders
    for export_format in converted:
        report = _compare(request, model, export_format, pairs)
        path = folder / export_format.name / export_folder.REPORT
        path.write_text(manifest.to_json(report), encoding="utf-8")
    return pairs


def _compare(
    request: requests.Request,
    model: zoo_model.ImageModel,
    export_format: formats.Format,
    pairs: dict[formats.Format, Folders],
) -> manifest.JsonObject:
    """Compares a converted pair with the SavedModels, and returns the report."""
    _LOG.info(f"compare {export_format.name} with saved_model")
    with stderr.silenced():
        models = _load(export_format, pairs)
        accepted = facts.ranges(
            request.definition.facts, only_size=model.spec.only_size
        )
        smallest_width, _ = accepted["width_range"]
        report = comparison.compare(
            model,
            export_format,
            models,
            pairs[formats.SAVED_MODEL],
            smallest_width=smallest_width,
        )
    comparison.check_limits(model, models, report)
    for line in comparison.summary_lines(model, report):
        _LOG.info(f"{export_format.name}: {line}")
    return report


def _load(
    export_format: formats.Format, pairs: dict[formats.Format, Folders]
) -> dict[str, list[comparison.ConvertedModel]]:
    """Loads both converted models, by kind."""
    load = _module(export_format).load
    folders = pairs[export_format]
    if export_format.source is None:
        return {kind: load(path) for kind, path in folders.items()}
    source = pairs[export_format.source]
    return {kind: load(path, source[kind]) for kind, path in folders.items()}


def _save(
    export_format: formats.Format,
    model: zoo_model.ImageModel,
    folder: pathlib.Path,
    pairs: dict[formats.Format, Folders],
) -> Folders:
    """Writes both models in one format, with the class index of the classifier."""
    folder.mkdir()
    save = _module(export_format).save
    try:
        if export_format.source is None:
            save(model, folder)
        else:
            save(model, folder, pairs[export_format.source])
    except tf.errors.OpError as error:
        # "{{node …}} FILE; No space left on device [Op:SaveV2]"
        reason = error.message.rpartition("; ")[2].split(" [Op:")[0]
        raise OSError(f"Can't write below {folder.parent}: {reason}") from error
    except OSError as error:
        if error.errno is None or error.filename:  # the message has the path
            raise
        parent = folder.parent
        raise OSError(f"Can't write below {parent}: {error.strerror}") from error
    class_index = folder / "classification" / "assets" / manifest.CLASS_INDEX
    if not class_index.exists():
        class_index.parent.mkdir(exist_ok=True)
        class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    return {kind: folder / kind for kind in manifest.KINDS}


def _module(export_format: formats.Format) -> typing.Any:
    """Imports the module that writes a format."""
    return importlib.import_module(f"{__package__}.{export_format.name}")
