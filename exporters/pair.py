"""Exports an arch as a pair of models: a feature vector and a classifier.

OUT/ARCH/feature_vector/VERSION/   images -> [B, num_features]
OUT/ARCH/classification/VERSION/   images -> [B, num_classes]
OUT/ARCH/pair-VERSION.json         written last: the pair is complete

Other formats than SavedModels stand likewise in OUT/ARCH/FORMAT/.
"""

from __future__ import annotations

import contextlib
import pathlib
import typing
from collections.abc import Callable

from exporters import formats, manifest, placing, staging
from exporters import request as requests

if typing.TYPE_CHECKING:
    from zoo import model as zoo_model

Folders = dict[str, pathlib.Path]


def export(
    request: requests.Request,
    *,
    check: Callable[[Folders], None],
    say: Callable[[str], None],
    importing: Callable[[], contextlib.AbstractContextManager[None]],
) -> list[pathlib.Path]:
    """Writes the pair in each format, or recognises that it is there already.

    Args:
      request: what and where to.
      check: is given the folders of a pair by kind before they are moved into place;
        raises where they are not fit.
      say: is told what is done next, in a line.
      importing: a context for the import of TensorFlow, if it is needed.

    Returns:
      For each format the two folders and the pair's file.

    Raises:
      ValueError: the request can't be met, or something else is in its place.
      OSError: the file system refused; nothing half-written is left.
    """
    identity = request.identity()
    paths = [path for place in request.places for path in place.paths]
    with staging.locked(request.folder):
        missing = request.missing(identity)
        if not missing:
            say("exported already, nothing to do")
            return paths
        with staging.staged(request.folder) as staged:
            say("import TensorFlow and Keras")
            with importing():
                from exporters import building
            model = building.build(request, say)
            pairs = {p: _write(request, model, p, staged, say) for p in missing}
            for place, folders in pairs.items():
                if place.format in formats.JUDGED:
                    say(f"check {place.format}")
                    check(folders)
            for place, folders in pairs.items():
                _move(folders, place, identity, staged)
    say("done")
    return paths


def _write(
    request: requests.Request,
    model: zoo_model.ImageModel,
    place: placing.Place,
    staged: pathlib.Path,
    say: Callable[[str], None],
) -> Folders:
    """Writes both halves and their manifests; returns their folders by kind."""
    from exporters import describe

    say(f"write {place.format}")
    folders = formats.save(place.format, model, staged)
    describe.write_manifests(request, model, place.format, folders)
    return folders


def _move(
    folders: Folders,
    place: placing.Place,
    identity: manifest.Record,
    staged: pathlib.Path,
) -> None:
    """Moves a pair into place; its file last."""
    place.pair_file.unlink(missing_ok=True)
    for kind, folder in folders.items():
        staging.place(folder, place.targets[kind])
    pair_file = staged / place.format / place.pair_file.name
    record = place.pair_record(identity)
    pair_file.write_text(manifest.to_json(record), encoding="utf-8")
    staging.place(pair_file, place.pair_file)
