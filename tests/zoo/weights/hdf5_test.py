"""Tests the HDF5 reader, also on files with links, damage or no Keras weights."""

import contextlib
import os

import h5py
import keras
import numpy as np
import pytest

from zoo.weights import hdf5, pickled


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"


def write_keras(path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.BatchNormalization(name="second")(x)
    keras.Model(inputs, x).save_weights(path)


def test_keras_3_says_the_names_of_layers(tmp_path):
    path = tmp_path / "x.weights.h5"
    write_keras(path)
    tensors = hdf5.read(path)
    assert set(tensors) == {
        *("first/0", "first/1"),
        *("second/0", "second/1", "second/2", "second/3"),
    }
    assert tensors["first/0"].shape == (3, 3, 3, 4)
    assert np.asarray(tensors["second/3"]).tolist() == [1.0] * 4


def write_external_link(path):
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/hostname", "/")


def write_soft_link(path):
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.SoftLink("/layers")


def write_external_values(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group.create_dataset("0", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def write_virtual(path):
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (4,))
        file.create_virtual_dataset("0", layout)


def write_cycle(path):
    with h5py.File(path, "w") as file:
        file.create_group("a")["b"] = file["/"]


def write_unknown_filter(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("0", data=np.zeros(64, "f4"), compression="lzf")


def write_no_values(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group["0"] = h5py.Empty("f4")


def write_group_for_values(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group.create_group("0")


def write_type_for_values(path):
    with h5py.File(path, "w") as file:
        file["0"] = np.dtype("f4")


def write_one_name_twice(path):
    with h5py.File(path, "w") as file:
        for layer in "ab":
            group = file.create_group(f"layers/{layer}/vars")
            group.attrs["name"] = "conv"
            group["0"] = np.zeros(3, "f4")


def write_deep(path):
    with h5py.File(path, "w") as file:
        file.create_group("/a" * 200)


def write_no_names(path):
    with h5py.File(path, "w") as file:
        file.create_group("layers/conv2d/vars")["0"] = np.zeros(3)


def write_other(path):
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)


def write_missing_layer(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"gone"]


def write_missing_weight(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]


def write_numbers_for_names(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = 5


def write_truncated(path):
    write_keras(path.with_suffix(".weights.h5"))
    data = path.with_suffix(".weights.h5").read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_external_link, "'layers' is a link, maybe to another file"),
        (write_soft_link, "'layers' is a link"),
        (write_external_values, "'0' has its values in another file"),
        (write_virtual, "'0' has its values in another file"),
        (write_cycle, "a group that contains itself"),
        (write_unknown_filter, "'0' has a compression"),
        (write_no_values, "'0' has no values"),
        (write_group_for_values, "'conv/0' occurs twice, or has no values"),
        (write_type_for_values, "'0' has no values"),
        (write_one_name_twice, "'conv/0' occurs twice"),
        (write_deep, "more than 50 deep"),
        (write_no_names, "no attribute with the name of its layer"),
        (write_other, "it has no Keras weights"),
        (write_missing_layer, "gone"),
        (write_missing_weight, "component not found"),
        (write_numbers_for_names, "is not usable|is not a usable"),
        (write_truncated, "truncated"),
    ],
)
def test_what_can_not_be_trusted_is_refused(path, write, message):
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        hdf5.read(path)
    assert "\n" not in str(caught.value)


def test_oversized_values_are_not_read(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group.create_dataset(
            "0", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip"
        )
    assert os.path.getsize(path) < 100_000
    assert hdf5.read(path)["conv/0"].shape == (1 << 40,)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_never_crash(path, seed):
    """A damaged file may give only a ValueError or tensors."""
    write_keras(path.with_suffix(".weights.h5"))
    data = bytearray(path.with_suffix(".weights.h5").read_bytes())
    rng = np.random.default_rng(seed)
    for index in rng.integers(0, len(data), 20):
        data[index] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        assert all(tensor.shape is not None for tensor in hdf5.read(path).values())


def test_the_reader_of_pickles_is_not_asked(path):
    write_other(path)
    with pytest.raises(ValueError, match="not a usable PyTorch"):
        pickled.read(path)
