"""The pages of a hub in a folder: their contents, links and escaping."""

from __future__ import annotations

import ast
import contextlib
import html.parser
import json
import pathlib
import posixpath
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest

from conformance import statements
from documentation import (
    hub_front_page,
    hub_model_page,
    hub_pages,
    model_page,
    page_data,
    rendering,
    version_changes,
)
from exporters import manifest
from foundation import hub_paths
from publishing import hub_index, serving, verifying
from tests.documentation import hub_models

CLASSIFIER = "image-model-zoo/models/toy/classification/1"
HOSTILE = (
    "</script><script>alert(1)</script> \"'><img src=x onerror=alert(2)> </title>"
    " {{ 7 * 7 }} {% raw %} ${8 * 8} `code` | [a](javascript:alert(3)) \u202egnp.exe"
    "\u202c <!-- --> &lt; \\"
)
FORMATS = ("litert", "onnx", "serving")


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, str]] = []  # language and text of code
        self.data = ""
        self._open: list[str] = []
        self._language = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "code" and (dict(attrs).get("class") or "").startswith("language-"):
            self._language = dict(attrs)["class"].removeprefix("language-")
            self.blocks.append((self._language, ""))

    def handle_endtag(self, tag):
        if tag == "code":
            self._language = ""

    def handle_data(self, data):
        self.data += data
        if self._language:
            language, text = self.blocks[-1]
            self.blocks[-1] = (language, text + data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Returns a hub with a model in two versions, an untrained and a hostile one."""
    folder = tmp_path_factory.mktemp("pages")
    exports, hub = folder / "exports", folder / "hub"
    hub_models.publish(hub_models.export(exports, formats=FORMATS), hub)
    better = {**hub_models.TRAINED, "metrics": {"test_top1": 0.9}}
    second = hub_models.export(folder / "second", version=2, weights=better)
    hub_models.publish(second, hub)
    hub_models.publish(
        hub_models.export(exports, arch="noise", weights=hub_models.RANDOM), hub
    )
    weights = {**hub_models.TRAINED, "source": HOSTILE, "license_source": HOSTILE}
    hostile = hub_models.export(
        exports,
        arch="hostile",
        classes=f"index\tid\tname\n0\t{HOSTILE}\t{HOSTILE}\n1\tx\n\n",
        title=HOSTILE,
        license=HOSTILE,
        weights=weights,
        paper={"title": HOSTILE, "arxiv": HOSTILE, "where": HOSTILE},
        packages={HOSTILE: HOSTILE},
    )
    hub_models.publish(hostile, hub)
    return hub


def pages(hub: pathlib.Path) -> dict[str, Page]:
    return {
        path.relative_to(hub).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in hub.rglob("*.html")
    }


def test_the_hub_is_whole(hub):
    verification = verifying.verify(hub)
    assert (verification.findings, verification.leftovers) == ((), ())
    assert verification.models == 8
    assert len(pages(hub)) == 9


def test_every_link_leads_to_a_published_file(hub):
    published = {*hub_index.read_index(hub).files, "index.json"}
    counts = {}
    for name, page in pages(hub).items():
        links = [
            value
            for _, attributes in page.elements
            for key in ("href", "src")
            if (value := attributes.get(key))
            and not value.startswith(("#", "data:,", "https://arxiv.org/abs/"))
        ]
        for link in links:
            assert link.startswith(("./", "../")), link
            path = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), urllib.parse.unquote(link))
            )
            assert path in published, (name, link)
        counts[name] = len(links)
    assert counts["index.html"] >= 2 + 3 * 2
    assert counts[f"{CLASSIFIER}/index.html"] > 15


def test_pages_have_no_code_or_styles_inside(hub):
    for name, page in pages(hub).items():
        (policy,) = [
            meta["content"]
            for meta in page.named("meta")
            if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src")
        assert "unsafe" not in policy
        assert "'none'; form-action 'none'" in policy
        assert page.named("style") == []
        scripts = page.named("script")
        external = [script for script in scripts if script.get("src")]
        blocks = [script for script in scripts if not script.get("src")]
        assert len(external) == 1, name
        assert external[0]["type"] == "module"
        assert all(block["type"] == "application/json" for block in blocks)
        for _, attributes in page.elements:
            assert "style" not in attributes
            assert not [key for key in attributes if key.startswith("on")]


def test_a_page_says_how_to_use_the_model(hub):
    page = pages(hub)[f"{CLASSIFIER}/index.html"]
    python = [text for language, text in page.blocks if language == "python"]
    assert len(python) == 6
    for text in python:
        ast.parse(text)
        assert f'HUB = "{model_page.HUB_ADDRESS}"' in text
    handle = "image-model-zoo/toy/classification/1"
    for start, call in [
        (0, f'hub.load(HUB + "{handle}")'),
        (1, "hub.KerasLayer("),
        (2, f'KerasLayer(HUB + "{handle}", trainable=True)'),
        (3, "keras.layers.TFSMLayer("),
        (4, f'HUB + "{CLASSIFIER}/formats/onnx.tar.gz"'),
        (5, f'HUB + "{CLASSIFIER}/formats/litert.tar.gz"'),
    ]:
        assert call in python[start]
    vector = hub_models.page(hub, kind="feature_vector")
    assert "features = model(images)  # [1, 1280] float32" in vector
    assert len(Page(hub_models.page(hub, version=2)).blocks) == 7  # no other formats


def test_the_code_is_complete(hub):
    """Each block defines the names that it uses."""
    page = pages(hub)[f"{CLASSIFIER}/index.html"]
    for language, text in page.blocks:
        if language != "python":
            continue
        nodes = list(ast.walk(ast.parse(text)))
        stored = {
            n.id
            for n in nodes
            if isinstance(n, ast.Name) and n.ctx.__class__ is ast.Store
        }
        imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        loaded = {
            n.id
            for n in nodes
            if isinstance(n, ast.Name) and n.ctx.__class__ is ast.Load
        }
        assert loaded <= stored | imported, text


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_check_the_files(hub, tmp_path):
    page = pages(hub)[f"{CLASSIFIER}/index.html"]
    commands = [text for language, text in page.blocks if language == "sh"]
    assert len(commands) == 2
    copy = shutil.copytree(hub, tmp_path / "hub")
    with serving.Server(("127.0.0.1", 0), copy, None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = serving.address(server)

        def run(number):
            text = commands[number]
            for placeholder in (model_page.HUB_ADDRESS, model_page.HUB_ADDRESS[:-1]):
                end = len(address) if placeholder.endswith("/") else -1
                text = text.replace(placeholder, address[:end])
            folder = tmp_path / f"run{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            command = ["bash", "-e", "-c", text]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            return done, folder

        try:
            done, folder = run(0)
            assert "toy-classification-1.tar.gz: OK" in done.stdout, done.stderr
            assert (folder / "model" / "saved_model.pb").is_file()
            done, folder = run(1)
            assert done.stdout.count(": OK") == 4, done.stderr
            changed = copy / "image-model-zoo/toy/classification/1"
            changed.write_bytes(changed.read_bytes() + b"x")
            for number in (0, 1):
                done, _ = run(number)
                assert done.returncode != 0
                assert "FAILED" in done.stdout
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_the_code_runs(exported, tmp_path):
    """With a real model, in its other formats too."""
    export = exported("resnet_cifar_20", "random", "--format=saved_model,onnx,litert")
    hub_models.publish(export, tmp_path / "hub")
    with serving.Server(("127.0.0.1", 0), tmp_path / "hub", None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for kind, width in (("classification", 10), ("feature_vector", 64)):
                page = Page(hub_models.page(tmp_path / "hub", "resnet_cifar_20", kind))
                blocks = [
                    text for language, text in page.blocks if language == "python"
                ]
                assert len(blocks) == 6
                for text in blocks:
                    variables = _run(text, serving.address(server), tmp_path)
                    outputs = [
                        variables[name].shape
                        for name in ("outputs", "logits", "features")
                        if name in variables
                    ]
                    is_layer_below_5_units = kind != "classification" and "(5)" in text
                    assert outputs == [(1, 5 if is_layer_below_5_units else width)]
        finally:
            server.shutdown()
            thread.join()


def _run(code: str, address: str, folder: pathlib.Path) -> dict[str, object]:
    """Runs code of a page, with the address of a hub. Returns its variables."""
    variables: dict[str, object] = {}
    with contextlib.chdir(folder):
        exec(code.replace(model_page.HUB_ADDRESS, address), variables)
    return variables


def test_the_page_has_the_facts_of_the_markdown(hub, tmp_path):
    for kind in manifest.KINDS:
        folder = hub / CLASSIFIER.replace("classification", kind)
        one, other = (
            statements.Page(statements.read(folder / name), kind)
            for name in ("page.md", "index.html")
        )
        for name in statements.FACTS:
            assert one.fact(name) == other.fact(name), name
        assert one.fact("params") == 420_000
        assert one.arguments() == other.arguments()
        assert one.endpoints() == other.endpoints() != {}


def test_checksums_are_those_of_the_index(hub):
    page = pages(hub)[f"{CLASSIFIER}/index.html"]
    entry = hub_index.read(hub)["image-model-zoo/toy/classification/1"]
    sums = {
        path: file["sha256"]
        for path, file in entry["files"].items()
        if not path.endswith(f"{CLASSIFIER}/index.html")  # no file has its own
    }
    assert len(sums) > 8
    for path, sha256 in sums.items():
        assert sha256 in page.data, path


def test_random_weights_are_said_loudly(hub):
    text = hub_models.page(hub, arch="noise")
    start = text.index('<div class="warning" role="note">')
    assert "RANDOM weights" in text[start : start + 200]
    assert start < text.index("<dl")
    assert 'class="warning"' not in hub_models.page(hub)
    front = (hub / "index.html").read_text()
    card = front[front.index("image-model-zoo/noise") - 400 :]
    assert '<p class="accuracy loud">random weights</p>' in card


def test_the_classes_are_listed(hub):
    text = hub_models.page(hub)
    assert "<td>1</td><td><code>t1</code></td><td>Trouser</td>" in text
    assert "Classes" not in hub_models.page(hub, kind="feature_vector")


def test_class_names_come_from_the_model_alone(tmp_path):
    """A manifest can't name another file of the machine that publishes."""
    secret = tmp_path / "secret.tsv"
    secret.write_text("index\tid\tname\n0\tsecret\tsecret\n")
    export = hub_models.export(tmp_path / "exports")
    folder = export / "classification" / "1"
    record = json.loads((folder / manifest.MANIFEST).read_text())
    record["class_index"]["file"] = str(secret)
    (folder / manifest.MANIFEST).write_text(json.dumps(record))
    assert hub_model_page._class_rows(folder)[0] == ("0", "t0", "T-shirt")
    (folder / "assets" / manifest.CLASS_INDEX).write_bytes(b"\xff\xfe")
    assert hub_model_page._class_rows(folder) == []
    (folder / "assets" / manifest.CLASS_INDEX).unlink()
    assert hub_model_page._class_rows(folder) == []


def test_a_page_says_what_changed(hub):
    text = hub_models.page(hub, version=2)
    changes = text[text.index("Changes since version 1") :]
    changes = changes[: changes.index("</details>")]
    assert "<code>weights.metrics.test_top1</code></th><td>0.875</td><td>0.9</td>" in (
        changes
    )
    assert changes.count("<tr>") == 2  # the header, and the only field that differs
    assert "../1/index.html" in changes
    assert "Changes since" not in hub_models.page(hub)


def test_changes_are_those_of_manifest_and_report():
    before = {
        "a": {"b": 1, "c": [1]},
        "old": "x",
        "version": 1,
        "pair": {"sha256": "1"},
    }
    after = {
        "a": {"b": 2, "c": [1]},
        "new": None,
        "version": 2,
        "pair": {"sha256": "2"},
    }
    changes = version_changes.of_manifests(
        {**before, "files": {"f": "a" * 64, "g": "b" * 64}},
        {**after, "files": {"f": "c" * 64, "g": "b" * 64}},
    )
    assert [(c.field, c.before, c.after) for c in changes] == [
        ("a.b", "1", "2"),
        ("new", "–", "null"),
        ("old", "x", "–"),
        ("file f", "SHA-256 aaaaaaaaaaaa…", "SHA-256 cccccccccccc…"),
    ]
    report = hub_models.suite_report("classification")
    worse = hub_models.suite_report("classification", failing="F03", message="slow")
    worse["seconds"], worse["versions"]["python"] = 99, "3.12.0"
    changes = version_changes.of_reports(report, worse)
    assert [(c.field, c.before, c.after) for c in changes] == [
        ("clause F03", "pass", "warn"),
        ("checked with.python", "3.11.0", "3.12.0"),
    ]
    (change,) = version_changes.of_manifests({"a": "x" * 500}, {"a": ["y" * 500]})
    assert len(change.before) == len(change.after) == 161


@pytest.mark.parametrize(
    "record", [{}, {"clauses": "x"}, {"measured": 1, "versions": []}]
)
def test_a_report_of_any_form_can_be_compared(record):
    version_changes.of_reports(record, hub_models.suite_report("classification"))


def test_hostile_texts_are_only_texts(hub):
    found = pages(hub)
    names = [name for name in found if "/hostile/" in name]
    assert len(names) == 2
    for name in [*names, "index.html"]:
        page = found[name]
        assert "alert(1)" in page.data
        assert "{{ 7 * 7 }}" in page.data
        assert len(page.named("script")) == (1 if name == "index.html" else 2)
        assert len(page.named("title")) == len(page.named("h1")) == 1
        images = [image["src"] for image in page.named("img")]
        assert images == ([] if name == "index.html" else ["./stages.svg"])
        links = [str(a.get("href")) for a in page.named("a")]
        assert not [link for link in links if "javascript" in link]
        text = (hub / name).read_text(encoding="utf-8")
        assert text.isascii() or not set(text) & set("\u202e\u202c\u2066\u200b")
        assert "\\u202egnp.exe" in page.data
    text = (hub / names[0]).read_text(encoding="utf-8")
    (block,) = re.findall(r'id="saved-model">(.*?)</script>', text)
    assert json.loads(block)["models"][0]["license"] == HOSTILE


def test_long_and_odd_names_of_classes_are_shown(tmp_path):
    lines = [f"{n}\t{'x' * 5000}\t\u0000\u001b[31m\ufeff\u2028{n}" for n in range(3)]
    text = "\n".join(["index\tid\tname", *lines]) + "\n"
    hub_models.publish(hub_models.export(tmp_path / "e", classes=text), tmp_path / "h")
    page = hub_models.page(tmp_path / "h")
    assert "\\x1b[31m" in page
    assert not set(page) & set("\u0000\u001b\ufeff\u2028")


def test_json_for_scripts_can_t_end_them():
    value = {"a": ["</script><!--", "&amp;", "\u2028\u202e", '"']}
    text = str(rendering.json_data(value))
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.00 kB"),
        (999, "1.00 kB"),
        (17_494_000, "17.5 MB"),
        (553e6, "553 MB"),
        (2e13, "20,000 GB"),
    ],
)
def test_sizes_in_bytes(size, text):
    assert rendering.byte_size(size) == text


