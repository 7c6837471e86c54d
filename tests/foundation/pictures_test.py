"""Figures are encoded in the format that their file suffix names."""

import pathlib
import sys

import pytest

from foundation import pictures


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG\r\n"), ("a.svg", b"<?xml")]
)
def test_a_figure_is_encoded_as_its_suffix_says(name, start):
    path = pathlib.Path(name)
    pictures.require(path)
    figure, axes = pictures.pyplot().subplots()
    axes.set_title("\U0001f408")  # not in the font
    assert pictures.encode(figure, path.suffix).startswith(start)
    assert not pictures.pyplot().get_fignums()


def test_other_suffixes_are_refused():
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg, not 'a\.jpg'"):
        pictures.require(pathlib.Path("a.jpg"))


def test_a_label_is_one_short_line_without_mathematics():
    assert pictures.label("a\n b\x1b $x$") == "a b\N{REPLACEMENT CHARACTER} \\$x\\$"
    assert pictures.label("x" * 80) == "x" * 59 + "…"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="run tools/setup plot"):
        pictures.pyplot()
