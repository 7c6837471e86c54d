"""Reads PyTorch's `.pth` files without PyTorch and without running what is in them.

A pickle is a program. This reader looks at every instruction first and gives up at
one that a state dict does not need; the few callables that a state dict names are
replaced by stand-ins of this module. Both layouts are read: the zip archive of
PyTorch 1.6 and later, and the chain of pickles before it.

Source: `torch/serialization.py` (`_save`, `_legacy_save`) and `torch/_utils.py`.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import pickletools
import struct
import typing
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}

# What a state dict is made of. Not here: INST, OBJ, NEWOBJ, EXT1, … which make
# objects of any class.
_NEEDED = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1
    BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS LIST
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS PUT
    BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE
    BUILD BINPERSID
"""
_OPCODES = frozenset(_NEEDED.split())


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in elements; its bytes may still be unread."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, data: np.ndarray) -> np.ndarray:
        """The tensor's values; checked here, where no pickle can change it any more."""
        numbers = (self.offset, *self.shape, *self.strides)
        if (
            len(self.shape) != len(self.strides)
            or not all(isinstance(number, int) for number in numbers)
            or min(numbers) < 0
        ):
            raise ValueError("a tensor of impossible shape")
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        elements = math.prod(self.shape)
        if elements and max(self.offset + last + 1, elements) > data.size:
            raise ValueError(
                f"a tensor of shape {list(self.shape)} in a storage of {data.size} "
                "elements"
            )
        strides = [stride * data.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, strides, writeable=False
        )
        return np.ascontiguousarray(view).reshape(self.shape)


def _tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *_: typing.Any
) -> _Tensor:
    """Stands in for `torch._utils._rebuild_tensor_v2`."""
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _parameter(data: _Tensor, *_: typing.Any) -> _Tensor:
    """Stands in for `torch._utils._rebuild_parameter`."""
    return data


_GLOBALS: dict[tuple[str, str], typing.Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> typing.Any:
        if (module, name) not in _GLOBALS:
            raise ValueError(
                f"it wants to run {module}.{name}, which no state dict needs; nothing "
                "was run"
            )
        return _GLOBALS[module, name]

    def persistent_load(self, pid: typing.Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"it refers to something that is no storage: {kind!r}")
        return _Storage(str(key), dtype, int(size))


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
      path: a file that `torch.save` wrote, of a state dict or of a dict that holds
        one under `state_dict`.

    Returns:
      Tensors by name, on the host, in the file's own layout and dtype.

    Raises:
      ValueError: the file is damaged, holds something else, or names code to run.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                state, storages = _read_zip(file)
            else:
                file.seek(0)
                state, storages = _read_legacy(file)
        return {
            name: tensor.view(storages[tensor.storage.key])
            for name, tensor in _state_dict(state).items()
        }
    except Exception as error:  # a hostile file may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a usable PyTorch state dict: {reason}."
        ) from error


def _state_dict(state: typing.Any) -> dict[str, _Tensor]:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise ValueError("it holds no dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {name!r} is no tensor")
    return dict(state)


def _read_zip(file: typing.BinaryIO) -> tuple[typing.Any, dict[str, np.ndarray]]:
    """`NAME/data.pkl` is the pickle, `NAME/data/KEY` the storages, uncompressed."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the archive has no data.pkl")
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
            raise ValueError("the archive is compressed, which torch.save never does")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order and archive.read(order) != b"little":
            raise ValueError("it was written on a big-endian machine")
        found: dict[str, _Storage] = {}
        state = _load(archive.read(pickles[0]), found)
        storages = {
            key: _array(storage, archive.read(f"{folder}data/{key}"))
            for key, storage in found.items()
        }
    return state, storages


def _read_legacy(file: typing.BinaryIO) -> tuple[typing.Any, dict[str, np.ndarray]]:
    """Magic number, protocol, system, state, storage keys; then size and bytes each."""
    found: dict[str, _Storage] = {}
    if _load(_one_pickle(file), found) != LEGACY_MAGIC:
        raise ValueError("it begins with no PyTorch magic number")
    _load(_one_pickle(file), found)
    if not _load(_one_pickle(file), found).get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    state = _load(_one_pickle(file), found)
    storages = {}
    for key in _load(_one_pickle(file), found):
        (size,) = struct.unpack("<q", file.read(8))
        storage = found[key]
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} elements, not {storage.size}")
        storages[key] = _array(storage, file.read(size * storage.dtype.itemsize))
    return state, storages


def _array(storage: _Storage, data: bytes) -> np.ndarray:
    if len(data) != storage.size * storage.dtype.itemsize:
        raise ValueError(
            f"it is truncated: storage {storage.key} has {len(data)} bytes of "
            f"{storage.size * storage.dtype.itemsize}"
        )
    return np.frombuffer(data, storage.dtype)


def _one_pickle(file: typing.BinaryIO) -> bytes:
    """The bytes of the pickle that begins here; the file moves on behind it."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    stop = file.tell()
    file.seek(start)
    return file.read(stop - start)


def _load(data: bytes, storages: dict[str, _Storage]) -> typing.Any:
    """Unpickles `data` after a look at it; the storages it names go to `storages`."""
    memo_limit = len(data)  # a larger index would make the unpickler allocate for it
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"its pickle has the instruction {opcode.name}")
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > memo_limit:
            raise ValueError("its pickle has a memo index beyond its length")

    class Recorder(_Unpickler):
        def persistent_load(self, pid: typing.Any) -> _Storage:
            storage = super().persistent_load(pid)
            return storages.setdefault(storage.key, storage)

    return Recorder(io.BytesIO(data)).load()
