"""Markdown helpers of pages."""

from __future__ import annotations

import re

import pytest

from documentation import rendering, site
from zoo import taxonomy


@pytest.mark.parametrize("name", taxonomy.names())
def test_the_class_index_is_whole(name):
    text = (site.FOLDER / "class_index" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(.*?)` \| (.*) \|$", text, re.MULTILINE)
    expected = [
        (str(index), entry.id, rendering.escape(entry.name))
        for index, entry in enumerate(taxonomy.load(name).classes)
    ]
    assert rows == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [(1_234, "0.00123"), (475_544, "0.476"), (5_330_564, "5.33"), (10**9, "1,000")],
)
def test_millions_have_three_digits(number, text):
    assert rendering.millions(number) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.718, "71.8 %"), (0.72976, "72.976 %"), (0.84, "84 %")]
)
def test_percent_has_up_to_six_digits(share, text):
    assert rendering.percent(share) == text


def test_markdown_is_escaped():
    text = rendering.escape("a|b <i> `c` *d* _e_ f_g [h](i)\n# j")
    assert text == r"a\|b \<i\> \`c\` \*d\* \_e\_ f_g \[h\](i) \# j"
    assert rendering.code("a`b|c\nd") == "`a b c d`"
