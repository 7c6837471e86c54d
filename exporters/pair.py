"""Exports an arch as a pair of models: a feature vector and a classifier.

OUT/ARCH/feature_vector/VERSION/   images -> [B, num_features]
OUT/ARCH/classification/VERSION/   images -> [B, num_classes]
OUT/ARCH/pair-VERSION.json         written last: the pair is complete

Formats other than SavedModel have the same layout in OUT/ARCH/FORMAT/.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from exporters import export_folder, formats, manifest
from exporters import request as requests
from foundation import atomic, progress, stderr

_LOG = progress.logger(__name__)

Folders = dict[str, pathlib.Path]


def export(
    request: requests.Request,
    *,
    check: Callable[[Folders], Sequence[str]] | None,
) -> list[pathlib.Path]:
    """Writes the pair in each format, except where it already exists.

    Args:
      request: model, formats and output folder.
      check: called with the folders of a pair by kind, before they are moved to their
        final folders; returns a one-line message for each failure. None skips checks.

    Returns:
      For each format, the folders of both models and the pair file.

    Raises:
      formats.ExportCheckError: the check failed; no model was moved to its final
        folder.
      ValueError: the request is invalid, or another export exists at a target path.
      OSError: a file can't be written; no incomplete files are left.
    """
    identity = request.identity()
    paths = [path for folder in request.export_folders for path in folder.paths]
    with atomic.locked(request.folder):
        missing = request.missing(identity)
        if not missing:
            hint = "; tools/check checks it again" if check else ""
            _LOG.info(f"exported already, nothing to do{hint}")
            return paths
        with atomic.staging_folder(request.folder) as staged:
            _LOG.info("import TensorFlow and Keras")
            with stderr.silenced():
                from exporters import building, write_formats
            _LOG.info("build")
            model = building.build(request)
            requested = [target.format for target in missing]
            pairs = write_formats.write(request, model, requested, staged)
            for export_format in requested:
                if check and export_format.has_clauses:
                    _LOG.info(f"check {export_format.name}")
                    if failures := check(pairs[export_format]):
                        raise formats.ExportCheckError("\n".join(failures))
            for target in missing:
                _move(staged / target.format.name, target, identity)
    _LOG.info("done")
    return paths


def _move(
    staged: pathlib.Path,
    target: export_folder.ExportFolder,
    identity: manifest.JsonObject,
) -> None:
    """Moves a staged pair to its final folders, and writes the pair file last."""
    target.pair_file.unlink(missing_ok=True)
    for kind, folder in target.targets.items():
        atomic.move_into_place(staged / kind, folder)
    if target.format.is_converted:
        atomic.move_into_place(staged / export_folder.REPORT, target.report_file)
    pair_file = staged / target.pair_file.name
    manifests = {kind: manifest.read(f) for kind, f in target.targets.items()}
    hashes = {kind: record.files for kind, record in manifests.items() if record}
    record = target.pair_record(identity, hashes=hashes)
    pair_file.write_text(manifest.to_json(record), encoding="utf-8")
    atomic.move_into_place(pair_file, target.pair_file)
