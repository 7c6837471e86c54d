"""Changes to converted graphs, so that runtimes compute the intended results."""

import numpy as np
import pytest

from exporters import onnx as exporters_onnx
from exporters import onnx_converter

onnx = pytest.importorskip("onnx", reason="tools/setup onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="tools/setup onnx")


def padded_pool(*before):
    """Builds a model: ops `before`, one pixel of zeros on each side, a 3×3 max pool."""
    make = onnx.helper
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    names = ["x", *(f"after_{op}" for op in before)]
    nodes = [
        *(
            make.make_node(op, [source], [target])
            for op, source, target in zip(before, names, names[1:], strict=False)
        ),
        make.make_node("Pad", [names[-1], "pads"], ["padded"]),
        make.make_node(
            "MaxPool", ["padded"], ["y"], kernel_shape=[3, 3], strides=[2, 2]
        ),
    ]
    shape = ["batch", 1, 4, 4]
    graph = make.make_graph(
        nodes,
        "padded_pool",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(pads, "pads")],
    )
    opset = [make.make_opsetid("", 17)]
    return make.make_model(graph, opset_imports=opset, ir_version=8)


def test_zeros_before_a_max_pool_can_be_the_maximum():
    model = padded_pool()
    onnx_converter._keep_zero_padding(model.graph)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (actual,) = session.run(None, {"x": np.full((1, 1, 4, 4), -1, np.float32)})
    np.testing.assert_allclose(actual[0, 0], [[0, 0], [0, -1]], atol=1e-30)


@pytest.mark.parametrize("before", [("Relu",), ("Relu", "Transpose")])
def test_zeros_after_a_relu_are_left_alone(before):
    model = padded_pool(*before)
    expected = model.SerializeToString()
    onnx_converter._keep_zero_padding(model.graph)
    assert model.SerializeToString() == expected


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "killed, most likely because it ran out of memory",
        ),
        ("raise ValueError('no such op')", "exit code 1: ValueError: no such op"),
    ],
)
def test_a_program_that_fails_says_why(tmp_path, program, message):
    file = tmp_path / "program.py"
    file.write_text(program)
    with pytest.raises(ChildProcessError, match=f"tf2onnx .*{message}"):
        exporters_onnx.run_program(
            str(file), {}, scratch=str(tmp_path), tool="tf2onnx", memory="all memory"
        )


def test_constants_are_copied_by_no_optimizer():
    """Otherwise each optimizer would double the memory of a large model."""

    class Node:
        def __init__(self, constant):
            self.constant, self.updates = constant, 0

        def is_const(self):
            return self.constant

        def update(self):
            self.updates += 1

    update = onnx_converter._except_for_constants(Node.update)
    nodes = [Node(constant=True), Node(constant=False)]
    for node in nodes:
        update(node)
    assert [node.updates for node in nodes] == [0, 1]