def summary(tmp_path, kind="classification", **changes):
    export = hub_models.export(tmp_path / "exports", **changes)
    report = hub_models.suite_report(kind)
    return hub_front_page.summary(page_data.for_export(export / kind / "1", report))


def test_a_summary_has_what_the_front_page_says(tmp_path):
    assert summary(tmp_path) == {
        "title": "ToyNet 1.0, 64 px",
        "task": "classification",
        "architecture": "ToyNet",
        "image_size": 64,
        "params": 420_000,
        "multiply_adds": 4_700_000,
        "outputs": 10,
        "accuracy": {
            "metric": "top-1",
            "value": 0.875,
            "origin": "measured",
            "source": "",
        },
        "license": "Apache-2.0",
        "data": "Fashion-MNIST",
        "warning": "",
    }


@pytest.mark.parametrize(
    ("weights", "accuracy", "warning"),
    [
        (
            {"published_top1": {"value": 0.7, "source": "paper"}},
            "top-1 0.7 published",
            "",
        ),
        (
            {"metrics": {"test_mean_average_precision": 0.5}},
            "mean average precision 0.5 measured",
            "",
        ),
        ({}, "", ""),
        (
            {"published_top1": {"value": 0.7, "source": "p"}, "head": {}},
            "top-1 0.7 published",
            "",
        ),
        (
            {"published_top1": {"value": 0.7, "source": "p"}, "head": {"a": 1}},
            "",
            "random head",
        ),
        ({"name": "random", "seed": 0}, "", "random weights"),
    ],
)
def test_an_accuracy_is_measured_or_published_or_unknown(
    tmp_path, weights, accuracy, warning
):
    found = summary(tmp_path, weights={"name": "toys", **weights})
    about = found["accuracy"] or {}
    text = " ".join(str(about[k]) for k in ("metric", "value", "origin") if k in about)
    assert (text, found["warning"]) == (accuracy, warning)


