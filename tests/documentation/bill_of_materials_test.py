"""Bills of materials keep to CycloneDX's schema, whatever the manifest says."""

from __future__ import annotations

import json
import shutil

import pytest

from documentation import bill_of_materials, model_cards, page_data
from exporters import manifest

validation = pytest.importorskip(
    "cyclonedx.validation.json", reason="needs cyclonedx-python-lib: tools/setup test"
)
pytest.importorskip("fqdn", reason="needs cyclonedx-python-lib[json-validation]")

schema = pytest.importorskip("cyclonedx.schema")


@pytest.fixture(scope="module", params=manifest.KINDS)
def trained(request, exported):
    folder = exported("resnet_cifar_20", weights="fashion_mnist")
    return folder / request.param / "1"


def parse(folder, report):
    text = bill_of_materials.text(page_data.for_export(folder, report), folder)
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    return json.loads(text)


def component(record, name):
    (found,) = [c for c in record["components"] if c["bom-ref"] == name]
    return found


def test_the_validator_refuses_other_json():
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    text = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "license": 1})
    assert validator.validate_str(text) is not None


def test_it_is_one_of_the_documents(trained, suite_report):
    documents = model_cards.files(trained, suite_report)
    page = page_data.for_export(trained, suite_report)
    expected = bill_of_materials.text(page, trained).encode()
    assert documents["bom.cdx.json"] == expected


def test_it_names_the_model_and_all_its_files(trained, suite_report):
    model = parse(trained, suite_report)["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    kind = trained.parent.name
    assert (model["name"], model["version"]) == (f"resnet_cifar_20/{kind}", "1")
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    hashes = {c["name"]: c["hashes"][0]["content"] for c in model["components"]}
    own = manifest.manifest_hash(trained)
    assert hashes == {**manifest.file_hashes(trained), str(manifest.MANIFEST): own}


def test_it_names_weights_data_code_and_packages(trained, suite_report):
    record = parse(trained, suite_report)
    exported = manifest.read(trained)
    weights = component(record, "weights")
    assert weights["hashes"][0]["content"] == exported.weights["sha256"]
    assert weights["licenses"] == [{"license": {"id": exported.weights["license"]}}]
    assert weights["description"] == exported.weights["source"]
    assert component(record, "data")["name"] == "Fashion-MNIST"
    pair = json.loads((trained.parent.parent / "pair-1.json").read_text())
    assert component(record, "code")["hashes"][0]["content"] == pair["code"]
    for name, version in exported.packages.items():
        package = component(record, f"package:{name}")
        assert package["purl"] == f"pkg:pypi/{name}@{version}"
    (dependency,) = record["dependencies"]
    assert len(dependency["dependsOn"]) == len(record["components"]) == 7


def test_accuracy_is_that_of_the_manifest(trained, suite_report):
    card = parse(trained, suite_report)["metadata"]["component"]["modelCard"]
    top1 = manifest.read(trained).weights["metrics"]["test_top1"]
    if trained.parent.name == "feature_vector":
        assert "quantitativeAnalysis" not in card
    else:
        (metric,) = card["quantitativeAnalysis"]["performanceMetrics"]
        assert metric["value"] == str(top1)
        assert metric["slice"] == "Fashion-MNIST, test split"


def test_random_weights_are_said_to_be_random(exported, suite_report):
    folder = exported("resnet_cifar_20") / "classification" / "1"
    record = parse(folder, suite_report)
    card = record["metadata"]["component"]["modelCard"]
    (limit,) = card["considerations"]["technicalLimitations"]
    assert limit.startswith("The weights are random")
    assert "datasets" not in card["modelParameters"]
    assert "hashes" not in component(record, "weights")


@pytest.fixture
def edited(exported, tmp_path):
    """Returns a function that edits the manifest of a copy of a model."""
    pair = exported("resnet_cifar_20", weights="fashion_mnist")
    copy = shutil.copytree(pair, tmp_path / "pair")
    folder = copy / "classification" / "1"

    def edit(**weights):
        path = folder / manifest.MANIFEST
        record = json.loads(path.read_text())
        fields = weights.pop("manifest", {})
        record["weights"].update(weights)
        record.update(fields)
        path.write_text(json.dumps(record))
        return folder

    return edit


def test_the_same_model_gives_the_same_bytes(edited, suite_report):
    folder = edited()
    page = page_data.for_export(folder, suite_report)
    first, second = (bill_of_materials.text(page, folder) for _ in range(2))
    assert first == second
    assert "timestamp" not in first
    serial = json.loads(first)["serialNumber"]
    assert (
        json.loads(first)["serialNumber"]
        != parse(edited(source="elsewhere"), suite_report)["serialNumber"]
    )
    assert serial.startswith("urn:uuid:")


def test_an_address_of_weights_is_a_reference(edited, suite_report):
    url = "https://example.com/weights.h5?download=1"
    record = parse(edited(url=url), suite_report)
    (reference,) = component(record, "weights")["externalReferences"]
    assert reference == {"type": "distribution", "url": url}


HOSTILE = '</script><script>alert(1)</script>\x1b[31m\u202e"\ud800'


@pytest.mark.parametrize(
    "weights",
    [
        {"source": HOSTILE, "license": HOSTILE, "license_source": HOSTILE},
        {"url": "javascript:alert(1)"},
        {"url": "https://example.com/a b\n"},
        {"url": 7, "sha256": "0" * 63},
        {"file": f"../../{HOSTILE}"},
        {"package": "a/../b", "package_version": "1 2"},
        {"published_top1": {"value": HOSTILE, "source": HOSTILE}},
        {"manifest": {"title": HOSTILE, "license": HOSTILE}},
        {"manifest": {"packages": {HOSTILE: HOSTILE, "keras": "1@2"}}},
        {"manifest": {"paper": {"title": HOSTILE, "arxiv": HOSTILE}}},
    ],
)
def test_hostile_manifests_give_valid_bills(edited, suite_report, weights):
    folder = edited(**weights)
    page = page_data.for_export(folder, suite_report)
    text = bill_of_materials.text(page, folder)
    assert text.encode().decode() == text  # no lone surrogate
    assert all(c.isprintable() or c == "\n" for c in text)
    record = parse(folder, suite_report)
    assert "javascript:" not in json.dumps(record)
    for part in record["components"]:
        assert "/.." not in part.get("purl", "")
        assert "/" not in part["name"] or part["type"] == "library"


def test_a_local_path_of_weights_is_not_told(edited, suite_report):
    folder = edited(path="/somewhere/secret/model.safetensors", file="")
    text = json.dumps(parse(folder, suite_report))
    assert "model.safetensors" in text
    assert "somebody" not in text
