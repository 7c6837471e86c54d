"""Builds the model that a request describes, and writes its SavedModels."""

from __future__ import annotations

import hashlib
import pathlib
import uuid
from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

from exporters import manifest, reusable
from exporters import request as requests
from zoo import facts
from zoo import model as zoo_model
from zoo.weights import files, own

Say = Callable[[str], None]


def build(request: requests.Request, say: Say) -> zoo_model.ImageModel:
    """The model that the request describes."""
    say("build")
    # Whatever the user's keras.json says: an export is the same everywhere.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    model = zoo_model.build(
        request.arch,
        weights=request.weights,
        seed=request.seed,
        gin_files=request.gin_files,
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    known = facts.load(request.arch)
    for name in ("height_range", "width_range"):
        low, high = facts.value(known, name)
        if not low <= model.spec.image_size <= high:
            raise ValueError(
                f"image_size must be in the {name} of {request.arch}, {low} to {high}, "
                f"not {model.spec.image_size}."
            )
    if "matched" in model.weights:
        say(f"weights: {model.weights['matched']}")
        for change in model.weights["overruled"]:
            say(f"weights: {change}")
        if model.weights["assumed"]:
            say(f"weights: {model.weights['assumed']}")
    return model


def _settle_fingerprint(path: pathlib.Path) -> None:
    """Replaces TensorFlow's random id of a model by one made from its own hashes."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.UUID(bytes=hashlib.sha256(content).digest()[:16]))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def save(
    model: zoo_model.ImageModel, folder: pathlib.Path, say: Say
) -> dict[str, pathlib.Path]:
    """Writes both SavedModels below `folder`; returns their folders by kind.

    Raises:
      OSError: the file system refused, for one because it is full.
    """
    class_index = folder / manifest.CLASS_INDEX
    class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    record = folder / files.ASSET.name
    record.write_text(manifest.to_json(own.for_copies(model.record())), "utf-8")
    say("trace")
    roots = reusable.pair(model, class_index=class_index, record=record)
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
        _settle_fingerprint(target / "fingerprint.pb")
    return folders