def entry(handle, size=1_000_000, formats=(), **about):
    folder = hub_paths.documents_folder(handle)
    files = {handle: {"size": size, "sha256": "0" * 64}}
    for name in (*(f"formats/{name}.tar.gz" for name in formats), "index.html"):
        files[f"{folder}/{name}"] = {"size": 1, "sha256": "0" * 64}
    values = {
        "title": handle,
        "architecture": "ToyNet",
        "image_size": 64,
        "params": 1_000_000,
        "outputs": 10,
        "accuracy": None,
        "license": "MIT",
        "data": "toys",
        "warning": "",
    }
    return {"summary": {**values, **about}, "files": files}


def front(models):
    return hub_front_page.html(models, assets={"pages": "assets/0"})


def test_the_front_page_shows_the_latest_versions():
    handles = [f"me/toy/{k}/{v}" for k in manifest.KINDS for v in (1, 2, 10)]
    text = front({handle: entry(handle) for handle in handles})
    page = Page(text)
    links = [a["href"] for a in page.named("a") if "models" in str(a.get("href"))]
    assert links == [
        "./me/models/toy/classification/10/index.html",
        "./me/models/toy/feature_vector/10/index.html",
        "./me/models/toy/classification/2/index.html",
        "./me/models/toy/classification/1/index.html",
    ]
    assert "2 models" in page.data
    assert "Version 10; earlier:" in text


