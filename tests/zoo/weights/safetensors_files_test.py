"""Tests that sharded safetensors are read as one file and their index is verified."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from zoo.weights import safetensors_files, weights_file

TYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64")
TYPES += ("uint32", "uint16", "uint8", "complex64", "bool", ml_dtypes.bfloat16)


def write(folder, *shards):
    """Writes shards and their index, named as Hugging Face names them."""
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.numpy.save_file(tensors, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    return write_index(folder, {"metadata": {}, "weight_map": weight_map})


def write_index(folder, content):
    index = folder / "model.safetensors.index.json"
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    index.write_bytes(text)
    return index


FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
RIGHT = {"a": FIRST, "b": FIRST, "c": SECOND}


@pytest.fixture
def index(tmp_path):
    a, b, c = (np.full((2, 3), value, np.float32) for value in (1, 2, 3))
    return write(tmp_path, {"a": a, "b": b}, {"c": c})


def test_shards_are_read_as_one_file(index):
    file = weights_file.read(index)
    assert {name: np.asarray(t).max() for name, t in file.tensors.items()} == {
        "a": 1.0,
        "b": 2.0,
        "c": 3.0,
    }
    assert file.record is None
    assert weights_file.kind(index) == "safetensors"


def test_what_hugging_face_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch", reason="tools/setup oracles")
    hub = pytest.importorskip("huggingface_hub", reason="tools/setup oracles")
    state = {f"{name}.weight": torch.randn(8, 8) for name in "abcde"}
    hub.save_torch_state_dict(state, tmp_path, max_shard_size=600)
    index = tmp_path / "model.safetensors.index.json"
    tensors = weights_file.read(index).tensors
    assert tensors.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(np.asarray(tensors[name]), tensor.numpy())
    assert len(weights_file.parts(index)) == 4


def test_the_hash_covers_the_index_and_every_shard(index):
    hashes = {weights_file.sha256(index)}
    for part in weights_file.parts(index):
        part.write_bytes(part.read_bytes() + b" ")
        hashes.add(weights_file.sha256(index))
    assert [part.name for part in weights_file.parts(index)] == [
        index.name,
        FIRST,
        SECOND,
    ]
    assert len(hashes) == 4


@pytest.mark.parametrize("kind", TYPES)
def test_shapes_and_types_are_known_before_the_values(tmp_path, kind):
    path = tmp_path / "a.safetensors"
    values = {"many": np.ones((2, 3), kind), "one": np.ones((), kind)}
    safetensors.numpy.save_file(values, path)
    for name, tensor in weights_file.read(path).tensors.items():
        assert (tensor.shape, tensor.dtype) == (values[name].shape, values[name].dtype)
        np.testing.assert_array_equal(np.asarray(tensor), values[name], strict=True)


def test_an_unknown_type_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(4, np.uint8)}, path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].rstrip().replace(b'"U8"', b'"F8_E4M3"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(ValueError, match=r"a has values of type F8_E4M3\.$"):
        weights_file.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "shard index: Expecting value"),
        (b'{"weight_map": {', "shard index: Expecting property name"),
        (b"\xff\xfe\xff", "shard index: .* codec can't decode"),
        (b"[" * 100_000, "shard index: maximum recursion depth"),
        (b'{"n": ' + b"1" * 5_000 + b"}", "shard index: Exceeds the limit"),
        ([], "it has no weight_map"),
        ({"architectures": ["ResNet"]}, "it has no weight_map"),
        ({"weight_map": {}}, "it has no weight_map"),
        ({"weight_map": ["a"]}, "it has no weight_map"),
        ({"weight_map": {"a": 1}}, "its shard '1' is not a file name"),
        ({"weight_map": {"a": {"file": FIRST}}}, "is not a file name"),
        ({"weight_map": RIGHT | {"a": f"../{FIRST}"}}, "is not a file name"),
        ({"weight_map": RIGHT | {"a": f"./{FIRST}"}}, "is not a file name"),
        ({"weight_map": RIGHT | {"a": "/etc/passwd"}}, "is not a file name"),
        ({"weight_map": RIGHT | {"a": "..\\x"}}, "is not a file name"),
        ({"weight_map": RIGHT | {"a": ".."}}, r"its shard '\.\.' is missing"),
        ({"weight_map": RIGHT | {"a": ""}}, "its shard '' is missing"),
        ({"weight_map": RIGHT | {"a": "x" * 300}}, "shard index: .* name too long"),
        ({"weight_map": RIGHT | {"a": "\0"}}, "its shard .* is missing"),
        ({"weight_map": RIGHT | {"a": "\ud800"}}, "its shard .* is missing"),
        ({"weight_map": RIGHT | {"a": "gone"}}, "its shard 'gone' is missing"),
        (
            {"weight_map": {"a": "model.safetensors.index.json"}},
            "json is not a usable safetensors file",
        ),
        ({"weight_map": RIGHT | {"d": SECOND}}, f"lists 'd' in '{SECOND}', which does"),
        (
            {"weight_map": {"a": FIRST, "b": SECOND, "c": SECOND}},
            f"{FIRST} has 'b', which .*json lists in '{SECOND}'",
        ),
        (
            {"weight_map": {"a": FIRST, "c": SECOND}},
            f"{FIRST} has 'b', which .*json does not list",
        ),
    ],
)
def test_an_index_that_can_not_be_meant_is_refused(index, content, message):
    write_index(index.parent, content)
    with pytest.raises(ValueError, match=message) as caught:
        weights_file.read(index)
    assert index.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(index):
    twice = {name: np.zeros(1, np.float32) for name in "bc"}
    safetensors.numpy.save_file(twice, index.parent / SECOND)
    with pytest.raises(ValueError, match=f"{SECOND} has 'b', .* lists in '{FIRST}'"):
        weights_file.read(index)


def test_a_huge_index_is_not_read(index, monkeypatch):
    monkeypatch.setattr(safetensors_files, "_LARGEST_INDEX", 100)
    with pytest.raises(ValueError, match="it has more than 100 bytes"):
        weights_file.parts(index)


def test_a_damaged_shard_is_named(index):
    shard = index.parent / SECOND
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{SECOND} is not a usable safetensors file"):
        weights_file.read(index)


def test_shards_may_be_links_as_in_the_cache_of_hugging_face(index):
    shard, blob = index.parent / FIRST, index.parent / "blob"
    shard.rename(blob)
    shard.symlink_to(blob)
    assert weights_file.read(index).tensors.keys() == RIGHT.keys()
