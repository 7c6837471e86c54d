"""Detects the format of a weights file and reads it.

Each reader is imported where it is used, because some need large libraries.
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
RECORD_ASSET = pathlib.PurePosixPath("assets/model.json")
"""Path of the record in an exported model; copies keep it, but not the manifest."""
RECORD = "image_model_zoo"
"""Key of this project's record in a safetensors file's metadata."""
_LONGEST_TEXT = 2_000_000  # characters
_TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)  # at the end of a TF checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """Contents of a weights file; values are read only when needed.

    Attributes:
      tensors: tensors by name, with shape and dtype; np.asarray reads their values.
      record: text of the record of this project's format, or of an exported model's
        record asset; None if there is no record.
      manifest: text of an exported model's manifest, which has more data than the
        record; or None.
      class_index: path of an exported model's class index, or None.
    """

    tensors: Mapping[str, typing.Any]
    record: str | None = None
    manifest: str | None = None
    class_index: pathlib.Path | None = None


def kind(path: pathlib.Path) -> str:
    """Returns the format of weights.

    Args:
      path: a file, a shard index, the folder of a SavedModel, or the prefix of a
        checkpoint.

    Returns:
      `saved_model`, `checkpoint`, `hdf5`, `safetensors`, `npz` or `torch`.

    Raises:
      ValueError: the format is not supported.
      OSError: the file can't be read.
    """
    from zoo.weights import npz, safetensors_files

    if (path / SAVED_MODEL).is_file():
        return "saved_model"
    if _index(path).is_file():
        return "checkpoint"
    if path.is_dir():
        suggestion = _suggest_path(path)
        hint = f" Did you mean {suggestion}?" if suggestion else ""
        raise ValueError(f"{path} is a folder, but not a SavedModel.{hint}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file, a SavedModel or a checkpoint.")
    if path.suffix == ".index" and path.with_suffix("").name:
        raise ValueError(
            f"{path} is one file of a checkpoint: pass its prefix, "
            f"{path.with_suffix('')}."
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
            f"{path} is a whole Keras model: load it with Keras, and save only its "
            "weights: model.save_weights('NAME.weights.h5')."
        )
    if start[:2] == b"PK" and (path.suffix == ".npz" or npz.is_npz(path)):
        return "npz"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "torch"
    if end == _TABLE_MAGIC:
        return "checkpoint"
    raise ValueError(
        f"{path} has no weights in a supported format: safetensors, PyTorch, NumPy, "
        "Keras, TensorFlow checkpoint or SavedModel."
    )


def _suggest_path(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the path in `folder` that the user probably meant."""
    from zoo.weights import safetensors_files

    for pattern in (f"*{safetensors_files.INDEX_ENDING}", "*.safetensors"):
        paths = list(folder.glob(pattern))
        if len(paths) == 1:
            return paths[0]
    models = sorted(folder.glob(f"*/{SAVED_MODEL}"))
    models += sorted(folder.glob(f"*/*/{SAVED_MODEL}"))
    return models[0].parent if models else None


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of all files that `read` reads values or records from."""
    format_ = kind(path)
    if format_ == "saved_model":
        records = (path / MANIFEST, path / RECORD_ASSET)
        return [*parts(path / VARIABLES), *(r for r in records if r.is_file())]
    if format_ == "checkpoint" and _index(path).is_file():
        data = path.parent.glob(f"{glob.escape(path.name)}.data-*")
        return [_index(path), *sorted(shard for shard in data if shard.is_file())]
    if format_ == "safetensors":
        from zoo.weights import safetensors_files

        return safetensors_files.parts(path)
    return [path]


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of weights, hex.

    For weights of several files it is the SHA-256 of the files' hex hashes, joined by
    newlines.
    """
    hashes = []
    for part in parts(path):
        with part.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read(path: pathlib.Path) -> File:
    """Opens a weights file of any supported format.

    Raises:
      ValueError: the format is not supported, or the file is damaged.
    """
    format_ = kind(path)
    if format_ in ("saved_model", "checkpoint"):
        return _read_checkpoint(path, is_model=format_ == "saved_model")
    from zoo.weights import hdf5, npz, pickled, safetensors_files

    if format_ == "safetensors":
        tensors, metadata = safetensors_files.read(path)
        return File(tensors=tensors, record=metadata.get(RECORD))
    readers = {"hdf5": hdf5, "npz": npz, "torch": pickled}
    return File(tensors=readers[format_].read(path))


def _index(prefix: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file that lists a checkpoint's tensors."""
    return prefix.parent / f"{prefix.name}.index"


def _read_checkpoint(path: pathlib.Path, *, is_model: bool) -> File:
    from zoo.weights import checkpoint

    tensors = checkpoint.read(path / VARIABLES if is_model else path)
    if not is_model:
        return File(tensors=tensors)
    class_index = path / CLASS_INDEX
    return File(
        tensors=tensors,
        record=_read_text(path / RECORD_ASSET),
        manifest=_read_text(path / MANIFEST),
        class_index=class_index if class_index.is_file() else None,
    )


def _read_text(path: pathlib.Path) -> str | None:
    """Returns the text of a file; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_TEXT)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text.") from error
