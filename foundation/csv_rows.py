"""Writes CSV rows that every reader splits in the same way."""

from __future__ import annotations

import csv
import typing
from collections.abc import Sequence


class Writer:
    r"""Writes rows that end with `\n`.

    The module `csv` does not quote a carriage return if rows end with `\n`, and its own
    reader then ends the row there: rows with one are quoted as a whole.

    Args:
      file: a text file, opened with `newline=""`.
    """

    def __init__(self, file: typing.TextIO) -> None:
        self._plain = csv.writer(file, lineterminator="\n")
        self._quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def row(self, cells: Sequence[typing.Any]) -> None:
        """Writes one row; None is an empty cell."""
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (self._quoted if has_return else self._plain).writerow(cells)
