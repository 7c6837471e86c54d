"""Records of `tools/docs --measure`, and when it runs the conformance suite."""

import json
import shutil
import subprocess

import pytest

from documentation import measurements, page_data
from exporters import manifest

ARCH = "resnet_cifar_20"


@pytest.fixture
def checked_archs(monkeypatch, tmp_path):
    """Stubs the suite and returns the list of archs that it ran on.

    Records are written to a temporary folder. Later exports are copies of the first;
    other tests check that two exports have the same bytes.
    """
    monkeypatch.setattr(
        page_data, "measured_file", lambda arch: tmp_path / "measured.json"
    )
    archs = []

    def run_suite(arch, folders):
        archs.append(arch)
        result = page_data.SuiteResult(measured=None, counts={"pass": 1}, versions={})
        return dict.fromkeys(manifest.KINDS, result)

    monkeypatch.setattr(measurements, "_run_suite", run_suite)
    copy, run_process = tmp_path / "copy", subprocess.run

    def run(command, **kwargs):
        output = command[-1].removeprefix("--output=")
        if copy.exists():
            shutil.copytree(copy, output, dirs_exist_ok=True)
            return subprocess.CompletedProcess(command, 0)
        done = run_process(command, **kwargs)
        if not done.returncode:
            shutil.copytree(output, copy)
        return done

    monkeypatch.setattr(measurements.subprocess, "run", run)
    return archs


@pytest.mark.slow
def test_the_suite_runs_once_for_an_export(checked_archs):
    path = measurements.measure(ARCH)
    first = json.loads(path.read_text())
    assert set(first["exports"]) == set(manifest.KINDS)
    assert checked_archs == [ARCH]
    path.write_text(json.dumps({**first, "sources": "others"}))
    measurements.measure(ARCH)
    second = json.loads(path.read_text())
    assert checked_archs == [ARCH]  # the suite did not run again
    assert second["sources"] == first["sources"]
    assert second["models"]["classification"]["counts"] == {"pass": 1}
    assert "saved_model.pb" in second["models"]["classification"]["sizes"]
    changed = {**second, "exports": {**second["exports"], "classification": "other"}}
    path.write_text(json.dumps(changed))
    measurements.measure(ARCH)
    assert checked_archs == [ARCH, ARCH]


def test_a_failed_export_is_a_one_line_error(checked_archs, monkeypatch, tmp_path):
    monkeypatch.setattr(page_data, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"{ARCH}: .*tools/export") as caught:
        measurements.measure(ARCH)
    assert "\n" not in str(caught.value)
