"""A table's rows: what is missing is missing, whatever rows come after."""

import numpy as np

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
SHAPES = {
    "stage_1_block_1_expand/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_1_project/conv/kernel": (1, 1, 4, 4),
}


def tensors(*layers):
    return {f"b.0.{layer}.weight": np.zeros((4, 4, 1, 1)) for layer in layers}


def test_the_first_row_whose_tensor_is_there_holds():
    matching = names.match(TABLE, SHAPES, tensors("first", "second"))
    assert matching.complete
    assert {o.tensor for o in matching.origins.values()} == set(
        tensors("first", "second")
    )


def test_no_tensor_is_given_to_two_variables():
    matching = names.match(TABLE, SHAPES, tensors("second"))
    assert not matching.complete
    assert len(matching.mismatched) == 2
    assert "is another variable's too" in matching.mismatched[0]
