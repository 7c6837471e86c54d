"""Tests which tensor each row of a name table takes."""

import numpy as np
import pytest

from tests.zoo.weights.names_test import TABLE, tensors
from zoo.weights import names, tensor_matching

SHAPES = {
    "stage_1_block_1_expand/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_1_project/conv/kernel": (1, 1, 4, 4),
}


def test_the_first_row_whose_tensor_is_there_holds():
    matching = tensor_matching.match(TABLE, SHAPES, tensors("first", "second"))
    assert matching.complete
    assert {o.tensor for o in matching.origins.values()} == set(
        tensors("first", "second")
    )


def test_no_tensor_is_given_to_two_variables():
    matching = tensor_matching.match(TABLE, SHAPES, tensors("second"))
    assert not matching.complete
    assert len(matching.mismatched) == 2
    assert "matches another variable too" in matching.mismatched[0]


def test_a_dense_layer_on_a_flattened_map_is_a_convolution():
    """PyTorch flattens channels first, Keras last; the map is 2 × 3 with 4 channels."""
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
        matching = tensor_matching.match(table, {"fc6/kernel": kernel.shape}, file)
        assert matching.complete, matching.summary()
        value = tensor_matching.value(file, matching.origins["fc6/kernel"])
        np.testing.assert_array_equal(value, kernel)
        other = tensor_matching.match(table, {"fc6/kernel": (3, 3, 4, 5)}, file)
        assert other.mismatched


KERAS_TABLE = {
    "source": "a test",
    "framework": "tensorflow",
    "archs": ["*"],
    "numbered": {"conv": "conv2d", "norm": "batch_normalization"},
    "layers": [
        {"ours": "{block}_separable_depthwise", "theirs": "separable_{letter}"},
        {
            "ours": "{block}_separable_pointwise",
            "theirs": "separable_{letter}",
            "pointwise": True,
        },
    ],
    "ignored": [],
}
NUMBERED_SHAPES = {
    # In the order of the network's layers, where the branches of a block are mixed.
    "stem_2/conv/kernel": (1, 1, 3, 4),
    "stem_10/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_1_branch_2_conv_10/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_1_branch_2_conv_2/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_1_branch_1/conv/kernel": (1, 1, 4, 4),
    "stage_1_block_2_branch_1/conv/kernel": (1, 1, 4, 4),
}


@pytest.mark.parametrize("first", [0, 1, 98])
@pytest.mark.parametrize("leaf", ["kernel", "0"])
def test_layers_that_keras_numbers_are_taken_in_the_order_of_their_creation(
    first, leaf
):
    """The first number depends on the layers that the process created before."""
    file = {}
    for number in range(first, first + 6):
        layer = f"conv2d_{number}" if number else "conv2d"
        inputs = 3 if number == first else 4
        file[f"{layer}/{leaf}"] = np.zeros((1, 1, inputs, 4))
    file = dict(sorted(file.items()))  # not the order of creation
    assert names.recognise([KERAS_TABLE], file) == ("", KERAS_TABLE)
    matching = tensor_matching.match(KERAS_TABLE, NUMBERED_SHAPES, file)
    assert matching.complete, matching.summary()
    numbers = {
        path.partition("/")[0]: int(origin.tensor.split("/")[0][7:] or 0) - first
        for path, origin in matching.origins.items()
    }
    assert sorted(numbers, key=numbers.__getitem__) == [
        "stem_2",
        "stem_10",
        "stage_1_block_1_branch_1",
        "stage_1_block_1_branch_2_conv_2",
        "stage_1_block_1_branch_2_conv_10",
        "stage_1_block_2_branch_1",
    ]
    larger_file = file | {f"conv2d_200/{leaf}": np.zeros(1)}
    assert tensor_matching.match(KERAS_TABLE, NUMBERED_SHAPES, larger_file).unused
    del file[min(file)]
    assert tensor_matching.match(KERAS_TABLE, NUMBERED_SHAPES, file).missing


