"""Exports an arch as a pair of models: a feature vector and a classifier.

OUT/ARCH/feature_vector/VERSION/   images -> [B, num_features]
OUT/ARCH/classification/VERSION/   images -> [B, num_classes]
OUT/ARCH/pair-VERSION.json         written last: the pair is complete

Other formats than SavedModels stand likewise in OUT/ARCH/FORMAT/.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from common import atomic, progress, stderr
from exporters import export_folder, formats, manifest
from exporters import request as requests

_LOG = progress.logger(__name__)

Folders = dict[str, pathlib.Path]


def export(
    request: requests.Request,
    *,
    check: Callable[[Folders], Sequence[str]] | None,
) -> list[pathlib.Path]:
    """Writes the pair in each format, or recognises that it is there already.

    Args:
      request: what and where to.
      check: is given the folders of a pair by kind before they are moved into place;
        returns a line for each failure. None: nothing is checked.

    Returns:
      For each format the two folders and the pair's file.

    Raises:
      UnfitError: the check found failures; nothing was moved into place.
      ValueError: the request can't be met, or something else is in its place.
      OSError: the file system refused; nothing half-written is left.
    """
    identity = request.identity()
    paths = [path for place in request.places for path in place.paths]
    with atomic.locked(request.folder):
        missing = request.missing(identity)
        if not missing:
            _LOG.info("exported already, nothing to do")
            return paths
        with atomic.staging_folder(request.folder) as staged:
            _LOG.info("import TensorFlow and Keras")
            with stderr.silenced():
                from exporters import building, write_formats
            _LOG.info("build")
            model = building.build(request)
            wanted = [place.format for place in missing]
            pairs = write_formats.write(request, model, wanted, staged)
            for place in missing:
                if check and place.format.judged:
                    _LOG.info(f"check {place.format.name}")
                    if failures := check(pairs[place.format]):
                        raise formats.UnfitError("\n".join(failures))
            for place in missing:
                _move(staged / place.format.name, place, identity)
    _LOG.info("done")
    return paths


def _move(
    folder: pathlib.Path,
    place: export_folder.ExportFolder,
    identity: manifest.JsonObject,
) -> None:
    """Moves what was written into `folder` into place; the pair's file last."""
    place.pair_file.unlink(missing_ok=True)
    for kind, target in place.targets.items():
        atomic.move_into_place(folder / kind, target)
    if not place.format.judged:
        atomic.move_into_place(folder / export_folder.REPORT, place.report_file)
    pair_file = folder / place.pair_file.name
    record = place.pair_record(identity)
    pair_file.write_text(manifest.to_json(record), encoding="utf-8")
    atomic.move_into_place(pair_file, place.pair_file)
