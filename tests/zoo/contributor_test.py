"""Tests that the guide's three files are enough to add an architecture."""

import json
import pathlib
import re
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PACKAGES = [path.parent.name for path in ROOT.glob("*/__init__.py")]
COPIED = (*PACKAGES, "tools", "tests", "pyproject.toml")
GUIDE = ROOT / "docs" / "guides" / "add_an_architecture.md"
FILE = re.compile(r"^`(zoo/toy/\S+)`:.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Returns a copy of the project that contains ToyNet's three files."""
    copy = tmp_path_factory.mktemp("contributor")
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    texts = dict(FILE.findall(GUIDE.read_text()))
    assert len(texts) == 3
    for name, text in texts.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text)
    (copy / "run_tests.py").write_text(TESTS)
    return copy


@pytest.fixture
def run(checkout, warm_server, monkeypatch):
    """Returns a function that runs a program in the checkout, with its modules."""
    monkeypatch.chdir(checkout)

    def run(program, *arguments):
        return warm_server.run([str(checkout / program), *arguments], timeout=300)

    return run


TESTS = """
import os, sys
sys.path[0] = os.getcwd()
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
ITS_TESTS = ("run_tests.py", "-n0", "-k", "toynet", "-p", "no:cacheprovider")


def test_it_is_listed(run):
    done = run("tools/list", "toynet", "--format=json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    assert entry["family"] == "toy"
    assert entry["num_classes"] == 10


@pytest.mark.slow
def test_it_is_exported_and_conforms(checkout, run):
    done = run("tools/export", "--arch=toynet")
    assert done.returncode == 0, done.stderr
    folder, *_ = done.stdout.splitlines()
    manifest = json.loads(
        (checkout / folder / "assets.extra/manifest.json").read_text()
    )
    assert manifest["title"] == "ToyNet, 32 px"


@pytest.mark.ci
def test_the_tests_of_all_archs_find_it(run):
    done = run(*ITS_TESTS, "tests/zoo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 3, done.stdout


@pytest.mark.slow
def test_it_has_a_page(checkout, run):
    shutil.copytree(ROOT / "docs", checkout / "docs")
    shutil.copy(ROOT / "README.md", checkout / "README.md")
    done = run("tools/docs")
    assert done.returncode == 0, done.stderr
    pages = checkout / "docs" / "architectures"
    text = (pages / "toynet.md").read_text()
    assert '| <a id="toynet" href="#toynet">`toynet`</a> | 32 |' in text
    assert (pages / "toynet.svg").is_file()
    assert "[ToyNet](toynet.md)" in (pages / "index.md").read_text()
    start = (checkout / "docs" / "index.md").read_text()
    assert "| [toynet](architectures/toynet.md#toynet) | toy |" in start
    readme = (checkout / "README.md").read_text()
    assert "| [ToyNet](docs/architectures/toynet.md) ([paper](" in readme
    assert (checkout / "docs" / "records" / "toynet.json").is_file()


@pytest.mark.ci
def test_the_facts_can_fail(checkout, run):
    facts = checkout / "zoo/toy/configs/toynet.facts.json"
    text = facts.read_text()
    facts.write_text(text.replace("6530", "6531"))
    try:
        done = run(*ITS_TESTS, "tests/zoo/archs_test.py")
    finally:
        facts.write_text(text)
    assert done.returncode == 1
    assert re.search(r"\b1 failed", done.stdout), done.stdout


@pytest.mark.ci
def test_a_new_arch_is_begun_and_compared_with_its_facts(checkout, run):
    """The files of `tools/new` build a model; only the facts are left to fill in."""
    arguments = ("lenet_5", "--family=lenet", "--class=LeNet")
    done = run("tools/new", *arguments)
    assert done.returncode == 0, done.stderr
    names = ["__init__.py", "lenet.py", "configs/lenet_5.gin"]
    paths = [checkout / "zoo/lenet" / name for name in names]
    facts_file = checkout / "zoo/lenet/configs/lenet_5.facts.json"
    assert done.stdout.split() == [str(path) for path in (*paths, facts_file)]
    try:
        done = run("tools/list", "--facts", "lenet_5", "--format=json")
        assert done.returncode == 1, done.stderr
        rows = {row["fact"]: row for row in json.loads(done.stdout)["lenet_5"]}
        differ = {name for name, row in rows.items() if not row["agrees"]}
        counts = {"params", "trainable_params", "num_features", "multiply_adds"}
        assert differ == counts
        facts = json.loads(facts_file.read_text())
        for name in counts:
            facts[name]["value"] = rows[name]["built"]
        facts_file.write_text(json.dumps(facts))
        done = run("tools/list", "--facts", "lenet_5")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "differs" not in done.stdout

        done = run("tools/new", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "The arch 'lenet_5' exists" in done.stderr
        done = run("tools/new", "lenet_4", *arguments[1:])  # a variant of the class
        assert [pathlib.Path(line).name for line in done.stdout.split()] == [
            "lenet_4.gin",
            "lenet_4.facts.json",
        ]
        assert "include 'lenet_5.gin'" in paths[2].with_stem("lenet_4").read_text()
        done = run("tools/list", "--facts", "lenet_4", "--format=json")
        assert done.returncode == 1, done.stderr  # it is built, and its facts are zeros
    finally:
        shutil.rmtree(checkout / "zoo" / "lenet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet_9"], "--family is missing"),
        (["lenet_9", "--family=layers"], "is not a family of architectures"),
        (["VGG-16", "--family=vgg"], "'VGG-16' is not a valid name, such as 'vgg_16'"),
        (["lenet_9", "--family=../vgg"], "'../vgg' is not a valid name"),
        (["lenet_9", "--family=class"], "'class' is not a valid name"),
        (["lenet_9", "--family=vgg", "--class=None"], "'None' is not a valid name"),
    ],
)
def test_a_name_that_is_not_valid_writes_nothing(run, checkout, arguments, message):
    before = sorted(checkout.glob("zoo/**/*.gin"))
    done = run("tools/new", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert sorted(checkout.glob("zoo/**/*.gin")) == before
