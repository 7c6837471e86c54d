"""What `tools/docs --measure` keeps, and when it judges an export."""

import importlib
import json
import pathlib
import shutil
import subprocess

import pytest

from documentation import page_data
from exporters import manifest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
ARCH = "resnet_cifar_20"


@pytest.fixture
def outline(monkeypatch, tmp_path):
    """The module, which writes elsewhere and counts what it has judged.

    What it exports after the first time is a copy: that two exports have the same
    bytes is for other tests.
    """
    monkeypatch.syspath_prepend(str(TOOLS))
    found = importlib.import_module("_outline")
    monkeypatch.setattr(
        page_data, "measured_file", lambda arch: tmp_path / "found.json"
    )
    found.judged = []

    def judged(arch, folders, say):
        found.judged.append(arch)
        trial = page_data.Trial(measured=None, counts={"pass": 1}, versions={})
        return dict.fromkeys(manifest.KINDS, trial)

    monkeypatch.setattr(found, "_judged", judged)
    kept, export = tmp_path / "kept", subprocess.run

    def run(command, **kwargs):
        output = command[-1].removeprefix("--output=")
        if kept.exists():
            shutil.copytree(kept, output, dirs_exist_ok=True)
            return subprocess.CompletedProcess(command, 0)
        done = export(command, **kwargs)
        if not done.returncode:
            shutil.copytree(output, kept)
        return done

    monkeypatch.setattr(found.subprocess, "run", run)
    return found


def test_an_export_is_judged_once(outline):
    path = outline.measure(ARCH, lambda line: None)
    first = json.loads(path.read_text())
    assert set(first["exports"]) == set(manifest.KINDS)
    assert outline.judged == [ARCH]
    path.write_text(json.dumps({**first, "sources": "others"}))
    outline.measure(ARCH, lambda line: None)
    again = json.loads(path.read_text())
    assert outline.judged == [ARCH]  # and not again
    assert again["sources"] == first["sources"]
    assert again["models"]["classification"]["counts"] == {"pass": 1}
    assert "saved_model.pb" in again["models"]["classification"]["sizes"]
    changed = {**again, "exports": {**again["exports"], "classification": "other"}}
    path.write_text(json.dumps(changed))
    outline.measure(ARCH, lambda line: None)
    assert outline.judged == [ARCH, ARCH]


def test_what_can_not_be_exported_is_a_line(outline, monkeypatch, tmp_path):
    monkeypatch.setattr(outline._cli, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"{ARCH}: .*tools/export") as caught:
        outline.measure(ARCH, lambda line: None)
    assert "\n" not in str(caught.value)
