"""Writes TF2 SavedModels: `reusable` says what they are."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import uuid
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2
from tensorflow.python.checkpoint import functional_saver

from exporters import graph_cleanup, manifest, reusable
from zoo import model as zoo_model
from zoo.weights import native_format, weights_file


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both halves into folders below `folder`.

    Raises:
      OSError, OpError: the file system refused, for one because it is full.
    """
    class_index = folder / manifest.CLASS_INDEX
    class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    record = folder / weights_file.ASSET.name
    record.write_text(
        manifest.to_json(native_format.for_copies(model.record())), "utf-8"
    )
    roots = reusable.pair(model, class_index=class_index, record=record)
    for kind, (root, signatures) in roots.items():
        with _without_saving():
            tf.saved_model.save(root, str(folder / kind), signatures)
        graph_cleanup.slim(folder / kind)
        _settle_fingerprint(folder / kind / "fingerprint.pb")


@contextlib.contextmanager
def _without_saving() -> Iterator[None]:
    """Lets TensorFlow trace no function that saves all variables; see `slimming`."""
    saver = functional_saver.MultiDeviceSaver
    traced = saver._traced_save
    saver._traced_save = lambda self, file_prefix: file_prefix
    try:
        yield
    finally:
        saver._traced_save = traced


def _settle_fingerprint(path: pathlib.Path) -> None:
    """Replaces TensorFlow's random id of a model by one made from its own hashes."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.UUID(bytes=hashlib.sha256(content).digest()[:16]))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
