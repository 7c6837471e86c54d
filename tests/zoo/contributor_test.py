"""The contributor's flow: WORKSPACE.md's three files, and no edit of any other."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROOMS = ("zoo", "exporters", "conformance", "tools", "tests", "pyproject.toml")
FILE = re.compile(r"^`(zoo/toy/\S+)`:.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with ToyNet's three files in it."""
    copy = tmp_path_factory.mktemp("contributor")
    for room in ROOMS:
        if (ROOT / room).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / room, copy / room, ignore=ignored)
        else:
            shutil.copy(ROOT / room, copy / room)
    texts = dict(FILE.findall((ROOT / "WORKSPACE.md").read_text()))
    assert len(texts) == 3
    for name, text in texts.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    return copy


def run(checkout, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_is_listed(checkout):
    (entry,) = json.loads(run(checkout, "tools/list", "toynet", "--format=json"))
    assert entry["family"] == "toy"
    assert entry["num_classes"] == 10


def test_it_is_exported_and_conforms(checkout):
    folder, *_ = run(checkout, "tools/export", "--arch=toynet").splitlines()
    manifest = json.loads(
        (checkout / folder / "assets.extra/manifest.json").read_text()
    )
    assert manifest["title"] == "ToyNet, 32 px"


def test_the_tests_of_all_archs_find_it(checkout):
    printed = run(
        checkout,
        "-m",
        "pytest",
        "-n0",
        "-k",
        "toynet",
        "tests/zoo",
        "-p",
        "no:cacheprovider",
    )
    passed = int(re.search(r"(\d+) passed", printed)[1])
    assert passed >= 3, printed


def test_the_facts_can_fail(checkout):
    facts = checkout / "zoo/toy/configs/toynet.facts.json"
    text = facts.read_text()
    facts.write_text(text.replace("6530", "6531"))
    command = [sys.executable, "-m", "pytest", "-n0", "-k", "toynet", "tests/zoo"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, timeout=300)
    facts.write_text(text)
    assert done.returncode == 1
