"""Pages of archs state the facts; the page of an export fits its browser window."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from conformance import statements
from documentation import model_cards, model_page, page_data, rendering, site
from exporters import manifest
from tests.conformance import browser
from zoo import config, facts, taxonomy

ARCHS = list(config.config_files())


def stated(arch: str, kind: str) -> statements.Page:
    return statements.Page(statements.read(site.FOLDER / "archs" / f"{arch}.md"), kind)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_page_states_the_facts(arch):
    arch_facts = facts.load(arch)
    page = stated(arch, "classification")
    for name, fact in [
        ("params", "params"),
        ("trainable", "trainable_params"),
        ("num_classes", "num_classes"),
        ("multiply_adds", "multiply_adds"),
        ("image_size", "image_size"),
        ("height", "height_range"),
        ("width", "width_range"),
    ]:
        assert page.fact(name) == facts.value(arch_facts, fact), name
    assert page.fact("paper") == f"arXiv:{arch_facts['paper']['arxiv']}"
    features = stated(arch, "feature_vector").fact("num_features")
    assert features == facts.value(arch_facts, "num_features")


@pytest.mark.parametrize("arch", ARCHS)
def test_a_page_agrees_with_its_block(arch):
    for kind in manifest.KINDS:
        page = stated(arch, kind)
        for name in statements.FACTS:
            page.fact(name)
        assert "batch_norm_momentum" in page.arguments()
        assert len(page.endpoints()) >= 4
        assert "RANDOM weights" in page.first


@pytest.mark.parametrize("arch", ARCHS)
def test_a_page_lists_all_registered_weights(arch):
    text = (site.FOLDER / "archs" / f"{arch}.md").read_text(encoding="utf-8")
    for name, entry in page_data.for_arch(arch).weights.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert f"| {entry.get('license', 'unknown')} |" in row
        if entry.get("published_top1"):
            shown = rendering.percent(entry["published_top1"]["value"])
            assert f"| {shown}, as published |" in row


def test_a_page_says_whether_sizes_were_measured():
    measured = site.FOLDER / "archs" / "resnet_cifar_20.md"
    assert "*Measured* by trial" in measured.read_text(encoding="utf-8")
    other = site.FOLDER / "archs" / "resnet_cifar_110.md"
    assert "Working sizes were not *measured*" in other.read_text(encoding="utf-8")


@pytest.mark.parametrize("arch", ARCHS)
def test_the_picture_has_every_endpoint(arch):
    page = page_data.for_arch(arch)
    tree = ElementTree.fromstring(model_page.stages_svg(page))
    texts = ["".join(element.itertext()).strip() for element in tree.iter()]
    for name, shape in page.manifest["endpoints"].items():
        assert rendering.words(name.split("/")[-1]) in texts
        assert " × ".join(map(str, shape)) in texts
    assert [f"×{n}" for n in page.manifest["blocks"].values()] == [
        text for text in texts if re.fullmatch(r"×\d+", text)
    ]


@pytest.mark.parametrize("name", taxonomy.names())
def test_the_class_index_is_whole(name):
    text = (site.FOLDER / "class_index" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(.*?)` \| (.*) \|$", text, re.MULTILINE)
    expected = [
        (str(index), entry.id, rendering._escape(entry.name))
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


def test_markdown_is_escape():
    text = rendering._escape("a|b <i> `c` *d* _e_ f_g [h](i)\n# j")
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
def test_the_page_fits_the_window(tab, url, width):
    tab.resize(width, 800)
    tab.open(url)
    assert tab.run("document.querySelectorAll('svg rect').length") > 5
    assert browser.too_wide(tab, boxes="pre") == []
    assert browser.complaints(tab, url) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_text_stands_out_from_its_background(tab, url, scheme, width):
    tab.resize(width, 800)
    tab.prefer(scheme)
    tab.open(url)
    contrasts = [c for c in browser.contrasts(tab) if not c[1].startswith("<text")]
    assert len(contrasts) > 80
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)
