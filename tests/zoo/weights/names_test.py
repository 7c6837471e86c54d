"""Whose names they are, and which tensor each row of a table takes."""

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
    assert "matches another variable too" in matching.mismatched[0]


PREFIXES = [
    *("module.", "_orig_mod.", "_orig_mod.module.", "model.", "net.", "timm_model."),
    *("b.", "stem.", "state.student.backbone."),
]


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
@pytest.mark.parametrize("layers", [["first"], ["first", "second"]])
def test_a_prefix_of_all_names_is_found(prefix, layers):
    """All names of the table begin with `b.0.`, which must stay."""
    found = [prefix + name for name in tensors(*layers)]
    assert names.recognise([TABLE], found) == (prefix, TABLE)


@pytest.mark.parametrize("prefix", ["", *PREFIXES])
def test_a_prefix_of_this_projects_names_is_found(prefix):
    found = [f"{prefix}stem/conv/kernel", f"{prefix}logits/bias"]
    assert names.recognise([TABLE], found) == (prefix, None)


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


def test_a_dense_layer_on_a_flattened_map_is_a_convolution():
    """PyTorch flattens channels first, Keras last; sizes 2 × 3, 4 channels."""
    torch_table = {
        "source": "a test",
        "framework": "torch",
        "archs": ["*"],
        "layers": [{"ours": "fc6", "theirs": "classifier.0"}],
        "ignored": [],
    }
    tensorflow_table = {**torch_table, "framework": "tensorflow"}
    kernel = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)  # h, w, C, N
    for table, name, flat in (
        (torch_table, ".weight", kernel.transpose(3, 2, 0, 1).reshape(5, 24)),
        (tensorflow_table, "/kernel", kernel.reshape(24, 5)),
    ):
        file = {f"classifier.0{name}": flat}
        matching = names.match(table, {"fc6/kernel": kernel.shape}, file)
        assert matching.complete, matching.summary()
        found = names.value(file, matching.origins["fc6/kernel"])
        np.testing.assert_array_equal(found, kernel)
        other = names.match(table, {"fc6/kernel": (3, 3, 4, 5)}, file)
        assert other.mismatched


CELLS = {
    "source": "a test",
    "framework": "tensorflow",
    "archs": ["*"],
    "blocks": {"stage_2_block_1": "reduction", "*": "cell_{index-1}"},
    "layers": [
        {"ours": "{block}_sep/depthwise", "theirs": "{name}/sep"},
        {"ours": "{block}_sep/pointwise", "theirs": "{name}/sep", "pointwise": True},
    ],
    "ignored": [],
}


def cell_shapes(*blocks):
    return {
        f"{block}_sep/{kind}/kernel": (1, 1, 4, 1 if kind == "depthwise" else 4)
        for block in blocks
        for kind in ("depthwise", "pointwise")
    }


# Keras 2, TF-Slim, and Keras 3, which numbers the weights.
@pytest.mark.parametrize(
    "leaves",
    [
        ("depthwise_kernel", "pointwise_kernel"),
        ("depthwise_weights", "pointwise_weights"),
        ("0", "1"),
    ],
)
def test_blocks_with_names_and_separable_convolutions(leaves):
    # The other order of the network: a later block may have the first layer.
    shapes = cell_shapes("stage_2_block_2", "stage_1_block_1", "stage_2_block_1")
    file = {
        f"{cell}/sep/{leaf}": np.zeros((1, 1, 4, outputs))
        for cell in ("cell_-1", "reduction", "cell_1")
        for leaf, outputs in zip(leaves, (1, 4), strict=True)
    }
    assert names.recognise([CELLS], file) == ("", CELLS)
    matching = names.match(CELLS, shapes, file)
    assert matching.complete, matching.summary()
    assert {path: origin.tensor for path, origin in matching.origins.items()} == {
        f"{block}_sep/{kind}/kernel": f"{cell}/sep/{leaf}"
        for block, cell in (
            ("stage_1_block_1", "cell_-1"),
            ("stage_2_block_1", "reduction"),
            ("stage_2_block_2", "cell_1"),
        )
        for kind, leaf in zip(("depthwise", "pointwise"), leaves, strict=True)
    }


def test_names_of_no_block_are_unknown():
    assert names.recognise([CELLS], ["block_1/sep/depthwise_kernel"]) is None
