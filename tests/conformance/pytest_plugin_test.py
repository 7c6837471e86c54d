"""The pytest plugin, as another project uses it to check a model."""

import os
import re
import subprocess
import sys

import pytest

from tests.conformance import models, mutants


def run(folder, *arguments, **variables):
    command = [sys.executable, "-m", "pytest", "-rs"]
    command += ["--pyargs", "image_model_zoo.conformance"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def counts(printed):
    return {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", printed[-200:])}


@pytest.mark.ci
def test_a_test_for_each_clause(tmp_path):
    path = mutants.make(mutants.S01Missing, tmp_path)
    status, printed = run(
        tmp_path,
        f"--saved-model={path}",
        "--saved-model-level=quick",
        "--saved-model-kind=feature_vector",
    )
    assert status == 1, printed
    assert f"S01 {path}: expected a signature serving_default" in printed
    assert "applies to classification" in printed
    outcomes = counts(printed)
    assert (outcomes["failed"], outcomes["passed"]) == (1, 23), printed


@pytest.mark.slow
def test_nothing_is_judged_where_no_model_is_given(tmp_path):
    status, printed = run(tmp_path)
    assert status == 0, printed
    assert "--saved-model=PATH was not given" in printed
    assert "passed" not in counts(printed)


def test_a_wrong_path_is_told_in_a_line_without_tensorflow(tmp_path):
    variables = {"PYTHONPROFILEIMPORTTIME": "1"}
    status, printed = run(tmp_path, f"--saved-model={tmp_path}", **variables)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert printed.count("it has no saved_model.pb") == 1
    imported = set(re.findall(r"\| +([\w.]+)$", printed, re.MULTILINE))
    assert "conformance.suite" in imported
    assert "tensorflow" not in imported


@pytest.mark.slow
def test_the_fixture_is_there_for_tests_of_ones_own(tmp_path):
    path = models.FeatureVector().save(tmp_path)
    test = tmp_path / "own_test.py"
    test.write_text(
        "def test_own(saved_model_report):\n"
        "    assert saved_model_report.kind == 'feature_vector'\n"
    )
    arguments = [f"--saved-model={path}", "--saved-model-level=quick"]
    command = [sys.executable, "-m", "pytest", "own_test.py", *arguments]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
