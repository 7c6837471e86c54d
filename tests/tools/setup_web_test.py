"""The extra `web` of tools/setup: packages of npm in .venv/web."""

import importlib.machinery
import importlib.util
import json
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NPM = """#!/bin/sh
if [ "$1" = --version ]; then echo {version}; exit; fi
pwd > {log}
echo "$@" >> {log}
{answer}
"""


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Returns tools/setup for a checkout whose .venv has the base already."""
    loader = importlib.machinery.SourceFileLoader("setup", str(ROOT / "tools/setup"))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("setup", loader)
    )
    loader.exec_module(module)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").touch()
    paths = {"ROOT": tmp_path, "VENV": venv, "PYTHON": venv / "bin/python"}
    for name, path in {**paths, "STAMP": venv / "setup.json"}.items():
        monkeypatch.setattr(module, name, path)
    monkeypatch.setattr(module, "pip_install", lambda *_, lock: None)
    module.write_stamp(module.sources({"base"}), complete=True)
    return module


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Returns a function that puts an `npm` on the PATH, on which nothing else is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(*, version="10.8.2", answer="/bin/mkdir -p node_modules/onnxruntime-web"):
        program = folder / "npm"
        log = tmp_path / "npm.log"
        program.write_text(NPM.format(version=version, log=log, answer=answer))
        program.chmod(0o755)
        return log

    return put


def installed(setup) -> bool:
    return (setup.VENV / "web/node_modules/onnxruntime-web").is_dir()


def test_it_installs_the_lock_and_runs_no_scripts(setup, npm, capsys):
    log = npm()
    setup.main(["web"])
    folder, command = log.read_text().splitlines()
    assert folder == str(setup.VENV / "web")
    assert command.split()[:2] == ["ci", "--ignore-scripts"]
    for name in ("package.json", "package-lock.json"):
        source = ROOT / "requirements/web" / name
        assert (setup.VENV / "web" / name).read_bytes() == source.read_bytes()
    assert capsys.readouterr().err.endswith(".venv is ready: base, web\n")


def test_a_second_run_returns_at_once(setup, npm):
    log = npm()
    setup.main(["web"])
    log.unlink()
    setup.main(["web"])
    assert not log.exists()
    lock = setup.ROOT / "requirements/web/package-lock.json"
    lock.write_text(lock.read_text() + "\n")
    setup.main(["web"])
    assert log.exists()


def test_other_extras_do_not_need_npm(setup, npm):
    setup.main([])
    assert not (setup.VENV / "web").exists()


@pytest.mark.parametrize(
    ("version", "found"),
    [(None, ""), ("6.14.4", ", and this is 6.14.4"), ("", ", and this is broken")],
)
def test_without_a_recent_npm_nothing_is_changed(setup, npm, version, found):
    if version is not None:
        npm(version=version)
    stamp = setup.STAMP.read_text()
    with pytest.raises(setup.SetupError) as caught:
        setup.main(["web"])
    assert str(caught.value) == (
        f"The extra web needs npm 7 or later{found}. Install Node.js, which brings it "
        "(https://nodejs.org), and run tools/setup again."
    )
    assert setup.STAMP.read_text() == stamp


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("npm error code ENOTFOUND", "No npm registry answers. Check the network,"),
        ("npm error code EINTEGRITY", "A package that the registry served is not the"),
        ("npm error code ENOSPC", "The disk is full."),
        ("npm error code EUSAGE", "npm failed; what it said stands above."),
    ],
)
def test_what_npm_says_becomes_a_line(setup, npm, output, message):
    npm(answer=f"echo {output}; exit 1")
    with pytest.raises(setup.SetupError, match=f"^{message}"):
        setup.main(["web"])
    assert not setup.is_ready({"base", "web"})
    assert setup.is_ready({"base"})  # not made anew because of npm
    npm()
    setup.main(["web"])
    assert installed(setup)
    assert setup.is_ready({"base", "web"})


def test_a_new_venv_gets_it_too(setup, npm, monkeypatch):
    npm()
    setup.main(["web"])
    stamp = json.loads(setup.STAMP.read_text())
    stamp["checkout"] = "/where/it/was"
    setup.STAMP.write_text(json.dumps(stamp))
    monkeypatch.setattr(setup, "make_venv", lambda _: shutil.rmtree(setup.VENV / "web"))
    setup.main([])
    assert installed(setup)


def test_the_lock_names_no_registry():
    for name in ("package.json", "package-lock.json"):
        text = (ROOT / "requirements/web" / name).read_text()
        assert "://" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in p for path, p in packages.items() if path)
