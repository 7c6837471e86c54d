"""The site that Sphinx builds from docs/, in a browser."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading

import pytest

from documentation import page_data, site
from tests import page_checks
from zoo import config

pytest.importorskip("sphinx", reason="tools/setup docs brings it")

ARCHITECTURES = page_data.architectures(
    page_data.for_arch(arch) for arch in config.config_files()
)
SHOWN = [
    "index.html",
    "architectures/efficientnet_v2.html",
    "architectures/mobilenet_v2.html",
    "class_index/cifar10.html",
    "contributing.html",
    "conformance.html",
    "tutorials/classify_photographs.html",
]
# Elements that scroll on their own, and Furo's drawers, which are outside the window.
BOXES = ".table-wrapper, pre, .sidebar-drawer, .toc-drawer, .skip-to-content"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


pytestmark = pytest.mark.slow  # .ci/run runs all of it


@pytest.fixture(scope="module")
def folder(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "site"
    done = tool("docs", f"--site={output}")
    assert done.returncode == 0, done.stderr
    assert list(output.parent.iterdir()) == [output]
    return output


@pytest.fixture(scope="module")
def url(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_every_page_is_there(folder):
    for each in ARCHITECTURES:
        page = folder / "architectures" / f"{each.page_name}.html"
        text = page.read_text(encoding="utf-8")
        for variant in each.variants:
            assert text.count(f'id="{variant.arch}"') == 1
    assert (folder / "scoreboard.html").read_bytes() == (
        site.FOLDER / "scoreboard.html"
    ).read_bytes()


def test_every_internal_link_has_a_target(folder):
    """Checks all links in the HTML; Sphinx warns only of those in Markdown."""
    pages = {p: p.read_text(encoding="utf-8") for p in folder.rglob("*.html")}
    assert len(pages) > len(ARCHITECTURES)
    anchors = {p: set(re.findall(r'\bid="([^"]+)"', t)) for p, t in pages.items()}
    broken = []
    for path, text in pages.items():
        if path.name == "scoreboard.html":
            continue
        for address in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", address):
                continue
            name, _, anchor = address.partition("#")
            target = (path.parent / name.split("?")[0]).resolve() if name else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file() or (
                anchor and target in anchors and anchor not in anchors[target]
            ):
                broken.append((path.name, address))
    assert broken == []


def test_a_broken_link_fails_the_build(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(site.FOLDER / "site", docs / "site")
    (docs / "scoreboard.html").write_text("")
    (docs / "index.md").write_text("# Broken\n\n[nowhere](nowhere.md)\n")
    arguments = site.for_sphinx(tmp_path / "o", scratch=tmp_path / "s", docs=docs)
    command = [sys.executable, "-m", "sphinx", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr


def test_a_link_to_an_arch_that_is_not_in_the_table_fails_the_build(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(site.FOLDER / "site", docs / "site")
    (docs / "scoreboard.html").write_text("")
    anchor = '| Arch |\n|---|\n| <a id="net_1" href="#net_1">`net_1`</a> |\n'
    links = "[here](index.md#net_1), [nowhere](index.md#net_2)\n"
    (docs / "index.md").write_text(f"# Anchors\n\n{links}\n{anchor}")
    arguments = site.for_sphinx(tmp_path / "o", scratch=tmp_path / "s", docs=docs)
    command = [sys.executable, "-m", "sphinx", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "net_2" in done.stderr
    assert "net_1" not in done.stderr


def open_page(page, url, name, *, width=1280, scheme="light"):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(url + name)


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", SHOWN)
def test_pages_fit_the_window_and_load_nothing_from_other_hosts(page, url, name, width):
    open_page(page, url, name, width=width)
    wide = page_checks.too_wide(page, boxes=BOXES)
    assert [box for box in wide if "-drawer" not in box] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page_checks.complaints(page, url) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SHOWN)
def test_text_stands_out_from_its_background(page, url, name, scheme):
    open_page(page, url, name, scheme=scheme)
    contrasts = page_checks.contrasts(page, within="article")
    assert len(contrasts) > 10
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)


ROWS = "[...document.querySelectorAll('.archs tbody tr:not([hidden])')]"
NAMES = f"{ROWS}.map((row) => row.cells[0].textContent.trim())"


def fill(page, number: int, value: str) -> None:
    page.evaluate(
        f"(() => {{ const c = document.querySelectorAll('.filters input, "
        f".filters select')[{number}]; c.value = {value!r}; "
        "c.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_archs_are_filtered(page, url):
    open_page(page, url, "index.html")
    archs = list(config.config_files())
    assert sorted(page.evaluate(NAMES)) == sorted(archs)
    fill(page, 0, "v2_035")
    assert page.evaluate(NAMES) == [arch for arch in archs if "v2_035" in arch]
    count = len(page.evaluate(NAMES))
    status = page.evaluate("document.querySelector('.filters output').value")
    assert status == f"{count} of {len(archs)} archs"
    fill(page, 0, "")
    fill(page, 2, "3")
    small = [a for a in archs if page_data.for_arch(a).manifest["params"]["all"] <= 3e6]
    assert sorted(page.evaluate(NAMES)) == sorted(small)
    fill(page, 4, "trained")
    trained = [arch for arch in small if page_data.for_arch(arch).weights]
    assert sorted(page.evaluate(NAMES)) == sorted(trained)
    assert page_checks.complaints(page, url) == []


def test_archs_are_sorted(page, url):
    open_page(page, url, "index.html")
    click_header = "document.querySelectorAll('.archs th button')[2].click()"
    sizes = {
        a: page_data.for_arch(a).manifest["params"]["all"]
        for a in config.config_files()
    }
    page.evaluate(click_header)
    assert page.evaluate(NAMES)[0] in [
        a for a, n in sizes.items() if n == min(sizes.values())
    ]
    page.evaluate(click_header)
    assert page.evaluate(NAMES)[0] == max(sizes, key=sizes.__getitem__)


def test_search_finds_the_row_of_an_arch(page, url):
    open_page(page, url, "search.html?q=mobilenet_v2_035_96")
    target = "architectures/mobilenet_v2.html#mobilenet_v2_035_96"
    page.wait_for_selector(f"#search-results li a[href$='{target}']")
    assert page_checks.complaints(page, url) == []


def test_the_row_of_an_arch_is_marked(page, url):
    open_page(page, url, "architectures/mobilenet_v2.html#mobilenet_v2_035_96")
    color = "getComputedStyle(document.querySelector({!r})).backgroundColor"
    cells = "tr:has(#mobilenet_v2_035_{}) td:nth-child(2)"
    marked, other = (
        page.evaluate(color.format(cells.format(size))) for size in ("96", "128")
    )
    assert marked != other


def test_without_scripts_all_archs_are_shown(chromium, url):
    with chromium.new_page(java_script_enabled=False) as page:
        open_page(page, url, "index.html")
        assert len(page.evaluate(NAMES)) == len(config.config_files())
