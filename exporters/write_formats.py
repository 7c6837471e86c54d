"""Writes pairs of one build, in one format after the other."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import typing
from collections.abc import Sequence

import tensorflow as tf

from common import progress, stderr
from exporters import comparison, describe, export_folder, formats, manifest
from exporters import request as requests
from zoo import model as zoo_model

_LOG = progress.logger(__name__)

Folders = dict[str, pathlib.Path]


def write(
    request: requests.Request,
    model: zoo_model.ImageModel,
    wanted: Sequence[formats.Format],
    folder: pathlib.Path,
) -> dict[formats.Format, Folders]:
    """Writes a pair in each format into a folder of its name, manifests included.

    What the conformance suite has no clauses for is compared with the SavedModels of
    this build, which are written for that, and the report is written beside the pair.

    Returns:
      The halves' folders by kind, for each format.

    Raises:
      formats.UnfitError: what was converted differs too much.
      OSError: the file system refused, for one because it is full.
    """
    converted = [known for known in wanted if not known.judged]
    needed = [formats.SAVED_MODEL] if converted else []
    pairs = {}
    for known in dict.fromkeys([*needed, *wanted]):
        _LOG.info(f"write {known.name}")
        with stderr.silenced() if known in converted else contextlib.nullcontext():
            pairs[known] = _save(known, model, folder / known.name)
        describe.write_manifests(request, model, known, pairs[known])
    for known in converted:
        _LOG.info(f"compare {known.name} with saved_model")
        with stderr.silenced():
            runs = {kind: _module(known).runs(f) for kind, f in pairs[known].items()}
            report = comparison.compare(model, known, runs, pairs[formats.SAVED_MODEL])
        comparison.judge(model, runs, report)
        for line in comparison.remarks(report):
            _LOG.info(f"{known.name}: {line}")
        text = manifest.to_json(report)
        (folder / known.name / export_folder.REPORT).write_text(text, encoding="utf-8")
    return pairs


def _save(
    known: formats.Format, model: zoo_model.ImageModel, folder: pathlib.Path
) -> Folders:
    folder.mkdir()
    try:
        _module(known).save(model, folder)
    except tf.errors.OpError as error:
        # "{{node …}} FILE; No space left on device [Op:SaveV2]"
        reason = error.message.rpartition("; ")[2].split(" [Op:")[0]
        raise OSError(f"Can't write below {folder.parent}: {reason}") from error
    except OSError as error:
        if error.errno is None or error.filename:  # it says where
            raise
        where = folder.parent
        raise OSError(f"Can't write below {where}: {error.strerror}") from error
    class_index = folder / "classification" / "assets" / manifest.CLASS_INDEX
    if not class_index.exists():
        class_index.parent.mkdir()
        class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    return {kind: folder / kind for kind in manifest.KINDS}


def _module(known: formats.Format) -> typing.Any:
    return importlib.import_module(f"exporters.{known.name}")