@pytest.mark.parametrize("scale", [False, True])
def test_without_a_scale_the_numbers_of_a_norms_weights_begin_with_the_offset(scale):
    leaves = [*(["gamma"] if scale else []), "beta", "moving_mean", "moving_variance"]
    shapes = {f"stem/norm/{leaf}": (4,) for leaf in leaves}
    file = {
        f"batch_normalization_7/{index}": np.full(4, index)
        for index, _ in enumerate(leaves)
    }
    matching = tensor_matching.match(KERAS_TABLE, shapes, file)
    assert matching.complete, matching.summary()
    tensors = [matching.origins[f"stem/norm/{leaf}"].tensor for leaf in leaves]
    assert tensors == list(file)
    larger_file = {f"batch_normalization_7/{index}": np.zeros(4) for index in range(4)}
    assert bool(tensor_matching.match(KERAS_TABLE, shapes, larger_file).unused) == (
        not scale
    )


@pytest.mark.parametrize("ends", [("depthwise_kernel", "pointwise_kernel"), "01"])
def test_a_separable_convolution_has_two_kernels(ends):
    shapes = {
        "stage_1_block_2_separable_depthwise/kernel": (3, 3, 4, 1),
        "stage_1_block_2_separable_pointwise/kernel": (1, 1, 4, 1),
    }
    file = {
        f"separable_b/{ends[0]}": np.zeros((3, 3, 4, 1)),
        f"separable_b/{ends[1]}": np.zeros((1, 1, 4, 1)),
    }
    matching = tensor_matching.match(KERAS_TABLE, shapes, file)
    assert matching.complete, matching.summary()


def test_rows_of_a_stage_and_names_counted_from_another_number():
    table = {
        **TABLE,
        "layers": [
            {
                "ours": "{block}_project/conv",
                "theirs": "m{stage+4}{letter+1}.{block-2}",
                "if": ["stage_1"],
            },
            {"ours": "{block}_project/conv", "theirs": "m{stage+4}{letter}.{index+6}"},
        ],
    }
    shapes = {
        f"stage_{stage}_block_2_project/conv/kernel": (1, 1, 4, 4) for stage in (1, 2)
    }
    file = {
        f"{layer}.weight": np.zeros((4, 4, 1, 1))
        for layer in ("m5c.0", "m5b.6", "m6b.7")
    }
    matching = tensor_matching.match(table, shapes, file)
    tensors = [origin.tensor for origin in matching.origins.values()]
    assert tensors == ["m5c.0.weight", "m6b.7.weight"]
    broken = {**table, "layers": [{**table["layers"][1], "theirs": "{letters}"}]}
    with pytest.raises(KeyError, match="letters"):
        tensor_matching.match(broken, shapes, file)


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


# Leaf names of Keras 2, TF-Slim, and Keras 3, which numbers the weights.
@pytest.mark.parametrize(
    "leaves",
    [
        ("depthwise_kernel", "pointwise_kernel"),
        ("depthwise_weights", "pointwise_weights"),
        ("0", "1"),
    ],
)
def test_blocks_with_names_and_separable_convolutions(leaves):
    # Not in network order: a later block may have the first layer.
    shapes = cell_shapes("stage_2_block_2", "stage_1_block_1", "stage_2_block_1")
    file = {
        f"{cell}/sep/{leaf}": np.zeros((1, 1, 4, outputs))
        for cell in ("cell_-1", "reduction", "cell_1")
        for leaf, outputs in zip(leaves, (1, 4), strict=True)
    }
    assert names.recognise([CELLS], file) == ("", CELLS)
    matching = tensor_matching.match(CELLS, shapes, file)
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


def table_of(*layers, framework="torch", **more):
    return {
        "source": "a test",
        "framework": framework,
        "archs": ["*"],
        "layers": list(layers),
        "ignored": [],
        **more,
    }


def values(table, shapes, file):
    """Matches all variables and returns their values."""
    matching = tensor_matching.match(table, shapes, file)
    assert matching.complete, matching.summary()
    assert sorted([*matching.origins, *matching.zeros]) == sorted(shapes)
    return {
        path: tensor_matching.value(file, origin)
        for path, origin in matching.origins.items()
    }


