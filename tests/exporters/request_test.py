"""Export requests read the files that define an export only once."""

import collections
import functools
import pathlib

import pytest

from exporters import building, describe, formats, request
from zoo import config, facts
from zoo.weights import registry, weights_file


@pytest.fixture
def calls(monkeypatch):
    """Returns counts of calls of functions that read files, by name."""
    counts = collections.Counter()
    for module, name in (
        (config, "gin_texts"),
        (facts, "load"),
        (registry, "find"),
        (weights_file, "sha256"),
    ):
        original = getattr(module, name)

        @functools.wraps(original)
        def counted(*args, _original=original, _name=name, **kwargs):
            counts[_name] += 1
            return _original(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    return counts


def test_a_definition_is_read_once(calls):
    one = request.Request(
        arch="resnet_cifar_20", weights="fashion_mnist", output=pathlib.Path()
    )
    one.identity()
    model = building.build(one)
    for kind in ("feature_vector", "classification"):
        described = describe.manifest_fields(one, model, formats.SAVED_MODEL, kind)
    assert described["weights"]["name"] == "fashion_mnist"
    assert calls == {"gin_texts": 1, "load": 1, "find": 1, "sha256": 1}


def test_requests_of_different_weights_have_definitions_of_their_own():
    one = request.Request(arch="resnet_cifar_20", output=pathlib.Path())
    other = request.Request(
        arch="resnet_cifar_20", output=pathlib.Path(), weights="fashion_mnist"
    )
    assert one.definition.weights is None
    assert other.definition.weights.name == "fashion_mnist"
    assert one.identity() != other.identity()