def test_the_front_page_lists_models_of_earlier_programs():
    files = {
        "me/toy/classification/1": {"size": 5000, "sha256": "0"},
        "me/models/toy/classification/1/page.html": {"size": 1, "sha256": "0"},
    }
    bare = {"me/other/classification/1": {"size": 5000, "sha256": "0"}}
    page = Page(
        front(
            {
                "me/toy/classification/1": {"files": files},
                "me/other/classification/1": {"files": bare, "weights": "random"},
            }
        )
    )
    assert page.data.count("random weights") == 1
    links = [a["href"] for a in page.named("a")]
    assert "./me/models/toy/classification/1/page.html" in links
    assert "./me/other/classification/1" in links
    assert "toy" in page.data


def test_filters_are_offered_where_they_tell_models_apart():
    models = {
        "me/a/classification/1": entry(
            "me/a/classification/1",
            params=400_000,
            formats=("onnx",),
            accuracy={"metric": "top-1", "value": 0.76, "origin": "measured"},
        ),
        "me/b/classification/1": entry(
            "me/b/classification/1", params=30_000_000, license="Apache-2.0"
        ),
    }
    text = front(models)
    for field, options in {
        "license": ["Apache-2.0", "MIT"],
        "format": ["onnx", "saved_model"],
        "params": ["500000", "1000000", "2000000", "5000000", "10000000", "20000000"],
        "accuracy": ["50", "60", "70", "75"],
        "order": ["params", "accuracy"],
    }.items():
        select = re.search(rf'<select name="{field}">(.*?)</select>', text, re.DOTALL)
        assert re.findall(r'value="([^"]+)"', select[1]) == options, field
    for field in ("task", "architecture", "origin"):
        assert f'<select name="{field}">' not in text
    assert "Nothing is published here yet" in front({})


