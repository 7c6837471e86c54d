"""A hub in a folder has a pair in its other formats, too."""

import tarfile

import pytest

from exporters import manifest
from publishing import hub, hub_index, releasing
from tests.publishing import publisher
from tests.publishing.conftest import add_format, make_export
from tests.publishing.hub_test import HANDLES, assert_rejected, assert_whole, contents

BUILD = {"gin": "a", "seed": 0}
FORMATS = [
    f"image-model-zoo/models/toy/{kind}/1/formats/{name}"
    for kind in manifest.KINDS
    for name in ("onnx.json", "onnx.tar.gz", "serving.json", "serving.tar.gz")
]


@pytest.fixture
def export(tmp_path):
    export = make_export(tmp_path / "exports", build=BUILD)
    add_format(export, "serving", build=BUILD, content=b"constants")
    add_format(export, "onnx", build=BUILD, content=b"onnx", file="model.onnx")
    return export


def test_formats_are_published_with_their_pair(export, publish, tmp_path):
    folder = tmp_path / "hub"
    before = contents(export)
    done = publish(export, f"--hub={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    after = contents(export)
    assert {name: after.get(name) for name in before} == before
    found = [name for name in sorted(contents(folder)) if "/formats/" in name]
    assert found == sorted(FORMATS)
    assert_whole(folder)
    index = hub_index.read(folder)
    for handle in HANDLES:
        kind = handle.split("/")[-2]
        documents = folder / f"image-model-zoo/models/toy/{kind}/1"
        assert {name for name in FORMATS if f"/{kind}/" in name} <= {
            *index[handle]["files"]
        }
        with tarfile.open(documents / "formats/onnx.tar.gz") as archive:
            data = archive.extractfile("variables/variables.data").read()
        assert data == b"onnx"
        assert (documents / "formats.txt").read_bytes() == b"onnx serving"
        report = (documents / "formats/serving.json").read_text()
        assert report == '{"images": 32}\n'


def test_the_suite_checks_formats_that_are_saved_models(export, publish, tmp_path):
    assert publish(export, f"--hub={tmp_path / 'hub'}").returncode == 0
    assert (export / "serving" / "conformance-1.json").is_file()
    assert not (export / "onnx" / "conformance-1.json").exists()


def test_a_format_that_changed_is_not_published(export, publish, tmp_path):
    (export / "onnx" / "classification" / "1" / "model.onnx").write_bytes(b"other")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert_rejected(done, "onnx/classification/1 changed since it was exported")
    assert not (tmp_path / "hub").exists()


def test_a_format_that_fails_a_clause_is_not_published(export, publish, tmp_path):
    assert publish(export, f"--hub={tmp_path / 'first'}").returncode == 0
    (export / "serving" / "conformance-1.json").unlink()
    done = publish(export, f"--hub={tmp_path / 'second'}", FAILS="F03")
    assert done.returncode == 1
    assert "toy/1 (serving) feature_vector: F03 " in done.stderr
    assert not (tmp_path / "second").exists()


def test_a_format_of_another_build_is_refused(export, publish, tmp_path):
    add_format(export, "litert", build={**BUILD, "seed": 1})
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert_rejected(done, f"litert is not of the same build as {export}: seed differs")
    assert not (tmp_path / "hub").exists()


def test_a_folder_with_another_name_is_refused(export, publish, tmp_path):
    (export / "serving").rename(export / "srving")
    done = publish(export, f"--hub={tmp_path / 'hub'}")
    assert_rejected(done, "its format differs")


def test_a_format_that_is_exported_later_is_not_added_in_silence(
    export, publish, tmp_path
):
    folder = tmp_path / "hub"
    (export / "onnx").rename(tmp_path / "onnx")
    assert publish(export, f"--hub={folder}").returncode == 0
    before = contents(folder)
    (tmp_path / "onnx").rename(export / "onnx")
    done = publish(export, f"--hub={folder}")
    assert done.returncode == 0
    assert "toy/feature_vector/1 was published without onnx" in done.stderr
    assert contents(folder) == before


def test_hubs_that_take_no_formats_are_told(export, tmp_path, monkeypatch):
    class Folder(hub.Hub):
        takes_formats = False

    lines = []
    monkeypatch.setattr(releasing._LOG, "info", lines.append)
    releasing.release(
        export,
        destination=Folder(tmp_path / "hub", "me"),
        documents=publisher.documents,
        check=publisher.check,
        suite="of the tests",
        dry_run=False,
    )
    assert "toy/1: onnx, serving stay here: only hubs in folders take them" in lines
    assert not [name for name in contents(tmp_path / "hub") if "formats" in name]
    assert not (export / "serving" / "conformance-1.json").exists()