def test_one_tensor_has_the_rows_of_two_variables():
    """PyTorch's positions have the class token's first, and an axis for the batch."""
    positions = np.arange(20.0).reshape(1, 5, 4)
    table = table_of(
        {"ours": "token/position", "theirs": "pos_embed", "rows": [0, 1]},
        {"ours": "token/embedding", "theirs": "cls"},
        {"ours": "positions", "theirs": "pos_embed", "rows": [1, None]},
    )
    shapes = {
        "token/embedding": (1, 4),
        "token/position": (1, 4),
        "positions/embedding": (4, 4),
    }
    file = {"pos_embed": positions, "cls": np.ones((1, 1, 4))}
    result = values(table, shapes, file)
    np.testing.assert_array_equal(result["token/position"], positions[0, :1])
    np.testing.assert_array_equal(result["positions/embedding"], positions[0, 1:])
    shorter = file | {"pos_embed": positions[:, :4]}
    matching = tensor_matching.match(table, shapes, shorter)
    assert matching.mismatched == [
        "positions/embedding: expected [4, 4], file has [3, 4]"
    ]


def test_rows_may_be_shares_of_all():
    """PyTorch has the kernels of queries, keys and values in one tensor."""
    kernel, bias = np.arange(24.0).reshape(6, 4), np.arange(6.0)
    table = table_of(
        {"ours": "query", "theirs": "attn.in_proj", "rows": [0, "1/3"]},
        {"ours": "key_value", "theirs": "attn.in_proj", "rows": ["1/3", None]},
    )
    shapes = {
        "query/kernel": (4, 2),
        "query/bias": (2,),
        "key_value/kernel": (4, 4),
        "key_value/bias": (4,),
    }
    file = {"attn.in_proj_weight": kernel, "attn.in_proj_bias": bias}
    result = values(table, shapes, file)
    np.testing.assert_array_equal(result["query/kernel"], kernel[:2].T)
    np.testing.assert_array_equal(result["key_value/kernel"], kernel[2:].T)
    np.testing.assert_array_equal(result["query/bias"], bias[:2])
    np.testing.assert_array_equal(result["key_value/bias"], bias[2:])


def test_position_biases_with_the_heads_first():
    """Their offsets lead from the query to the key, ours from the key to the query."""
    row = {"ours": "positions", "theirs": "table", "heads_first": True}
    table = table_of(row)
    biases = np.arange(18.0).reshape(2, 3, 3)
    result = values(table, {"positions/embedding": (9, 2)}, {"table": biases})
    for head, down, right in np.ndindex(biases.shape):
        opposite = 3 * (2 - down) + 2 - right
        assert (
            result["positions/embedding"][opposite, head] == (biases[head, down, right])
        )


@pytest.mark.parametrize("shape", [(), (9, 2), (3, 3, 2), (2, 3, 2)])
def test_other_shapes_of_position_biases_are_refused(shape):
    row = {"ours": "positions", "theirs": "table", "heads_first": True}
    matching = tensor_matching.match(
        table_of(row), {"positions/embedding": (9, 2)}, {"table": np.zeros(shape)}
    )
    (problem,) = matching.mismatched
    assert problem.startswith("positions/embedding: expected [9, 2], file has ")


def test_one_variable_joins_three_tensors():
    random = np.random.default_rng(0)
    table = table_of(
        {"ours": "{block}_qkv", "theirs": "h.{index}.q", "joined": ["h.{index}.k"]}
    )
    shapes = {"block_2_qkv/kernel": (3, 4), "block_2_qkv/bias": (4,)}
    file = {
        f"h.0.{part}.{leaf}": random.random(shape)
        for part in "qk"
        for leaf, shape in (("weight", (2, 3)), ("bias", 2))
    }
    result = values(table, shapes, file)
    expected = np.concatenate([file["h.0.q.weight"], file["h.0.k.weight"]]).T
    np.testing.assert_array_equal(result["block_2_qkv/kernel"], expected)
    expected = np.concatenate([file["h.0.q.bias"], file["h.0.k.bias"]])
    np.testing.assert_array_equal(result["block_2_qkv/bias"], expected)
    del file["h.0.k.bias"]
    matching = tensor_matching.match(table, shapes, file)
    assert matching.missing == ["block_2_qkv/bias"]
    assert matching.unused == ["h.0.q.bias"]
    file["h.0.k.weight"] = random.random((2, 5))
    assert tensor_matching.match(table, shapes, file).mismatched