def test_odd_handles_do_no_harm():
    odd = ["javascript:alert(1)/a/b/1", "a/b", "me/toy/b/x", "/a/b/1", "a/../b/1"]
    page = Page(front({handle: entry(handle) for handle in [*odd, "me/toy/b/1"]}))
    links = [str(a.get("href")) for a in page.named("a")]
    assert links == ["#main", "./index.json", "./me/models/toy/b/1/index.html"]


def test_paths_become_relative_links():
    assert hub_paths.link("a/b c?.md") == "./a/b%20c%3F.md"
    assert hub_paths.link("a/x", "a/b/c") == "../../x"
    assert hub_paths.link("a/b/x", "a/b") == "./x"


def model(tmp_path, kind="classification", files=(), **options):
    """Returns the page of a model with more files than there are."""
    export = hub_models.export(tmp_path / "exports", formats=("onnx",))
    handle = f"me/toy/{kind}/1"
    folder = hub_paths.documents_folder(handle)
    files = [*files, "formats/onnx.tar.gz"]
    names = [handle, *(f"{folder}/{name}" for name in files)]
    writer = hub_pages.Pages(**options)
    return writer.model_page(
        export / kind / "1",
        hub_models.suite_report(kind, failing="F03", message="<b>slow</b>"),
        handle=handle,
        other="me/toy/feature_vector/1",
        files={name: {"size": 1, "sha256": "0" * 64} for name in names},
        formats={"onnx": export / "onnx" / kind / "1"},
        previous=None,
        assets={"pages": "assets/0", "runtime": "assets/1"},
    )


