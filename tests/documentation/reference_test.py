"""The reference pages agree with the code."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import gin
import pytest

import training
import zoo
from conformance import clauses
from documentation import reference


@pytest.fixture(scope="module")
def pages():
    return dict(reference.files())


@pytest.fixture(scope="module")
def registered():
    """Returns gin's configurables by name."""
    for package in (zoo, training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "backend" not in module.name:
                importlib.import_module(module.name)
    return {
        name.rpartition(".")[2]: entry
        for name, entry in gin.config._REGISTRY.items()
        if entry.module.split(".")[0] in ("zoo", "training")
    }


def test_every_command_shows_its_help(pages):
    text = pages["reference/command_line.md"]
    command = [sys.executable, "tools/list", "--help"]
    help_text = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout
    assert f"## tools/list\n\n```text\n{help_text.strip()}\n```" in text
    assert text.count("\n## tools/") == len(reference.commands()) >= 15


def test_every_configurable_has_its_parameters(registered):
    described = {
        each.name.rpartition(".")[2]: each for each in reference.configurables()
    }
    assert described.keys() == registered.keys()
    for name, each in described.items():
        entry = registered[name]
        function = entry.wrapped
        signature = inspect.signature(function)
        expected = {p for p in signature.parameters if p not in (entry.denylist or ())}
        assert {parameter.name for parameter in each.parameters} == expected, name
        for parameter in each.parameters:
            assert parameter.text, f"{name}.{parameter.name}"
            default = signature.parameters[parameter.name].default
            is_bound = default in (inspect.Parameter.empty, gin.REQUIRED)
            assert bool(parameter.default) != is_bound, f"{name}.{parameter.name}"


def test_deviations_are_no_part_of_a_parameter():
    regnet = {each.name: each for each in reference.configurables()}["RegNetX"]
    assert "pycls, the stem's input has blue as channel 0" in regnet.deviations
    assert not any("Deviations" in each.text for each in regnet.parameters)


def test_every_clause_is_there(pages):
    for clause in clauses.CLAUSES:
        assert f"| {clause.id} | {clause.level} |" in pages["reference/clauses.md"]


def test_arguments_are_as_python_takes_them(pages):
    text = pages["reference/python.md"]
    assert "    trainable: bool = False,\n" in text
    assert "- `trainable`: whether to train the SavedModel;" in text
    assert "self" not in text.replace("itself", "")


def test_every_public_name_has_a_description():
    for name in reference._PUBLIC:
        for definition in reference._module(name):
            assert definition.sections, definition.name


def test_fields_of_objects_follow_their_object():
    schema = {
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": ["integer", "null"]}}},
            "c": {"enum": [1, "x"], "description": "One of two."},
        },
        "required": ["c"],
    }
    assert list(reference.fields(schema)) == [
        reference.Field("a", "object", False, ""),
        reference.Field("a.b", "integer or null", False, ""),
        reference.Field("c", '1 or "x"', True, "One of two."),
    ]
