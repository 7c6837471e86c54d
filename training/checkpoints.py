"""Saves and restores the checkpoints of a training run.

A checkpoint is a safetensors file with the complete training state, so a resumed run
gives the same results as an uninterrupted one. Its metadata has a JSON record of what
the training loop needs beside the values of variables, such as the metrics so far.
Files are written atomically. A run keeps the newest checkpoints and the best one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import typing

import numpy as np
import safetensors
import safetensors.numpy

from foundation import atomic, progress
from zoo.weights import weights_file

_LOG = progress.logger(__name__)

Record = dict[str, typing.Any]
_PREFIX, _SUFFIX = "step-", ".safetensors"
_BEST = f"best{_SUFFIX}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
      path: the file.
      values: the values of all variables, by name.
      record: the JSON record that the training loop saved with the values.
    """

    path: pathlib.Path
    values: dict[str, np.ndarray]
    record: Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder that holds a run's checkpoints.

    Args:
      path: the folder.
      keep: number of newest checkpoints to keep.
    """

    path: pathlib.Path
    keep: int = 3

    def save(
        self,
        step: int,
        values: dict[str, np.ndarray],
        record: Record,
        *,
        is_best: bool = False,
    ) -> pathlib.Path:
        """Writes the checkpoint of a step, then deletes the oldest checkpoints.

        Raises:
          OSError: the checkpoint can't be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{_PREFIX}{step:09d}{_SUFFIX}"
        text = json.dumps(record, ensure_ascii=False, sort_keys=True)
        atomic.write_file(
            path, safetensors.numpy.save(values, {weights_file.RECORD: text})
        )
        if is_best:
            temporary = self.path / f".{_BEST}"
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # the file system does not support hard links
                shutil.copyfile(path, temporary)
            os.replace(temporary, self.path / _BEST)
        for old_path in self._paths()[self.keep :]:
            old_path.unlink()
        return path

    def last(self) -> Checkpoint | None:
        """Returns the newest readable checkpoint, or None if the folder has none.

        Raises:
          ValueError: the folder has checkpoints, but none can be read.
        """
        paths = self._paths()
        for path in paths:
            if (checkpoint := _read(path)) is not None:
                return checkpoint
            _LOG.warning(f"skipped the checkpoint {path}, which can't be read")
        if paths:
            raise ValueError(
                f"None of the checkpoints in {self.path} can be read: delete this "
                "folder to start again, or choose another --model_dir."
            )
        return None

    def best(self) -> Checkpoint | None:
        """Returns the best checkpoint, or None if there is none or it is unreadable."""
        path = self.path / _BEST
        return _read(path) if path.exists() else None

    def _paths(self) -> list[pathlib.Path]:
        """The paths of the step checkpoints, newest first."""
        return sorted(self.path.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True)


def _read(path: pathlib.Path) -> Checkpoint | None:
    """Reads a checkpoint file, or returns None if it is not readable."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            record = json.loads(file.metadata()[weights_file.RECORD])
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError):
        return None
    return Checkpoint(path=path, values=values, record=record)