def test_a_page_links_what_was_published_with_it(tmp_path):
    plain = model(tmp_path)
    for name in ("bom.cdx.json", "model.sig", "stages.svg"):
        assert name not in plain
    signed = model(
        tmp_path / "signed", files=["bom.cdx.json", "stages.svg"], signer="<ab:cd>"
    )
    assert '<a href="./bom.cdx.json">bill of materials</a> (CycloneDX)' in signed
    assert "signed with the key <code>&lt;ab:cd&gt;</code>" in signed
    assert '<img src="./stages.svg"' in signed


def test_the_report_is_on_the_page(tmp_path):
    text = model(tmp_path)
    assert '<span class="status warn">warn</span>' in text
    assert '<span class="message">&lt;b&gt;slow&lt;/b&gt;</span>' in text
    assert "1 clauses pass, 0 fail, 1 warn" in text


def test_only_classifiers_with_a_runtime_are_tried_in_the_browser(tmp_path):
    calls = []

    def try_it(folder, *, address, download):
        calls.append((folder.parts[-3:], address))
        assert download > 0

    runtime = {"a.js": hub_pages.ASSETS / "front.js"}
    for name, options in {
        "neither": {},
        "no box": {"runtime": runtime},
        "both": {"runtime": runtime, "try_it": try_it},
    }.items():
        for kind in manifest.KINDS:
            text = model(tmp_path / name / kind, kind=kind, **options)
            assert "wasm" not in text
    assert calls == [(("onnx", "classification", "1"), "../../../../../assets/1/")]


def test_assets_are_small():
    """All of a page but its text."""
    own = hub_pages.Pages().assets["pages"]
    assert {"hub.css", "front.js", "model.js"} <= own.keys()
    for name in ("hub.css", "front.js", "model.js"):
        assert own[name].stat().st_size < 16_000
