"""CSV rows are read back as they were written."""

import csv
import io

import pytest

from foundation import csv_rows


@pytest.mark.parametrize(
    "cells",
    [
        ["a.jpg", 1, 0.5],
        ["a\rb.jpg", 1, None],
        ["a\nb", "c\r\nd", 'e"f'],
        ["", "a,b", " "],
    ],
)
def test_a_row_is_read_as_it_was_written(cells):
    file = io.StringIO(newline="")
    writer = csv_rows.Writer(file)
    writer.row(cells)
    writer.row(["last"])
    file.seek(0)
    rows = list(csv.reader(file))
    assert rows == [["" if c is None else str(c) for c in cells], ["last"]]


def test_plain_rows_have_no_quotes():
    file = io.StringIO(newline="")
    csv_rows.Writer(file).row(["a.jpg", 1])
    assert file.getvalue() == "a.jpg,1\n"
