"""Tests the reader of NumPy's archives, and that they can't run code."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from zoo.weights import npz, weights_file

ARRAYS = {
    "head/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/b": np.ones(4, np.float16),
    "opt/step": np.array(3),
}


def test_arrays_are_read_when_they_are_needed(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS)
    assert weights_file.kind(tmp_path / "a.npz") == "npz"
    tensors = weights_file.read(tmp_path / "a.npz").tensors
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        n: (a.shape, a.dtype) for n, a in ARRAYS.items()
    }
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.asarray(tensors[name]), array)


def test_compressed_archives_and_other_file_names(tmp_path):
    with (tmp_path / "weights.bin").open("wb") as file:
        np.savez_compressed(file, **ARRAYS)
    assert weights_file.kind(tmp_path / "weights.bin") == "npz"
    tensors = npz.read(tmp_path / "weights.bin")
    np.testing.assert_array_equal(np.asarray(tensors["a/b"]), ARRAYS["a/b"])


def test_bfloat16_is_recognised(tmp_path):
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    np.savez(tmp_path / "a.npz", x=values.view("V2"))
    tensor = npz.read(tmp_path / "a.npz")["x"]
    assert tensor.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(tensor), values)


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file ran code')",))


def test_python_objects_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([Harmful()], object), y=np.ones(3))
    with pytest.raises(ValueError, match=r"a\.npz .*x\.npy has Python objects"):
        npz.read(path)


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(ValueError, match=r"a\.npz is not a usable \.npz file"):
        npz.read(path)
    np.savez(path, x=np.ones(1000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        ValueError, match=r"is not a usable \.npz file: File is not a zip file"
    ):
        weights_file.read(path)


def test_an_archive_of_pytorch_is_not_numpys(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
    assert weights_file.kind(path) == "torch"


def test_an_array_that_ends_early_says_so(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(1000))
    with zipfile.ZipFile(path) as archive:
        data = archive.read("x.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", data[:500])
    tensor = npz.read(path)["x"]
    with pytest.raises(ValueError, match="x can't be read"):
        np.asarray(tensor)


def test_an_encrypted_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.ones(3))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1  # the flag of encryption
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"not a usable \.npz file: .*encrypted"):
        npz.read(path)
