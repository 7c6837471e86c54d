"""The part of an export that needs TensorFlow: building the model, writing it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import tensorflow as tf

from exporters import manifest, reusable
from exporters import request as requests
from zoo import model as zoo_model

Say = Callable[[str], None]


def build(request: requests.Request, say: Say) -> zoo_model.ImageModel:
    """The model that the request describes."""
    say("build")
    model = zoo_model.build(
        request.arch,
        weights=request.weights,
        seed=request.seed,
        gin_files=request.gin_files,
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    if "matched" in model.weights:
        say(f"weights: {model.weights['matched']}")
    return model


def save(
    model: zoo_model.ImageModel, folder: pathlib.Path, say: Say
) -> dict[str, pathlib.Path]:
    """Writes both SavedModels below `folder`; returns their folders by kind.

    Raises:
      OSError: the file system refused, for one because it is full.
    """
    class_index = folder / manifest.CLASS_INDEX
    class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    say("trace")
    roots = reusable.pair(model, class_index)
    folders = {kind: folder / kind for kind in manifest.KINDS}
    for kind, target in folders.items():
        say(f"write {kind}")
        root, signatures = roots[kind]
        try:
            tf.saved_model.save(root, str(target), signatures)
        except tf.errors.OpError as error:
            # "{{node …}} FILE; No space left on device [Op:SaveV2]"
            reason = error.message.rpartition("; ")[2].split(" [Op:")[0]
            raise OSError(f"Can't write below {folder.parent}: {reason}") from error
    return folders
