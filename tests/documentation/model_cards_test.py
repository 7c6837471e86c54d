"""Model cards follow the rules in each hub's documentation."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from conformance import statements
from documentation import hub_pages, model_cards, page_data
from exporters import manifest

HEADER = re.compile(
    r"# Module (?P<publisher>[a-z\d-]+)/(?P<name>[\w.-]+(/[\w.-]+)*)/(?P<version>\d+)",
    re.ASCII,
)
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
REQUIRED = {"asset-path", "fine-tunable", "format", "task"}
OPTIONAL = {
    *("network-architecture", "dataset", "language", "license"),
    *("colab", "interactive-visualizer"),
}
MAY_REPEAT = {"dataset", "task", "network-architecture"}
TASKS = {
    "feature_vector": "image-feature-vector",
    "classification": "image-classification",
}
PIPELINES = {
    "feature_vector": "image-feature-extraction",
    "classification": "image-classification",
}


@pytest.fixture(scope="module", params=manifest.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def untrained(exported, suite_report, kind):
    return model_cards.files(exported("resnet_cifar_20") / kind / "1", suite_report)


@pytest.fixture(scope="module")
def trained(exported, suite_report, kind):
    folder = exported("resnet_cifar_20", weights="fashion_mnist")
    return model_cards.files(folder / kind / "1", suite_report)


def test_all_documents_are_there(untrained):
    assert sorted(untrained) == [
        "bom.cdx.json",
        "huggingface/README.md",
        "huggingface/stages.svg",
        "kaggle/model-instance-metadata.json",
        "kaggle/model-metadata.json",
        "page.md",
        "stages.svg",
        "tfhub.md",
    ]
    for content in untrained.values():
        assert content.decode().endswith("\n")


def metadata(text: str) -> list[tuple[str, str]]:
    matches = [re.fullmatch(r" ([a-z-]+): (.+) ", c) for c in COMMENT.findall(text)]
    assert all(matches), COMMENT.findall(text)
    return [(match[1], match[2]) for match in matches]


def test_tfhub_begins_with_the_handle(untrained, kind):
    first, blank, description, *_ = untrained["tfhub.md"].decode().splitlines()
    match = HEADER.fullmatch(first)
    assert match["publisher"] == "image-model-zoo"
    assert match["name"] == f"resnet_cifar_20/{kind}"
    assert match["version"] == "1"
    assert blank == ""
    assert description.startswith("RANDOM weights: ResNet 20 for CIFAR")


def test_tfhub_has_the_required_keys_and_no_unknown_ones(untrained, trained, kind):
    for files in (untrained, trained):
        pairs = metadata(files["tfhub.md"].decode())
        keys = [key for key, _ in pairs]
        assert set(keys) >= REQUIRED
        assert set(keys) <= REQUIRED | OPTIONAL
        assert {key for key in keys if keys.count(key) > 1} <= MAY_REPEAT
        values = dict(pairs)
        assert values["asset-path"].endswith(f"resnet_cifar_20/{kind}/1.tar.gz")
        assert values["fine-tunable"] == "true"
        assert values["format"] == "saved_model_2"
        assert values["task"] == TASKS[kind]
        assert values["license"] == "apache-2.0"
    assert "dataset" not in dict(metadata(untrained["tfhub.md"].decode()))
    assert values["dataset"] == "fashion-mnist"


def test_tfhub_metadata_follows_the_description(untrained):
    lines = untrained["tfhub.md"].decode().splitlines()
    comments = [n for n, line in enumerate(lines) if line.startswith("<!--")]
    assert comments == list(range(4, 4 + len(comments)))


@pytest.mark.parametrize("publisher", ["Zoo", "a_b", "a/b", "", "ä"])
def test_an_invalid_publisher_is_rejected(exported, suite_report, publisher):
    folder = exported("resnet_cifar_20") / "classification" / "1"
    with pytest.raises(
        ValueError, match="must consist of lowercase letters, digits and hyphens"
    ):
        model_cards.files(folder, suite_report, publisher=publisher)


def test_a_publisher_has_a_page():
    assert model_cards.tfhub_publisher("zoo-1").splitlines()[0] == "# Publisher zoo-1"


def test_kaggle_has_its_fields(untrained, trained, kind):
    model = json.loads(untrained["kaggle/model-metadata.json"])
    assert list(model) == [
        *("ownerSlug", "title", "slug", "subtitle", "isPrivate", "description"),
        *("publishTime", "provenanceSources"),
    ]
    assert model["isPrivate"] is True
    assert model["slug"] == "resnet-cifar-20"
    assert model["subtitle"].startswith("RANDOM weights: ")
    assert model["description"].startswith("RANDOM weights: ")
    instance = json.loads(untrained["kaggle/model-instance-metadata.json"])
    assert list(instance) == [
        *("ownerSlug", "modelSlug", "instanceSlug", "framework", "overview", "usage"),
        *("licenseName", "fineTunable", "trainingData", "modelInstanceType"),
        *("baseModelInstance", "externalBaseModelUrl"),
    ]
    assert instance["framework"] == "tensorFlow2"
    assert instance["modelSlug"] == model["slug"]
    assert instance["instanceSlug"] == kind.replace("_", "-")
    assert instance["licenseName"] == "Apache 2.0"
    assert instance["fineTunable"] is True
    assert instance["trainingData"] == []
    assert "hub.load(" in instance["usage"]
    instance = json.loads(trained["kaggle/model-instance-metadata.json"])
    assert instance["trainingData"] == ["Fashion-MNIST"]
    assert not instance["overview"].startswith("RANDOM")


def front_matter(text: str) -> dict:
    """Parses the front matter: each value is JSON, and therefore YAML."""
    _, front, _ = text.split("---\n", maxsplit=2)
    pairs = (line.split(": ", maxsplit=1) for line in front.splitlines())
    return {key: json.loads(value) for key, value in pairs}


def test_hugging_face_has_the_required_metadata(untrained, trained, kind):
    for files in (untrained, trained):
        front = front_matter(files["huggingface/README.md"].decode())
        assert front["license"] == "apache-2.0"
        assert front["library_name"] == "tf-keras"
        assert front["pipeline_tag"] == PIPELINES[kind]
    front = front_matter(untrained["huggingface/README.md"].decode())
    assert "random-weights" in front["tags"]
    assert not {"metrics", "datasets", "model-index"} & front.keys()


def test_hugging_face_has_a_metric_only_where_one_was_measured(trained, kind):
    front = front_matter(trained["huggingface/README.md"].decode())
    assert front["datasets"] == ["fashion_mnist"]
    if kind == "feature_vector":
        assert not {"metrics", "model-index"} & front.keys()
        return
    assert front["metrics"] == ["accuracy"]
    ((result,),) = (index["results"] for index in front["model-index"])
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["type"] == "fashion_mnist"
    assert result["dataset"]["name"] == "Fashion-MNIST"
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", 0.939)


def test_a_page_has_the_measured_accuracy(trained, untrained):
    assert "measured on held-out images: 93.9 % top-1" in trained["page.md"].decode()
    assert "93.9" not in untrained["page.md"].decode()


@pytest.mark.parametrize("name", ["page.md", "tfhub.md"])
def test_measured_sizes_are_on_the_page(untrained, name):
    text = " ".join(untrained[name].decode().replace("|", " ").split())
    assert "height 7 to 1040 px 1 not tried" in text
    assert "batch 1, 2, 64" in text
    assert "3 clauses pass, 0 fail, 0 warn, 0 not applicable." in text


def test_markdown_and_html_say_the_same(
    exported, suite_report, untrained, kind, tmp_path
):
    handle = f"image-model-zoo/resnet_cifar_20/{kind}/1"
    html = hub_pages.Pages().model_page(
        exported("resnet_cifar_20") / kind / "1",
        suite_report,
        handle=handle,
        other=handle,
        files={handle: {"size": 1, "sha256": "0" * 64}},
        formats={},
        previous=None,
        assets={"pages": "assets/0"},
    )
    (tmp_path / "index.html").write_text(html)
    (tmp_path / "page.md").write_bytes(untrained["page.md"])
    one, other = (
        statements.Page(statements.read(tmp_path / name), kind)
        for name in ("page.md", "index.html")
    )
    for name in statements.FACTS:
        assert one.fact(name) == other.fact(name), name
    assert one.fact("params") > 0
    assert one.arguments() == other.arguments()
    assert one.endpoints() == other.endpoints() != {}


def test_a_folder_or_report_of_another_kind_is_rejected(
    exported, suite_report, tmp_path
):
    with pytest.raises(
        ValueError, match="has no assets.extra/manifest.json: it was not"
    ):
        model_cards.files(tmp_path, suite_report)
    folder = exported("resnet_cifar_20") / "classification" / "1"
    with pytest.raises(ValueError, match="not a report of tools/check"):
        model_cards.files(folder, {"path": "m"})


HOSTILE = "<script>alert(1)</script> | `a` [x](javascript:y) \n# Title --> *b*\u202e"


def test_a_page_lists_the_other_formats_of_its_hub(
    exported, suite_report, untrained, kind
):
    folder = exported("resnet_cifar_20") / kind / "1"
    listed = model_cards.files(folder, suite_report, formats=["serving", "onnx"])
    assert b"Other formats" not in untrained["page.md"]
    for path in ("serving.tar.gz", "onnx.tar.gz"):
        assert f"resnet_cifar_20/{kind}/1/formats/{path}" in listed["page.md"].decode()
    assert listed["huggingface/README.md"] == untrained["huggingface/README.md"]


def test_untrusted_text_is_escaped(exported, suite_report, tmp_path):
    folder = exported("resnet_cifar_20", weights="fashion_mnist")
    fields = json.loads((folder / "classification/1" / manifest.MANIFEST).read_text())
    fields["weights"]["source"] = fields["license"] = fields["title"] = HOSTILE
    path = tmp_path / manifest.MANIFEST
    path.parent.mkdir()
    path.write_text(json.dumps(fields))
    files = model_cards.files(tmp_path, suite_report)
    for name in ("page.md", "tfhub.md", "huggingface/README.md"):
        text = files[name].decode()
        assert "\\<script\\>" in text
        assert "\n# Title" not in text
    assert not [name for name, data in files.items() if "\u202e" in data.decode()]
    (tmp_path / "page.md").write_bytes(files["page.md"])
    record = statements.read(tmp_path / "page.md")
    assert record["block"]["models"][0]["license"] == HOSTILE


# The code on the page runs.


@pytest.mark.slow
def test_the_page_s_code_runs(exported, suite_report, kind, tmp_path):
    folder = exported("resnet_cifar_20")
    text = model_cards.files(folder / kind / "1", suite_report)["page.md"].decode()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    (tmp_path / "image-model-zoo").mkdir()
    (tmp_path / "image-model-zoo" / "resnet_cifar_20").symlink_to(folder)
    code = "\n".join(blocks)
    assert 'HUB = "http://127.0.0.1:8080/"' in code
    code = code.replace("http://127.0.0.1:8080/", f"{tmp_path}/")
    variables: dict = {}
    exec(code, variables)
    rows = 64 if kind == "feature_vector" else 10
    assert variables["outputs"].shape == (1, rows)


def test_handles_are_of_the_right_version(exported, suite_report):
    folder = exported("resnet_cifar_20") / "classification" / "1"
    page = page_data.for_export(pathlib.Path(folder), suite_report, publisher="me")
    assert page.handle(page.models[0]) == "me/resnet_cifar_20/classification/1"
