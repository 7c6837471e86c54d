"""Tests that the PyTorch file reader equals PyTorch, and runs no hostile pickles."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from zoo.weights import pickled, registry


def save_zip(path, state, storages, *, compression=zipfile.ZIP_STORED):
    """Writes PyTorch's archive layout around an already pickled state."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model/data.pkl", state)
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)


def tensor_pickle(shape=(2, 3), strides=(3, 1), offset=0, size=6, name="weight"):
    """Returns a state dict of one tensor, pickled by hand as torch.save would."""
    opcodes = io.BytesIO()
    write = opcodes.write
    write(b"\x80\x02}")
    write(b"X" + len(name).to_bytes(4, "little") + name.encode())
    write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
    write(b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu")
    write(b"J" + size.to_bytes(4, "little", signed=True) + b"tQ")
    write(b"J" + offset.to_bytes(4, "little", signed=True))
    for values in (shape, strides):
        write(b"(")
        for value in values:
            write(b"J" + value.to_bytes(4, "little", signed=True))
        write(b"t")
    write(b"\x89}tRs.")
    return opcodes.getvalue()


def test_reads_a_tensor_with_its_strides(tmp_path):
    path = tmp_path / "model.pth"
    data = np.arange(6, dtype="<f4")
    save_zip(path, tensor_pickle(shape=(3, 2), strides=(1, 3)), {"0": data.tobytes()})
    (item,) = pickled.read(path).items()
    assert item[0] == "weight"
    np.testing.assert_array_equal(item[1], data.reshape(2, 3).T)


class Command:
    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_pickle_that_runs_a_command_runs_nothing(tmp_path, layout, protocol):
    marker, path = tmp_path / "ran", tmp_path / "model.pth"
    hostile = pickle.dumps({"weight": Command(marker)}, protocol)
    if layout == "zip":
        save_zip(path, hostile, {})
    else:
        head = [pickled.LEGACY_MAGIC, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + hostile)
    with pytest.raises(ValueError, match=r"posix.system, which no state dict needs"):
        pickled.read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.", "eval"),
        (b"\x80\x02(i__builtin__\nlist\n.", "instruction INST"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "has no dict of tensors"),
        (b"\x80\x02K\x01" + b"2\x86" * 40 + b"}K\x00s.", "instruction DUP"),
        (
            b"\x80\x02}K\x01q\0" + b"h\0\x86q\0" * 40 + b"K\0s.",
            "neither text nor a number",
        ),
        (b"\x80\x02ctorch.nn\nModule\n.", "torch.nn.Module"),
        (b"\x80\x02]", "pickle exhausted before seeing STOP"),
        (b"\x80\x02]X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
        (b"\x80\x02}.", "no dict of tensors"),
        (b"\x80\x02}X\x01\0\0\0aK\x01s.", "'a' is not a tensor"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "not a usable PyTorch"),
    ],
)
def test_hostile_pickles_are_refused(tmp_path, data, message):
    path = tmp_path / "model.pth"
    save_zip(path, data, {})
    with pytest.raises(ValueError, match=message):
        pickled.read(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"shape": (3, 3)}, r"shape \[3, 3\] is in a storage of 6"),
        ({"offset": 1}, "in a storage of 6"),
        ({"offset": -1}, "impossible shape"),
        ({"strides": (-3, 1)}, "impossible shape"),
        ({"shape": (2, 3, 1)}, "impossible shape"),
        ({"shape": (2**30, 2**20), "strides": (0, 0)}, "in a storage of 6"),
        ({"size": 2**31 - 1}, "truncated"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path, tensor, message):
    path = tmp_path / "model.pth"
    save_zip(path, tensor_pickle(**tensor), {"0": b"\0" * 24})
    with pytest.raises(ValueError, match=message):
        pickled.read(path)


def test_a_tensor_changed_after_it_was_made_is_refused(tmp_path):
    """BUILD sets an object's attributes without calling its constructor."""
    rebuilt = b"}X\x06\0\0\0offsetJ\0\0\0\x10sb"
    path = tmp_path / "model.pth"
    data = tensor_pickle().replace(b"Rs.", b"R" + rebuilt + b"s.")
    save_zip(path, data, {"0": b"\0" * 24})
    with pytest.raises(ValueError, match="lacks a dict where it needs one"):
        pickled.read(path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    bomb = b"\0" * 24
    save_zip(path, tensor_pickle(), {"0": bomb}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="the archive is compressed"):
        pickled.read(path)


@pytest.mark.parametrize("keep", [0, 1, 20, 1000, 100_000, 0.5, 0.999999])
def test_truncated_files_are_refused(tmp_path, keep):
    whole = registry.find("efficientnet_lite0", "imagenet").path.read_bytes()
    path = tmp_path / "model.pth"
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match="is not a usable PyTorch state dict"):
        pickled.read(path)


def test_equals_torch_on_a_legacy_file():
    torch = pytest.importorskip("torch", reason="tools/setup oracles")
    path = registry.find("efficientnet_lite0", "imagenet").path
    expected = torch.load(path, weights_only=True)
    tensors = pickled.read(path)
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", ["state_dict", "model", "model_ema", ""])
def test_equals_torch_on_what_it_writes(tmp_path, zipped, wrapped):
    torch = pytest.importorskip("torch", reason="tools/setup oracles")
    base = torch.randn(4, 6)
    state = collections.OrderedDict(
        transposed=base.t(),
        slice=base[1:3, ::2],
        shared=base,
        parameter=torch.nn.Parameter(torch.randn(3)),
        scalar=torch.tensor(5),
        empty=torch.zeros(0, 3),
        half=torch.randn(2).half(),
        double=torch.randn(2).double(),
        flags=torch.tensor([True, False]),
        bytes=torch.arange(5, dtype=torch.uint8),
    )
    path = tmp_path / "model.pth"
    torch.save(
        {"state_dict": {}, wrapped: state, "epoch": 3} if wrapped else state,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    tensors = pickled.read(path)
    for name, tensor in state.items():
        expected = tensor.detach().numpy()
        np.testing.assert_array_equal(tensors[name], expected, strict=True)


def test_a_truncated_archive_is_told_and_so_is_what_to_do(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    save_zip(whole, tensor_pickle(), {"0": b"\0" * 24})
    path.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"truncated: .*model.state_dict\(\), FILE\)"):
        pickled.read(path)
