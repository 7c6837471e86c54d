"""Tests the recognition of a file's tensor names: their table and their prefix."""

import numpy as np
import pytest

from zoo.weights import names

TABLE = {
    "source": "a test",
    "framework": "torch",
    "archs": ["*"],
    "layers": [
        {"ours": "{block}_expand/conv", "theirs": "b.{index}.first"},
        {"ours": "{block}_expand/conv", "theirs": "b.{index}.second"},
        {"ours": "{block}_project/conv", "theirs": "b.{index}.second"},
    ],
    "ignored": [],
}


def tensors(*layers):
    return {f"b.0.{layer}.weight": np.zeros((4, 4, 1, 1)) for layer in layers}


PREFIXES = [
    *("module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.", "timm_model."),
    *("b.", "stem.", "state.student.backbone."),
]


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("layers", [["first"], ["first", "second"]])
def test_a_prefix_of_all_names_is_found(prefix, layers):
    """All names in the table begin with `b.0.`, which is not a prefix to remove."""
    tensor_names = [prefix + name for name in tensors(*layers)]
    assert names.recognise([TABLE], tensor_names) == (prefix, TABLE)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_a_prefix_of_this_projects_names_is_found(prefix):
    tensor_names = [f"{prefix}stem/conv/kernel", f"{prefix}logits/bias"]
    assert names.recognise([TABLE], tensor_names) == (prefix, None)


@pytest.mark.parametrize(
    "found",
    [
        [],
        ["model.b.0.first.weight", "loss.weight", "loss.bias"],
        ["model.c.0.first.weight", "model.c.0.second.weight"],
        ["modelb.0.first.weight"],
    ],
)
def test_unknown_names_stay_unknown(found):
    assert names.recognise([TABLE], found) is None


def test_names_that_are_known_keep_what_they_share():
    short = {**TABLE, "layers": [{"ours": "{block}_expand/conv", "theirs": "first"}]}
    assert names.recognise([short, TABLE], tensors("first")) == ("", TABLE)
    assert names.recognise([short], tensors("first")) == ("b.0.", short)


def test_a_name_of_nothing_but_dots_has_few_prefixes():
    assert names.prefixes(["." * 1000] * 2) == ["", ".", "..", "...", "....", "....."]
