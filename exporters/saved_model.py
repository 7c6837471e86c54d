"""Writes TF2 SavedModels; `reusable` defines their objects and signatures."""

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
    """Writes both models into subfolders of `folder`, named by kind.

    Raises:
      OSError, OpError: a file can't be written, for example because the disk is full.
    """
    class_index = folder / manifest.CLASS_INDEX
    class_index.write_text(model.taxonomy.to_tsv(), encoding="utf-8")
    record = folder / weights_file.RECORD_ASSET.name
    record.write_text(
        manifest.to_json(native_format.record_for_copies(model.record())), "utf-8"
    )
    roots = reusable.build_pair(model, class_index=class_index, record=record)
    for kind, (root, signatures) in roots.items():
        with _without_save_function():
            tf.saved_model.save(root, str(folder / kind), signatures)
        graph_cleanup.clean_up(folder / kind)
        make_fingerprint_deterministic(folder / kind / "fingerprint.pb")


@contextlib.contextmanager
def _without_save_function() -> Iterator[None]:
    """Within the context, TensorFlow traces no function that saves all variables.

    See `graph_cleanup`.
    """
    saver = functional_saver.MultiDeviceSaver
    original = saver._traced_save
    saver._traced_save = lambda self, file_prefix: file_prefix
    try:
        yield
    finally:
        saver._traced_save = original


def make_fingerprint_deterministic(path: pathlib.Path) -> None:
    """Replaces the random UUID in a fingerprint by one derived from its hashes."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.UUID(bytes=hashlib.sha256(content).digest()[:16]))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
