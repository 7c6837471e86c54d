"""The pages of a hub in a browser: search, filters, copying, layout, accessibility."""

from __future__ import annotations

import json
import pathlib
import re
import sys
import threading
from collections.abc import Iterator

import pytest
from playwright import sync_api

from documentation import hub_pages, model_page
from publishing import hub_site, serving
from tests import page_checks
from tests.documentation import hub_models, large_hub, try_it_pages

AXE = pathlib.Path(sys.prefix, "web", "node_modules", "axe-core", "axe.min.js")
HOSTILE = "</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}\u202e"
MODEL = "image-model-zoo/models/{}/classification/1/index.html"
LOOKS = {"light": ("light", 1280), "dark phone": ("dark", 360)}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Returns a hub of five pairs, which differ in what filters select by."""
    folder = tmp_path_factory.mktemp("browser")

    def publish(arch, *, formats=(), **changes):
        export = hub_models.export(folder / "e", arch=arch, formats=formats, **changes)
        hub_models.publish(export, folder / "hub")

    published = {"published_top1": {"value": 0.75, "source": "a paper"}}
    publish("toy", formats=("litert", "onnx"))
    publish("toy_2", title="Small ToyNet", weights={"name": "x", **published})
    publish("noise", title="Noise", weights=hub_models.RANDOM, license="MIT")
    publish(
        "large",
        formats=("onnx",),
        title="Large",
        params={"all": 30_000_000, "trainable": 1},
    )
    publish("hostile", title=HOSTILE, license=HOSTILE)
    better = hub_models.export(folder / "second", version=2, title="ToyNet 1.1")
    hub_models.publish(better, folder / "hub")
    return folder / "hub"


@pytest.fixture(scope="module")
def address(hub) -> Iterator[str]:
    with serving.Server(("127.0.0.1", 0), hub, None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield serving.address(server)


@pytest.fixture(params=["front", "model", "noise", "hostile", "feature vector"])
def url(address, request):
    """Returns the address of each sort of page."""
    path = {
        "front": "",
        "model": MODEL.format("toy"),
        "noise": MODEL.format("noise"),
        "hostile": MODEL.format("hostile"),
        "feature vector": MODEL.format("toy").replace(
            "classification/1", "feature_vector/2"
        ),
    }
    return address + path[request.param]


def open_folds(page: sync_api.Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")


def shown(page: sync_api.Page) -> list[str]:
    """Returns the paths of the models that the front page shows, without publisher."""
    links = page.locator(".halves a:visible")
    return [
        re.sub(r"^\./image-model-zoo/models/|/index\.html$", "", link)
        for link in links.evaluate_all("(all) => all.map(a => a.getAttribute('href'))")
    ]


def test_pages_load_without_complaints(page, url, address):
    page.goto(url)
    page.wait_for_load_state("networkidle")
    assert page_checks.complaints(page, address) == []
    assert page.title()


@pytest.mark.parametrize("width", [1280, 360])
def test_pages_fit_the_window(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(url)
    open_folds(page)
    assert page_checks.too_wide(page, boxes="pre, .scroll") == []


@pytest.mark.parametrize("look", LOOKS)
def test_text_stands_out_from_its_background(page, url, look):
    scheme, width = LOOKS[look]
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(url)
    open_folds(page)
    contrasts = page_checks.contrasts(page, within="body")
    assert len(contrasts) > 20
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: tools/setup web")
@pytest.mark.ci_except("front-light", "model-dark phone")
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(chromium, url, look):
    scheme, width = LOOKS[look]
    with chromium.new_context(bypass_csp=True, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(url)
        open_folds(page)
        page.add_script_tag(path=AXE)
        result = page.evaluate("axe.run()")
    assert len(result["passes"]) > 15
    found = [
        f"{violation['impact']}: {violation['help']}: {node['html'][:100]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]
    assert found == []


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: tools/setup web")
def test_axe_finds_a_fault(page, address):
    """The check above can fail."""
    page.goto(address)
    page.evaluate("document.documentElement.removeAttribute('lang')")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate("axe.run()")
    assert "html-has-lang" in {violation["id"] for violation in result["violations"]}


ALL = {
    f"{a}/{k}/1"
    for a in ("noise", "large", "hostile", "toy_2")
    for k in ("classification", "feature_vector")
} | {
    "toy/classification/2",
    "toy/feature_vector/2",
}


def test_search_and_filters(page, address):
    page.goto(address)
    count, words = page.locator("#count"), page.locator("input[name=q]")
    assert set(shown(page)) == ALL
    assert count.text_content() == "10 models"
    assert page.locator("#reset").is_hidden()

    words.fill("toynet  SMALL")
    assert shown(page) == ["toy_2/classification/1", "toy_2/feature_vector/1"]
    assert count.text_content() == "2 of 10 models"
    words.fill("toy_2")
    assert len(shown(page)) == 2
    words.fill("fashion")  # data
    assert len(shown(page)) == 6
    words.fill("no such model")
    assert shown(page) == []
    assert page.locator("#none").is_visible()
    assert count.text_content() == "0 of 10 models"
    page.locator("#reset").click()
    assert set(shown(page)) == ALL
    assert words.input_value() == ""

    for name, value, expected in [
        ("task", "feature_vector", {path for path in ALL if "feature" in path}),
        ("license", "MIT", {path for path in ALL if path.startswith("noise")}),
        ("license", HOSTILE, {path for path in ALL if path.startswith("hostile")}),
        ("origin", "published", {path for path in ALL if path.startswith("toy_2")}),
        (
            "accuracy",
            "80",
            {p for p in ALL if p.startswith(("large", "hostile", "toy/"))},
        ),
        ("format", "onnx", {path for path in ALL if path.startswith("large")}),
        ("params", "5000000", {path for path in ALL if not path.startswith("large")}),
    ]:
        select = page.locator(f"select[name={name}]")
        assert select.is_visible()
        select.select_option(value.replace("\u202e", "\\u202e"))
        assert set(shown(page)) == expected, name
        select.select_option("")
    page.locator("select[name=order]").select_option("params")
    assert shown(page)[-1] == "large/feature_vector/1"
    page.locator("select[name=order]").select_option("accuracy")
    assert shown(page)[-1].startswith("noise")
    page.locator("select[name=order]").select_option("")
    page.locator("select[name=task]").select_option("classification")
    words.fill("toynet")
    assert all("classification" in path for path in shown(page))
    assert page_checks.complaints(page, address) == []


def test_the_address_holds_the_search(page, address):
    page.goto(address)
    page.locator("input[name=q]").fill("toynet & <b>")
    page.locator("select[name=task]").select_option("classification")
    page.wait_for_url(re.compile(r"#q=toynet\+%26\+%3Cb%3E&task=classification$"))
    page.goto("about:blank")
    page.goto(f"{address}#q=small&task=classification&order=params")
    assert page.locator("input[name=q]").input_value() == "small"
    assert shown(page) == ["toy_2/classification/1"]
    page.evaluate("location.hash = '#q=noise'")
    page.wait_for_function("document.querySelector('[name=q]').value === 'noise'")
    assert len(shown(page)) == 2
    page.locator("a.skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}#main")
    assert len(shown(page)) == 2
    assert page.locator("input[name=q]").input_value() == "noise"


@pytest.mark.parametrize(
    "fragment", ["task=none&x=y", "q=%00%ff&params=-1e999", "q=" + "a" * 5000, "%"]
)
def test_odd_addresses_do_no_harm(page, address, fragment):
    page.goto(f"{address}#{fragment}")
    assert page.locator("#count").is_visible()
    assert page.locator("select[name=task]").input_value() == ""
    assert page_checks.complaints(page, address) == []


def test_results_are_announced(page, address):
    page.goto(address)
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    assert (
        page.get_by_role("search").get_by_role("searchbox", name="Search").is_visible()
    )
    assert page.get_by_role("combobox", name="Task").is_visible()


def test_the_keyboard_reaches_everything(page, address):
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(3):  # index.json, then the search
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "q":
            break
    page.keyboard.type("small")
    assert len(shown(page)) == 2
    page.keyboard.press("Enter")  # submits nothing
    names = []
    for _ in range(12):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                """() => {
                  const { name, id, textContent } = document.activeElement;
                  return name || id || textContent;
                }"""
            )
        )
        outline = page.evaluate(
            """() => ["", "::after"].map((part) =>
               getComputedStyle(document.activeElement, part).outlineStyle)"""
        )
        assert "solid" in outline or "auto" in outline, names
        if names[-1] == "Classifier":
            break
    assert {"task", "license", "format", "order", "reset", "Classifier"} <= set(names)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{MODEL.format('toy_2')}")
    page.go_back()
    page.wait_for_url(re.compile("#q=small$"))
    assert len(shown(page)) == 2


def test_code_is_copied_with_the_address_of_the_hub(chromium, address):
    with chromium.new_context() as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = context.new_page()
        page.goto(address + MODEL.format("toy"))
        assert (
            model_page.HUB_ADDRESS
            not in page.content().split("data-placeholder", 1)[1].split(">", 1)[1]
        )
        button = page.get_by_role("button", name="Copy: TensorFlow Hub: hub.load")
        button.focus()
        page.keyboard.press("Enter")
        sync_api.expect(button).to_have_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        assert f'HUB = "{address}"' in text
        assert 'hub.load(HUB + "image-model-zoo/toy/classification/1")' in text
        sync_api.expect(button).to_have_text("Copy", timeout=5000)
        page.locator("summary", has_text="curl").click()
        page.get_by_role("button", name="Copy: Download and check").click()
        command = page.evaluate("navigator.clipboard.readText()")
        assert f'"{address}image-model-zoo/toy/classification/1"' in command


def test_a_refused_copy_is_said(chromium, address):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(address + MODEL.format("toy"))
        page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject())")
        button = page.get_by_role("button", name="Copy: TensorFlow Hub: hub.load")
        button.click()
        sync_api.expect(button).to_have_text(re.compile("^Not copied"))


def test_pages_work_without_javascript(chromium, address):
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        assert page.locator("form").is_hidden()
        assert page.locator(".halves a:visible").count() == len(ALL)
        assert page.locator("#count").text_content() == "10 models"
        page.locator(".halves a", has_text="Classifier").first.click()
        page.wait_for_url("**/classification/*/index.html")
        assert page.locator("pre").first.is_visible()
        assert page.locator("button").count() == 0
        assert model_page.HUB_ADDRESS in page.locator("pre").first.text_content()
        page.locator("summary", has_text="All facts").click()
        assert page.locator("table.facts").is_visible()


def test_a_plain_file_server_below_a_path_does_as_well(page, hub, tmp_path):
    (tmp_path / "below").symlink_to(hub)
    with try_it_pages.served(tmp_path) as root:
        address = f"{root}below/"
        page.goto(address)
        page.locator("input[name=q]").fill("small")
        page.locator(".halves a:visible").first.click()
        page.wait_for_url(f"{address}{MODEL.format('toy_2')}")
        page.wait_for_function("document.querySelector('.code button')")
        assert f'HUB = "{address}"' in page.locator("pre").first.text_content()
        assert page_checks.complaints(page, address) == []
        page.get_by_role("link", name="All models").click()
        page.wait_for_url(f"{address}index.html")


def test_hostile_texts_run_nothing(page, address):
    page.add_init_script("window.alert = () => { window.attacked = true; }")
    for path in ("", MODEL.format("hostile")):
        page.goto(address + path)
        open_folds(page)
        assert not page.evaluate("window.attacked")
        assert page.locator("img[src=x]").count() == 0
        assert "{{ 7 * 7 }}\\u202e" in page.locator("main").text_content()
    block = page.locator("#saved-model").text_content()
    assert json.loads(block)["models"][0]["license"] == HOSTILE


def test_the_policy_stops_code_that_would_get_in(page, address):
    """Even if a text were not escaped."""
    for path in ("", MODEL.format("toy")):
        page.goto(address + path)
        page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.attacked = 1";
              document.body.append(script);
              document.body.insertAdjacentHTML("beforeend",
                "<img src=x onerror='window.attacked = 2'>"
                + "<iframe srcdoc='<p>in'></iframe><form action='/x'></form>");
            }"""
        )
        refused = page.evaluate(
            "fetch('/index.json').then(() => 'sent', () => 'refused')"
        )
        assert refused == "refused"
        assert page.evaluate("window.attacked") is None


@pytest.mark.slow
def test_a_thousand_pairs_are_searched(page, tmp_path):
    models = large_hub.entries(1000)
    pages = hub_pages.Pages()
    folders = hub_site.asset_folders(pages)
    for path, source in pages.assets["pages"].items():
        target = tmp_path / folders["pages"] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (tmp_path / "index.html").write_text(pages.front_page(models, assets=folders))
    with try_it_pages.served(tmp_path) as address:
        page.goto(address)
        count = page.locator("#count")
        assert count.text_content() == "2,000 models"
        # As list items, cards would be numbered anew for each one that is hidden.
        card = page.locator(".card").first
        assert card.evaluate("(card) => getComputedStyle(card).display") == "block"
        page.locator("select[name=license]").select_option("MIT")
        page.locator("select[name=accuracy]").select_option("75")
        expected = [
            summary
            for entry in models.values()
            if (summary := entry["summary"])["license"] == "MIT"
            and summary["accuracy"]
            and summary["accuracy"]["value"] >= 0.75
        ]
        assert len(expected) > 50
        assert count.text_content() == f"{len(expected)} of 2,000 models"
        assert page_checks.complaints(page, address) == []
