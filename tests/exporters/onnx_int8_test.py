"""What is quantized in int8 ONNX models, and how exactly."""

import numpy as np
import pytest

from exporters import onnx as exporters_onnx
from exporters import onnx_quantizer

onnx = pytest.importorskip("onnx", reason="tools/setup onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="tools/setup onnx")

CONVOLUTIONS, CHANNELS, CLASSES, SIDE = 12, 16, 10, 8


def network():
    """Builds a network whose kernels have channels of very different magnitude."""
    random = np.random.default_rng(0)
    make = onnx.helper
    nodes, arrays = [], {}

    def add(op, *inputs, **attributes):
        """Appends a node, whose arrays become initializers; returns its output."""
        output = f"{op}_{len(nodes)}"
        names = []
        for index, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}_{index}")
            if not isinstance(value, str):
                arrays[names[-1]] = value.astype(np.float32)
        nodes.append(make.make_node(op, names, [output], name=output, **attributes))
        return output

    magnitudes = np.logspace(-1, 0, CHANNELS)
    x = add("Transpose", "images", perm=[0, 3, 1, 2])
    previous = np.ones(3)
    for _ in range(CONVOLUTIONS):
        kernel = random.normal(size=(CHANNELS, len(previous))) / previous
        kernel *= magnitudes[:, None] * (2 / len(previous)) ** 0.5
        bias = 0.01 * magnitudes * random.normal(size=CHANNELS)
        x = add("Relu", add("Conv", x, kernel[:, :, None, None], bias))
        previous = magnitudes
    x = add("Flatten", add("GlobalAveragePool", x))
    kernel = random.normal(size=(CHANNELS, CLASSES)) / magnitudes[:, None]
    x = add("Add", add("MatMul", x, kernel), random.normal(size=CLASSES))
    nodes[-1].output[0] = "logits"
    image_shape = ["batch", "height", "width", 3]
    float32 = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes,
        "network",
        [make.make_tensor_value_info("images", float32, image_shape)],
        [make.make_tensor_value_info("logits", float32, ["batch", CLASSES])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [make.make_opsetid("", 17)]
    model = make.make_model(graph, opset_imports=opset, ir_version=8)
    model.metadata_props.add(key="class_index.tsv", value="0\tcat")
    return model


def images(count, seed=0):
    """Draws noise of different colours."""
    random = np.random.default_rng(seed)
    colours = random.random((count, 1, 1, 3), np.float32)
    return colours * random.random((count, SIDE, SIDE, 3), np.float32)


def quantize(model, folder):
    """Returns the path of the quantized model."""
    folder.mkdir()
    (folder / "scratch").mkdir()
    onnx.save(model, folder / "float32.onnx")
    np.save(folder / "images.npy", images(16))
    entry = {
        "source": str(folder / "float32.onnx"),
        "model": str(folder / "model.onnx"),
    }
    exporters_onnx.run_program(
        onnx_quantizer.__file__,
        {"images": str(folder / "images.npy"), "models": [entry]},
        scratch=str(folder / "scratch"),
        tool="quantizer",
        memory="little",
    )
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return quantize(network(), tmp_path_factory.mktemp("onnx_int8") / "once")


@pytest.fixture(scope="module")
def graph(path):
    return onnx.load(path).graph


def logits_of(model):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images(32, seed=1)})[0]


def test_values_stay_close(path):
    """With one scale for a whole kernel, the error would be larger than the signal."""
    expected = logits_of(network().SerializeToString())
    error = logits_of(path) - expected
    assert 1e-4 < np.std(error) / np.std(expected - expected.mean(0)) < 0.5


def test_kernels_are_int8_with_a_scale_for_each_channel(graph):
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    kernels = [n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(kernels) == CONVOLUTIONS + 1
    # The first convolution, one of twelve, stays float32.
    assert arrays[kernels[0]].dtype == np.float32
    for name, channels in zip(
        kernels[1:], [*[CHANNELS] * (CONVOLUTIONS - 1), CLASSES], strict=True
    ):
        kernel, scales, zeros = (arrays[n] for n in producers[name].input)
        assert kernel.dtype == np.int8
        assert scales.shape == (channels,)
        assert len(np.unique(scales)) == channels
        assert not zeros.any()


def test_activations_are_uint8(graph):
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantized) >= CONVOLUTIONS
    assert {arrays[node.input[2]].dtype for node in quantized} == {np.dtype(np.uint8)}
    assert all(1e-6 < arrays[node.input[1]] < 1 for node in quantized)


def test_logits_are_not_rounded(graph, path):
    (last,) = (node for node in graph.node if "logits" in node.output)
    assert last.op_type == "Gemm"
    assert len(np.unique(logits_of(path))) > 256


def test_the_rest_is_as_before(path):
    model, before = onnx.load(path), network()
    assert model.graph.input == before.graph.input
    assert model.graph.output == before.graph.output
    assert model.metadata_props == before.metadata_props
    assert model.opset_import == before.opset_import
    assert model.ir_version == before.ir_version


def test_bytes_are_the_same_again_and_nothing_is_left(path, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PYTHONHASHSEED", "17")
    again = quantize(network(), tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()
    assert not list(temporary.iterdir())
    assert {p.name for p in again.parent.iterdir()} == {
        *("float32.onnx", "images.npy", "model.onnx", "scratch")
    }


def test_a_model_with_another_input_is_an_error(tmp_path):
    model = network()
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    with pytest.raises(ChildProcessError, match="quantizer failed .*pixels.* missing"):
        quantize(model, tmp_path / "pixels")


@pytest.mark.parametrize(
    ("convolutions", "count"), [(1, 0), (9, 0), (10, 1), (29, 2), (53, 3)]
)
def test_the_first_convolutions_stay_float32(convolutions, count):
    """A tenth of them, and three at most: not the one of a vision transformer."""
    nodes = [
        onnx.helper.make_node(op, [], [], name=f"{op}_{index}")
        for index in range(convolutions)
        for op in ("Conv", "Relu")
    ]
    names = onnx_quantizer._first_layers([*nodes, nodes[1]])
    expected = [f"{op}_{index}" for index in range(count) for op in ("Conv", "Relu")]
    assert names == expected
