"""What `tools/docs --measure` keeps, and when it judges an export."""

import json
import shutil
import subprocess

import pytest

from documentation import measurements, page_data
from exporters import manifest

ARCH = "resnet_cifar_20"


@pytest.fixture
def judged_archs(monkeypatch, tmp_path):
    """Records go elsewhere; the archs that were judged.

    What it exports after the first time is a copy: that two exports have the same
    bytes is for other tests.
    """
    monkeypatch.setattr(
        page_data, "measured_file", lambda arch: tmp_path / "found.json"
    )
    archs = []

    def judged(arch, folders):
        archs.append(arch)
        trial = page_data.SuiteResult(measured=None, counts={"pass": 1}, versions={})
        return dict.fromkeys(manifest.KINDS, trial)

    monkeypatch.setattr(measurements, "_judged", judged)
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

    monkeypatch.setattr(measurements.subprocess, "run", run)
    return archs


def test_an_export_is_judged_once(judged_archs):
    path = measurements.measure(ARCH)
    first = json.loads(path.read_text())
    assert set(first["exports"]) == set(manifest.KINDS)
    assert judged_archs == [ARCH]
    path.write_text(json.dumps({**first, "sources": "others"}))
    measurements.measure(ARCH)
    again = json.loads(path.read_text())
    assert judged_archs == [ARCH]  # and not again
    assert again["sources"] == first["sources"]
    assert again["models"]["classification"]["counts"] == {"pass": 1}
    assert "saved_model.pb" in again["models"]["classification"]["sizes"]
    changed = {**again, "exports": {**again["exports"], "classification": "other"}}
    path.write_text(json.dumps(changed))
    measurements.measure(ARCH)
    assert judged_archs == [ARCH, ARCH]


def test_what_can_not_be_exported_is_a_line(judged_archs, monkeypatch, tmp_path):
    monkeypatch.setattr(page_data, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"{ARCH}: .*tools/export") as caught:
        measurements.measure(ARCH)
    assert "\n" not in str(caught.value)
