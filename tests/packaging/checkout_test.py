"""In a checkout, `image_model_zoo.NAME` is the module `NAME` itself."""

import importlib.util
import sys

import image_model_zoo.common
import pytest
from image_model_zoo.common import messages as same_messages
from image_model_zoo.zoo import config as same_config

from common import messages
from image_model_zoo import __main__ as command
from zoo import config


def test_modules_are_loaded_once():
    assert same_messages is messages
    assert same_config is config
    assert image_model_zoo.common is sys.modules["common"]
    assert messages.__name__ == messages.__spec__.name == "common.messages"


def test_a_module_that_is_missing_is_named_as_it_was_imported():
    with pytest.raises(ModuleNotFoundError, match=r"'image_model_zoo\.nothing'"):
        importlib.import_module("image_model_zoo.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"'image_model_zoo\.zoo\.nothing'"):
        importlib.import_module("image_model_zoo.zoo.nothing")


def test_sources_are_where_they_are():
    spec = importlib.util.find_spec("image_model_zoo.zoo.config")
    assert spec.origin == config.__file__


def test_the_command_runs_tools(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["image-model-zoo"])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert "  list       Lists the archs" in lines
    monkeypatch.setattr(sys, "argv", ["image-model-zoo", "lits"])
    with pytest.raises(SystemExit):
        command.main()
    assert "Did you mean 'list'?" in capsys.readouterr().err
