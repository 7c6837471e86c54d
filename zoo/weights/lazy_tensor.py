"""A tensor of a weights file whose values are read only when needed."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The shape and dtype of a tensor; `np.asarray` reads the values.

    Args:
      reader: an open file with a method `get_tensor(key)`.
      key: name of the tensor in that file.
      shape: shape of the tensor.
      dtype: dtype of the tensor.
    """

    reader: typing.Any
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __array__(
        self, dtype: typing.Any = None, copy: typing.Any = None
    ) -> np.ndarray:
        try:
            return np.asarray(self.reader.get_tensor(self.key), dtype)
        except Exception as error:  # Readers raise exceptions of many types.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"{self.key} can't be read: {reason}") from error
