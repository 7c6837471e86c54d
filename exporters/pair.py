"""Exports an arch as a pair of SavedModels: a feature vector and a classifier.

OUT/ARCH/feature_vector/VERSION/   images -> [B, num_features]
OUT/ARCH/classification/VERSION/   images -> [B, num_classes]
OUT/ARCH/pair-VERSION.json         written last: the pair is complete
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

from exporters import manifest, staging
from exporters import request as requests

Folders = dict[str, pathlib.Path]


def export(
    request: requests.Request,
    *,
    check: Callable[[Folders], None],
    say: Callable[[str], None],
    importing: Callable[[], contextlib.AbstractContextManager[None]],
) -> list[pathlib.Path]:
    """Writes the pair, or recognises that it is there already.

    Args:
      request: what and where to.
      check: is given the folders by kind before they are moved into place; raises
        where they are not fit.
      say: is given a line of progress now and then.
      importing: a context for the import of TensorFlow, if it is needed.

    Returns:
      The two folders and the pair's file.

    Raises:
      ValueError: the request can't be met, or something else is in its place.
      OSError: the file system refused; nothing half-written is left.
    """
    identity = request.identity()
    with staging.locked(request.folder):
        if request.is_finished(identity):
            say("exported already, nothing to do")
            return request.paths
        with staging.staged(request.folder) as staged:
            say("import TensorFlow and Keras")
            with importing():
                from exporters import describe, saving
            model = saving.build(request, say)
            folders = saving.save(model, staged, say)
            describe.write_manifests(request, model, folders)
            say("check what was written")
            check(folders)
            request.pair_file.unlink(missing_ok=True)
            for kind, folder in folders.items():
                staging.place(folder, request.targets[kind])
            pair_file = staged / request.pair_file.name
            record = request.pair_record(identity)
            pair_file.write_text(manifest.to_json(record), encoding="utf-8")
            staging.place(pair_file, request.pair_file)
    say("done")
    return request.paths
