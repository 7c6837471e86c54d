"""Reads files of weights of every kind; the kind is found from the file itself.

Each reader is imported where it is used: some need large libraries.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import pathlib
import struct
import typing
from collections.abc import Mapping

SAVED_MODEL = "saved_model.pb"
VARIABLES = "variables/variables"
MANIFEST = "assets.extra/manifest.json"
CLASS_INDEX = "assets/class_index.tsv"
ASSET = pathlib.PurePosixPath("assets/model.json")
"""A record that copies of an exported model still have, other than its manifest."""
RECORD = "image_model_zoo"
"""The key of our record in a safetensors file's metadata."""
_LONGEST_TEXT = 2_000_000  # characters
_TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # ends a TensorFlow checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """The contents of a file of weights; values are read when they are asked for.

    Attributes:
      tensors: by name; each has a shape and a dtype, and np.asarray gives its values.
      record: the text of our own format's record, or of an asset like it, or None.
      manifest: the text of an exported model's manifest, which says more; or None.
      class_index: the path of an exported model's class index, or None.
    """

    tensors: Mapping[str, typing.Any]
    record: str | None = None
    manifest: str | None = None
    class_index: pathlib.Path | None = None


def kind(path: pathlib.Path) -> str:
    """`saved_model`, `checkpoint`, `hdf5`, `safetensors` or `torch`.

    Args:
      path: a file, the index of a file's shards, the folder of a SavedModel, or the
        prefix of a checkpoint.

    Raises:
      ValueError: it is none of them.
      OSError: it can't be read.
    """
    from zoo.weights import safetensors_files

    if (path / SAVED_MODEL).is_file():
        return "saved_model"
    if _index(path).is_file():
        return "checkpoint"
    if path.is_dir():
        meant = _meant(path)
        hint = f" Did you mean {meant}?" if meant else ""
        raise ValueError(f"{path} is a folder, but of no SavedModel.{hint}")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file, a SavedModel nor a checkpoint.")
    if path.suffix == ".index" and path.with_suffix("").name:
        raise ValueError(
            f"{path} is a part of a checkpoint: give {path.with_suffix('')}."
        )
    if safetensors_files.is_index(path):
        return "safetensors"
    with path.open("rb") as file:
        start = file.read(9)
        file.seek(max(0, path.stat().st_size - len(_TABLE_MAGIC)))
        end = file.read()
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[8:9] == b"{":
        return "safetensors"
    if start[:2] == b"PK" and path.suffix == ".keras":
        raise ValueError(
            f"{path} is a whole Keras model: load it with Keras, and save its weights "
            "alone, model.save_weights('NAME.weights.h5')."
        )
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "torch"
    if end == _TABLE_MAGIC:
        return "checkpoint"
    raise ValueError(
        f"{path} is no weights: not safetensors, PyTorch's, Keras', a TensorFlow "
        "checkpoint or a SavedModel."
    )


def _meant(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the path in `folder` that the user probably meant."""
    from zoo.weights import safetensors_files

    for pattern in (f"*{safetensors_files.INDEX_ENDING}", "*.safetensors"):
        found = list(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
    models = sorted(folder.glob(f"*/{SAVED_MODEL}"))
    models += sorted(folder.glob(f"*/*/{SAVED_MODEL}"))
    return models[0].parent if models else None


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The files whose bytes decide on what `read` gives."""
    found = kind(path)
    if found == "saved_model":
        about = (path / MANIFEST, path / ASSET)
        return [*parts(path / VARIABLES), *(text for text in about if text.is_file())]
    if found == "checkpoint" and _index(path).is_file():
        data = path.parent.glob(f"{glob.escape(path.name)}.data-*")
        return [_index(path), *sorted(shard for shard in data if shard.is_file())]
    if found == "safetensors":
        from zoo.weights import safetensors_files

        return safetensors_files.parts(path)
    return [path]


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's bytes, hex; of several, that of their hashes' lines."""
    hashes = []
    for part in parts(path):
        with part.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read(path: pathlib.Path) -> File:
    """Opens a file of weights.

    Raises:
      ValueError: it is none, or a damaged one.
    """
    found = kind(path)
    if found in ("saved_model", "checkpoint"):
        return _checkpoint(path, is_model=found == "saved_model")
    from zoo.weights import hdf5, safetensors_files, torch_pickle

    if found == "safetensors":
        tensors, metadata = safetensors_files.read(path)
        return File(tensors=tensors, record=metadata.get(RECORD))
    return File(tensors=(hdf5 if found == "hdf5" else torch_pickle).read(path))


def _index(prefix: pathlib.Path) -> pathlib.Path:
    """The file that lists a checkpoint's tensors."""
    return prefix.parent / f"{prefix.name}.index"


def _checkpoint(path: pathlib.Path, *, is_model: bool) -> File:
    from zoo.weights import checkpoint

    tensors = checkpoint.read(path / VARIABLES if is_model else path)
    if not is_model:
        return File(tensors=tensors)
    class_index = path / CLASS_INDEX
    return File(
        tensors=tensors,
        record=_text(path / ASSET),
        manifest=_text(path / MANIFEST),
        class_index=class_index if class_index.is_file() else None,
    )


def _text(path: pathlib.Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_TEXT)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text.") from error
