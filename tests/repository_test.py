"""Files for GitHub and for citations follow their schemas; decisions are all listed."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = {
    ".github/workflows/*.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    ".github/ISSUE_TEMPLATE/[!c]*.yml": "github-issue-forms",
    "CITATION.cff": "citation-file-format",
}


def check(schema, *files):
    return subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", f"vendor.{schema}", *map(str, files)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("pattern", FILES)
def test_it_is_valid(pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    done = check(FILES[pattern], *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workflow_without_jobs_is_not(tmp_path):
    workflow = tmp_path / "ci.yml"
    workflow.write_text("name: CI\non: push\n")
    assert check("github-workflows", workflow).returncode == 1


def test_the_index_has_a_row_for_each_decision():
    folder = ROOT / "docs" / "decisions"
    text = (folder / "index.md").read_text()
    rows = re.findall(r"^\| (\d+) \| \[(.+)\]\((\S+)\.md\) \| (\S+) \|$", text, re.M)
    names = sorted(file.stem for file in folder.glob("[0-9]*.md"))
    assert [name for _, _, name, _ in rows] == names
    assert re.findall(r"^\d{4}-\S+$", text, re.M) == names
    for number, title, name, date in rows:
        first, *_ = lines = (folder / f"{name}.md").read_text().splitlines()
        assert first == f"# {number}. {title}"
        assert f"Date: {date}" in lines
