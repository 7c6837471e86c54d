"""The command line of the suite: output, files and exit status."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from conformance import __main__ as command
from tests.conformance import models, mutants


@pytest.mark.usefixtures("in_this_process")
def test_text_and_status_0_for_a_model_that_passes(tmp_path, capsys):
    path = models.FeatureVector().save(tmp_path)
    assert command.main([str(path), "--clauses=R,F", "--level=quick"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    reason = "by its signature image_feature_vector"
    assert first == f"{path} (feature_vector, {reason})"
    assert last.startswith("17 pass, 0 fail, 0 warn, 1 not_applicable")


@pytest.mark.usefixtures("in_this_process")
def test_json_and_status_1_for_one_that_fails(tmp_path, capsys):
    path = mutants.make(mutants.S01Missing, tmp_path)
    arguments = [str(path), "--format=json", "--clauses=S", "--kind=feature_vector"]
    assert command.main(arguments) == 1
    report = json.loads(capsys.readouterr().out)
    statuses = {clause["id"]: clause["status"] for clause in report["clauses"]}
    assert statuses == {
        **{"S01": "fail", "S02": "pass"},
        **{"S03": "not_applicable", "S04": "not_applicable"},
    }


@pytest.mark.usefixtures("in_this_process")
def test_a_model_is_checked_with_the_other_of_its_pair(tmp_path, capsys):
    features = models.FeatureVector().save(tmp_path)
    classifier = models.Classification().save(tmp_path)
    arguments = [str(classifier), f"--pair={features}", "--clauses=P", "--level=full"]
    assert command.main(arguments) == 0
    assert "2 pass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "conformance: path must be a SavedModel "),
        (["--clauses=X"], "conformance: Unknown clause 'X'. Valid are R01, "),
        (["--clauses=C1"], "conformance: Unknown clause 'C1'. Did you mean 'C01'? "),
        (
            ["--time_limit=-1"],
            "conformance: --time_limit must be more than 0 and less ",
        ),
        (
            ["--memory_limit=inf"],
            "conformance: --memory_limit must be more than 0 and less than",
        ),
        (["--output=no/where.json"], "conformance: no is not a folder."),
        (
            ["--output=."],
            "conformance: . is a folder: give the path of a file to write.",
        ),
        (["--clauses="], "conformance: Unknown clause ''."),
    ],
)
def test_one_line_and_status_2_for_wrong_usage(arguments, message, tmp_path, capsys):
    assert command.main([str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_guess_of_the_kind_is_called_one(tmp_path, capsys):
    class Model(models.FeatureVector):
        def signature_names(self):
            return ["serving_default"]

    path = Model().save(tmp_path)
    assert command.main([str(path), "--clauses=F01"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith("no signature or asset tells the kind; --kind overrides it)")


@pytest.mark.slow
@pytest.mark.parametrize("stderr", ["/dev/full", None])
def test_a_report_is_written_where_progress_can_not_be_printed(stderr, tmp_path):
    """The folder has a tensorflow.py of the model's author, which is not imported."""
    path, output = mutants.make(mutants.S01Missing, tmp_path), tmp_path / "report.txt"
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('not yours')")
    root = pathlib.Path(command.__file__).parent.parent
    shell_command = f'exec "$@" 2>{stderr or "&-"}'
    done = subprocess.run(
        [
            *(
                "bash",
                "-c",
                shell_command,
                "bash",
                sys.executable,
                root / "tools" / "check",
            ),
            *(path, "--clauses=S01", "--kind=feature_vector", f"--output={output}"),
        ],
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "0 pass, 1 fail" in output.read_text()


def test_an_unknown_option_is_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["path", "--kind=image"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "invalid choice: 'image'" in error
    assert error.count("\n") == 1


def test_a_report_is_written_whole_to_a_file(tmp_path, capsys):
    path, output = models.FeatureVector().save(tmp_path), tmp_path / "report.json"
    arguments = [str(path), "--clauses=R02", f"--output={output}", "--format=json"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.split()[:2] == ["R01", "pass"]
    assert json.loads(output.read_text())["clauses"][0]["id"] == "R02"
    assert [p.name for p in tmp_path.glob(".*")] == []


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_link_or_pipe_is_written_to_and_not_replaced(tmp_path):
    path, link = models.FeatureVector().save(tmp_path), tmp_path / "link"
    target = tmp_path / "target"
    target.write_text("")
    link.symlink_to(target)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for output in (link, pipe):
        assert command.main([str(path), "--clauses=R02", f"--output={output}"]) == 0
    assert link.is_symlink()
    assert "R02  pass" in target.read_text()
    assert b"R02  pass" in os.read(reader, 10_000)
    os.close(reader)
