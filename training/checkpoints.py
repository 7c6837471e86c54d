"""Checkpoints: one file each, whole or absent, the last ones and the best kept.

A checkpoint is a safetensors file with all that a run needs to go on as if it had never
stopped, and a record of how it came there as JSON in the metadata.
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

from common import atomic, progress
from zoo.weights import weights_file

_LOG = progress.logger(__name__)

Record = dict[str, typing.Any]
_PREFIX, _SUFFIX = "step-", ".safetensors"
_BEST = f"best{_SUFFIX}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Attributes:
      path: of the file.
      values: of all variables, by name.
      record: how far the run was; what the loop wants to know of it.
    """

    path: pathlib.Path
    values: dict[str, np.ndarray]
    record: Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The checkpoints of a run.

    Args:
      path: of the folder.
      keep: how many of the last ones stay.
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
        """Writes the checkpoint of a step; then the oldest go.

        Raises:
          OSError: it can't be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{_PREFIX}{step:09d}{_SUFFIX}"
        text = json.dumps(record, ensure_ascii=False, sort_keys=True)
        atomic.write_file(
            path, safetensors.numpy.save(values, {weights_file.RECORD: text})
        )
        if is_best:
            beside = self.path / f".{_BEST}"
            beside.unlink(missing_ok=True)
            try:
                os.link(path, beside)
            except OSError:  # a file system without links
                shutil.copyfile(path, beside)
            os.replace(beside, self.path / _BEST)
        for old in self._paths()[self.keep :]:
            old.unlink()
        return path

    def last(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None where there is none.

        Raises:
          ValueError: there are some, and none can be read.
        """
        paths = self._paths()
        for path in paths:
            if (found := _read(path)) is not None:
                return found
            _LOG.warning(f"{path} can't be read, and is passed over")
        if paths:
            raise ValueError(
                f"None of the checkpoints in {self.path} can be read: remove it to "
                "begin anew, or give another --model_dir."
            )
        return None

    def best(self) -> Checkpoint | None:
        """The best one by its metric; None where there is none."""
        path = self.path / _BEST
        return _read(path) if path.exists() else None

    def _paths(self) -> list[pathlib.Path]:
        """The newest first."""
        return sorted(self.path.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True)


def _read(path: pathlib.Path) -> Checkpoint | None:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            record = json.loads(file.metadata()[weights_file.RECORD])
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError):
        return None
    return Checkpoint(path=path, values=values, record=record)