def test_flax_has_an_axis_for_heads_and_may_stack_all_blocks():
    random = np.random.default_rng(0)
    rows = [
        {"ours": "{block}_project", "theirs": "enc/out", "stacked": True},
        {"ours": "{block}_query", "theirs": "enc/query", "stacked": True},
    ]
    table = table_of(*rows, framework="tensorflow")
    shapes = {
        f"block_{n}_{layer}/{leaf}": shape
        for n in (1, 2)
        for layer in ("project", "query")
        for leaf, shape in (("kernel", (6, 6)), ("bias", (6,)))
    }
    file = {
        "enc/query/kernel": random.random((2, 6, 2, 3)),
        "enc/query/bias": random.random((2, 2, 3)),
        "enc/out/kernel": random.random((2, 2, 3, 6)),
        "enc/out/bias": random.random((2, 6)),
    }
    result = values(table, shapes, file)
    for block in (0, 1):
        for ours, theirs in (("query", "query"), ("project", "out")):
            for leaf in ("kernel", "bias"):
                path = f"block_{block + 1}_{ours}/{leaf}"
                expected = file[f"enc/{theirs}/{leaf}"][block].reshape(shapes[path])
                np.testing.assert_array_equal(result[path], expected)


@pytest.mark.parametrize("blocks", [1, 3])
def test_stacked_tensors_must_have_all_blocks_and_no_others(blocks):
    """A deeper network's first blocks would otherwise be taken for a whole one."""
    row = {"ours": "{block}_norm", "theirs": "enc/norm", "stacked": True}
    table = table_of(row, framework="tensorflow")
    shapes = {f"block_{n}_norm/gamma": (4,) for n in (1, 2)}
    matching = tensor_matching.match(
        table, shapes, {"enc/norm/scale": np.ones((blocks, 4))}
    )
    assert not matching.complete
    assert (
        f"expected 2 blocks in enc/norm/scale, file has [{blocks}, 4]"
        in (matching.mismatched[0])
    )


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 3, 1)])
def test_tensors_of_other_shapes_are_not_joined(shape):
    row = {"ours": "qkv", "theirs": "q", "joined": ["k"]}
    file = {"q.weight": np.ones((2, 3)), "k.weight": np.ones(shape)}
    matching = tensor_matching.match(table_of(row), {"qkv/kernel": (3, 4)}, file)
    assert matching.mismatched == [
        f"qkv/kernel: q.weight has shape [2, 3], but k.weight {list(shape)}"
    ]


def test_a_transposed_kernel_is_not_a_flattened_one():
    row = {"ours": "fc6", "theirs": "fc6"}
    table = table_of(row, framework="tensorflow")
    file = {"fc6/kernel": np.ones((5, 24))}
    matching = tensor_matching.match(table, {"fc6/kernel": (2, 3, 4, 5)}, file)
    assert matching.mismatched == [
        "fc6/kernel: expected [2, 3, 4, 5], file has [5, 24]"
    ]


def test_variables_that_a_project_lacks_may_be_zero():
    table = table_of(
        {"ours": "token/embedding", "theirs": "cls"}, zeros=["token/position"]
    )
    shapes = {"token/embedding": (1, 4), "token/position": (1, 4)}
    matching = tensor_matching.match(table, shapes, {"cls": np.ones((1, 1, 4))})
    assert matching.complete
    assert matching.zeros == ["token/position"]
    assert matching.summary() == "names of a test: 1 matched; 1 zeros"


def test_a_kernel_may_have_its_inputs_first():
    kernel = np.arange(12.0).reshape(3, 4)
    row = {"ours": "project", "theirs": "visual.proj", "inputs_first": True}
    result = values(table_of(row), {"project/kernel": (3, 4)}, {"visual.proj": kernel})
    np.testing.assert_array_equal(result["project/kernel"], kernel)


def test_keras_has_depthwise_kernels_as_grouped_convolutions():
    kernel = np.random.default_rng(0).random((7, 7, 1, 5))
    row = {
        "ours": "{block}_depthwise",
        "theirs": "depthwise_{index}",
        "depthwise": True,
    }
    table = table_of(row, framework="tensorflow")
    shapes = {"stage_1_block_1_depthwise/kernel": (7, 7, 5, 1)}
    result = values(table, shapes, {"depthwise_0/kernel": kernel})
    np.testing.assert_array_equal(
        result["stage_1_block_1_depthwise/kernel"], kernel.transpose(0, 1, 3, 2)
    )
