"""In a checkout, `image_model_zoo.NAME` is the module `NAME` itself."""

import importlib.util
import pathlib
import subprocess
import sys

import image_model_zoo.foundation
import pytest
from image_model_zoo.foundation import messages as same_messages
from image_model_zoo.zoo import config as same_config

from foundation import messages
from zoo import config

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_modules_are_loaded_once():
    assert same_messages is messages
    assert same_config is config
    assert image_model_zoo.foundation is sys.modules["foundation"]
    for name in ("zoo.taxonomy", "conformance.checks.pair"):
        by_prefix = importlib.import_module(f"image_model_zoo.{name}")
        assert by_prefix is importlib.import_module(name)
    assert messages.__name__ == messages.__spec__.name == "foundation.messages"


def test_a_module_that_is_missing_is_named_as_it_was_imported():
    with pytest.raises(ModuleNotFoundError, match=r"'image_model_zoo\.nothing'"):
        importlib.import_module("image_model_zoo.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"'image_model_zoo\.zoo\.nothing'"):
        importlib.import_module("image_model_zoo.zoo.nothing")


def test_sources_are_where_they_are():
    spec = importlib.util.find_spec("image_model_zoo.zoo.config")
    assert spec.origin == config.__file__


TYPICAL = ("common", "utils", "core", "helpers", "lib", "config", "data", "model")


@pytest.mark.ci
def test_files_that_many_programs_have_hide_nothing_of_ours(tmp_path):
    for name in TYPICAL:
        (tmp_path / f"{name}.py").write_text("")
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path.insert(1, {str(ROOT)!r})\n"
        "import zoo, zoo.model, exporters.pair, conformance.suite, publishing.pairs\n"
        "import reuse.predict, retraining.heads, training.run\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "image_model_zoo", *arguments],
        **{"capture_output": True, "text": True, "check": False, "cwd": ROOT} | options,
    )


def test_the_command_lists_the_tools():
    for arguments in ([], ["--help"]):
        done = run(*arguments)
        assert done.returncode == 0
        assert "  list       Lists the archs" in done.stdout.splitlines()


def test_a_misspelt_command_is_a_line():
    done = run("lits")
    assert done.returncode == 2
    assert done.stderr == (
        "image-model-zoo: Unknown command 'lits'. Did you mean 'list'? See --help.\n"
    )


def test_a_full_device_is_a_line():
    with open("/dev/full", "w") as full:
        done = run("--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "image-model-zoo: No space left on device\n"
