"""Markdown helpers of pages, and the page of an export in a browser."""

from __future__ import annotations

import re

import pytest

from documentation import model_cards, rendering, site
from tests import page_checks
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


# The page of an export, in a browser.


@pytest.fixture(scope="module")
def url(exported, suite_report, tmp_path_factory):
    folder = exported("resnet_cifar_20") / "classification" / "1"
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(model_cards.files(folder, suite_report)["page.html"])
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_the_page_fits_the_window(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(url)
    assert page.evaluate("document.querySelectorAll('svg rect').length") > 5
    assert page_checks.too_wide(page, boxes="pre") == []
    assert page_checks.complaints(page, url) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_text_stands_out_from_its_background(page, url, scheme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(url)
    contrasts = [c for c in page_checks.contrasts(page) if not c[1].startswith("<text")]
    assert len(contrasts) > 80
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)
