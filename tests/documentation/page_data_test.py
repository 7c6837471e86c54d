"""Records of archs: they are current, valid, and agree with facts and builds."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from documentation import manifest_summary, page_data, site
from exporters import manifest
from zoo import config, facts

ROOT = page_data.ROOT
CHANGES = {  # text to append to a file, by its suffix
    "py": "_MORE = 1\n",
    "gin": "model.dropout_rate = 0.5\n",
    "json": "\n",
    "tsv": "1000\tmore\tmore\n",
}


def test_docs_are_not_stale_and_checking_needs_no_tensorflow(tool):
    done = tool("docs", "--check", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "documentation.site" in imported
    assert not imported & {"tensorflow", "keras", "sphinx"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--site=/proc/site", "docs: /proc/site: No such file or directory"),
        ("--site={tmp}/file", "docs: {tmp}/file: File exists"),
        ("--measure=mobilenet_v9", "Did you mean 'mobilenet_v2'"),
        ("extra", "unexpected argument 'extra'"),
    ],
)
def test_wrong_usage_is_a_one_line_error(tool, tmp_path, argument, message):
    (tmp_path / "file").write_text("")
    done = tool("docs", argument.format(tmp=tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert message.format(tmp=tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_stale_files_are_listed(tmp_path, monkeypatch):
    shutil.copytree(site.FOLDER, tmp_path / "docs")
    monkeypatch.setattr(site, "FOLDER", tmp_path / "docs")
    assert site.stale() == []
    page = tmp_path / "docs" / "architectures" / "mobilenet_v2.md"
    page.write_text(page.read_text().replace("3,538,984", "3,538,985"))
    (tmp_path / "docs" / "architectures" / "gone.svg").write_text("")
    (tmp_path / "docs" / "archs").mkdir()  # the folder of former pages
    (tmp_path / "docs" / "archs" / "gone.md").write_text("")
    (tmp_path / "docs" / "plots" / "params.svg").unlink()
    assert site.stale() == [
        "architectures/gone.svg",
        "architectures/mobilenet_v2.md",
        "archs/gone.md",
        "plots/params.svg",
    ]


@pytest.mark.parametrize(
    "file",
    [
        "zoo/mobilenet/mobilenet_v2.py",
        "zoo/mobilenet/configs/mobilenet_v2.gin",
        "zoo/mobilenet/configs/mobilenet_v2.facts.json",
        "zoo/layers/conv_norm.py",
        "zoo/taxonomies/ilsvrc_2012.tsv",
        "exporters/hyperparameters.py",
    ],
)
def test_a_record_is_stale_after_a_change_of_its_sources(file, tmp_path, monkeypatch):
    for package in ("zoo", "exporters", "documentation"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc")
        )
    monkeypatch.setattr(config, "ZOO", tmp_path / "zoo")
    monkeypatch.setattr(page_data, "ROOT", tmp_path)
    original_hash = page_data.sources_hash("mobilenet_v2")
    assert (
        original_hash
        == json.loads(page_data.record_file("mobilenet_v2").read_text())["sources"]
    )
    assert page_data.is_current("mobilenet_v2")
    with (tmp_path / file).open("a") as changed:
        changed.write("# a comment\n" if not file.endswith(("json", "tsv")) else "")
    assert page_data.sources_hash("mobilenet_v2") == original_hash
    with (tmp_path / file).open("a") as changed:
        changed.write(CHANGES[file.rpartition(".")[2]])
    assert page_data.sources_hash("mobilenet_v2") != original_hash
    assert not page_data.is_current("mobilenet_v2")


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("exporters/fused.py", True),
        ("zoo/resnet/resnet_cifar.py", True),
        ("zoo/resnet/configs/resnet_cifar_20.gin", True),
        ("documentation/manifest_summary.py", False),
    ],
)
def test_measurements_are_stale_after_a_change_of_their_sources(
    tmp_path, monkeypatch, file, counts
):
    for package in ("zoo", "exporters", "documentation"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc")
        )
    monkeypatch.setattr(config, "ZOO", tmp_path / "zoo")
    monkeypatch.setattr(page_data, "ROOT", tmp_path)
    assert page_data.is_measurement_current("resnet_cifar_20")
    with (tmp_path / file).open("a") as changed:
        changed.write(CHANGES[file.rpartition(".")[2]])
    assert page_data.is_measurement_current("resnet_cifar_20") != counts
    assert page_data.is_measurement_current("resnet_cifar_110")  # it was never measured


def test_an_invalid_record_is_not_current(tmp_path, monkeypatch):
    monkeypatch.setattr(page_data, "RECORDS", tmp_path)
    assert not page_data.is_current("mobilenet_v2")
    with pytest.raises(
        ValueError, match="mobilenet_v2.json is not a valid record: .*tools/docs"
    ):
        page_data.for_arch("mobilenet_v2")
    (tmp_path / "mobilenet_v2.json").write_text("[]")
    assert not page_data.is_current("mobilenet_v2")
    with pytest.raises(ValueError, match="mobilenet_v2.json is not a valid record"):
        page_data.for_arch("mobilenet_v2")


@pytest.mark.parametrize("arch", config.config_files())
def test_records_agree_with_the_facts(arch):
    """The facts come from other implementations."""
    arch_facts, fields = facts.load(arch), page_data.for_arch(arch).manifest
    assert fields["params"]["all"] == facts.value(arch_facts, "params")
    assert fields["params"]["trainable"] == facts.value(arch_facts, "trainable_params")
    assert fields["multiply_adds"] == facts.value(arch_facts, "multiply_adds")
    assert fields["preprocessing"]["image_size"] == facts.value(
        arch_facts, "image_size"
    )
    assert fields["output"]["num_classes"] == facts.value(arch_facts, "num_classes")
    vector = fields["endpoints"][f"{fields['architecture']}/feature_vector"]
    assert vector == [facts.value(arch_facts, "num_features")]


def rebuilt(arch: str) -> dict:
    import pathlib

    from exporters import building, describe, formats, request

    export_request = request.Request(arch=arch, output=pathlib.Path())
    model = building.build(export_request)
    return {
        kind: manifest_summary.summarize(
            describe.manifest_fields(export_request, model, formats.SAVED_MODEL, kind)
        )
        for kind in manifest.KINDS
    }


def recorded(arch: str) -> dict:
    return json.loads(page_data.record_file(arch).read_text(encoding="utf-8"))["models"]


def test_a_record_equals_a_new_build():
    assert json.loads(json.dumps(rebuilt("resnet_cifar_20"))) == recorded(
        "resnet_cifar_20"
    )


@pytest.mark.slow
@pytest.mark.parametrize("arch", config.config_files())
def test_each_record_equals_a_new_build(arch):
    assert json.loads(json.dumps(rebuilt(arch))) == recorded(arch)


def test_a_manifest_equals_the_record(exported):
    folder = exported("resnet_cifar_20")
    for kind in manifest.KINDS:
        fields = json.loads((folder / kind / "1" / manifest.MANIFEST).read_text())
        assert manifest_summary.summarize(fields) == recorded("resnet_cifar_20")[kind]


def test_suite_results_survive_json():
    for arch in ("resnet_cifar_20", "mobilenet_v2_035_96", "efficientnet_lite0"):
        text = page_data.measured_file(arch).read_text(encoding="utf-8")
        results = page_data.suite_results(arch)
        assert list(results) == list(manifest.KINDS)
        plain = {kind: result.to_json() for kind, result in results.items()}
        assert json.loads(json.dumps(plain)) == json.loads(text)["models"]
        for result in results.values():
            assert result.counts["fail"] == 0
            low, high = facts.value(facts.load(arch), "height_range")
            assert result.measured.sides["height"].smallest <= low
            assert result.measured.sides["height"].largest >= high
    assert page_data.suite_results("resnet_cifar_110") == {}


# No export of these has been through the whole suite for its page yet.
NOT_MEASURED = {
    *("AlexNet", "BiT", "CLIP", "ConvNeXt", "ConvNeXtV2", "DINOv2", "DINOv3"),
    *("DeiT3", "DenseNet", "DistilledDeiT"),
    *("InceptionResNetV2", "InceptionV1", "InceptionV3", "InceptionV4"),
    *("MLPMixer", "MaxViT", "MnasNet", "MobileViTV1", "MobileViTV2"),
    *("NASNet", "PNASNet", "RegNetX", "RegNetY", "ResNeXt"),
    *("SEResNet", "SigLIP", "Swin", "SwinV2", "VGG", "ViT", "WideResNet", "Xception"),
}


def test_an_arch_of_every_generation_was_measured():
    def generations(archs):
        names = {page_data.for_arch(arch).manifest["architecture"] for arch in archs}
        return {re.sub("Small|Medium|Large", "", name) for name in names}

    archs = config.config_files()
    measured = [arch for arch in archs if page_data.measured_file(arch).is_file()]
    assert generations(measured) == generations(archs) - NOT_MEASURED


def test_blocks_are_counted_by_stage():
    paths = ["stem/conv/kernel", "stage_1_block_1/norm/beta", "stage_1_block_12_up/b"]
    assert manifest_summary.blocks([*paths, "stage_2_block_3/c"]) == {
        "stage_1": 12,
        "stage_2": 3,
    }
    assert manifest_summary.blocks(["stage_1_blocked/x", "logits/bias"]) == {}
