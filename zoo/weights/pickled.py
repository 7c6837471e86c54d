"""Reads PyTorch's `.pth` files, without PyTorch and without running code in the file.

A pickle is a program. This module does not unpickle it: an interpreter executes only
the instructions that a state dict needs, and calls no function by name. It reads both
layouts: the zip archive of PyTorch 1.6 and later, and the older sequence of pickles.

Source: `torch/serialization.py` (`_save`, `_legacy_save`) and `torch/_utils.py`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import pickletools
import struct
import typing
import zipfile
from collections.abc import Callable

import ml_dtypes
import numpy as np

# Keys of nested state dicts. Moving averages come first, as in timm
# (`timm/models/_helpers.py`, `load_state_dict`).
_STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage whose bytes may not have been read yet; units: elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor has an impossible shape")

    def view(self, data: np.ndarray) -> np.ndarray:
        """Returns the tensor's values as a view of the storage's data."""
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        elements = math.prod(self.shape)
        if elements and max(self.offset + last + 1, elements) > data.size:
            raise ValueError(
                f"a tensor of shape {list(self.shape)} is in a storage of {data.size} "
                "elements"
            )
        strides = [stride * data.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, strides, writeable=False
        )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
      path: a file that `torch.save` wrote: a state dict, or a dict with a state dict
        under a key of `_STATE_KEYS`.

    Returns:
      Tensors by name, on the host, with the file's layout and dtype.

    Raises:
      ValueError: the file is damaged, is not a state dict, or would run code.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
            if is_zip and not zipfile.is_zipfile(file):
                raise ValueError("it is truncated: the archive has no end record")
            file.seek(0)
            if is_zip:
                state, storages = _read_zip(file)
            else:
                state, storages = _read_legacy(file)
        return {
            name: tensor.view(storages[tensor.storage.key])
            for name, tensor in _state_dict(state).items()
        }
    except Exception as error:  # A hostile file may cause any exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a usable PyTorch state dict: {reason}. If PyTorch can load "
            "it, save only its weights: torch.save(model.state_dict(), FILE)."
        ) from error


def _state_dict(state: typing.Any) -> dict[str, _Tensor]:
    if isinstance(state, dict):
        nested = [state.get(key) for key in _STATE_KEYS]
        state = next((s for s in nested if s and isinstance(s, dict)), state)
    if not isinstance(state, dict) or not state:
        raise ValueError("it has no dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {str(name)[:80]!r} is not a tensor")
    return state


def _read_zip(file: typing.BinaryIO) -> tuple[typing.Any, dict[str, np.ndarray]]:
    """Reads the zip layout: the pickle is `NAME/data.pkl`, storages `NAME/data/KEY`."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("the archive has no data.pkl")
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
            raise ValueError("the archive is compressed, which torch.save never does")
        size = os.fstat(file.fileno()).st_size
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("the archive's entries overlap")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order and archive.read(order) != b"little":
            raise ValueError("it was written on a big-endian machine")
        storages: dict[str, _Storage] = {}
        state = _load(archive.read(pickles[0]), storages)
        arrays = {
            key: _array(storage, archive.read(f"{folder}data/{key}"))
            for key, storage in storages.items()
        }
    return state, arrays


def _read_legacy(file: typing.BinaryIO) -> tuple[typing.Any, dict[str, np.ndarray]]:
    """Reads the layout before PyTorch 1.6.

    It has pickles of the magic number, the protocol, the system, the state and the
    storage keys, and then the size and the bytes of each storage.
    """
    storages: dict[str, _Storage] = {}
    if _load(_read_pickle(file), storages) != LEGACY_MAGIC:
        raise ValueError("it does not begin with PyTorch's magic number")
    _load(_read_pickle(file), storages)
    if not _load(_read_pickle(file), storages).get("little_endian", True):
        raise ValueError("it was written on a big-endian machine")
    state = _load(_read_pickle(file), storages)
    arrays = {}
    for key in _load(_read_pickle(file), storages):
        (size,) = struct.unpack("<q", file.read(8))
        storage = storages[key]
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} elements, not {storage.size}")
        arrays[key] = _array(storage, file.read(size * storage.dtype.itemsize))
    return state, arrays


def _array(storage: _Storage, data: bytes) -> np.ndarray:
    if len(data) != storage.size * storage.dtype.itemsize:
        raise ValueError(
            f"it is truncated: storage {storage.key} has {len(data)} bytes of "
            f"{storage.size * storage.dtype.itemsize}"
        )
    return np.frombuffer(data, storage.dtype)


def _read_pickle(file: typing.BinaryIO) -> bytes:
    """Reads the bytes of the next pickle of the file."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    stop = file.tell()
    file.seek(start)
    return file.read(stop - start)


def _load(data: bytes, storages: dict[str, _Storage]) -> typing.Any:
    """Returns the value of a pickle, and adds the storages it names to `storages`."""
    return _Interpreter(storages).run(data)


class _Interpreter:
    """Interpreter of the pickle instructions that a state dict needs.

    Of the objects from a file, it calls, hashes, compares and prints only strings and
    numbers.
    """

    def __init__(self, storages: dict[str, _Storage]) -> None:
        self.storages = storages
        self.stack: list[typing.Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, typing.Any] = {}

    def run(self, data: bytes) -> typing.Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in _PUSHED:
                self.stack.append(_PUSHED[name](argument))
            elif name == "STOP":
                return self.stack.pop()
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[int(argument or 0)])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[int(argument or 0)] = self.stack[-1]
            elif name in _TUPLES:
                size = _TUPLES[name]
                self.stack[-size:] = [tuple(self.stack[-size:])]
            elif hasattr(self, f"_{name.lower()}"):
                getattr(self, f"_{name.lower()}")()
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"its pickle has the instruction {name}")
        raise ValueError("its pickle has no end")

    def _since_mark(self) -> list[typing.Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _mark(self) -> None:
        self.marks.append(len(self.stack))

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _tuple(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self) -> None:
        self.stack.append(self._since_mark())

    def _dict(self) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def _append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[typing.Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise ValueError("a key is neither text nor a number")
            target[key] = value

    def _build(self) -> None:
        """Discards the attributes of an ordered dict, such as module versions."""
        self.stack.pop()
        self._top(dict)

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it refers to an object by a name that is not a string")
        self.stack.append(_symbol(f"{module} {name}"))

    def _binpersid(self) -> None:
        _, dtype, key, _, size = self._popped(tuple)[:5]
        if not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise ValueError("it refers to an object that is not a storage")
        storage = _Storage(key, dtype, _count(size))
        self.stack.append(self.storages.setdefault(key, storage))

    def _reduce(self) -> None:
        arguments, function = self._popped(tuple), self.stack.pop()
        if function is _ORDERED_DICT and not arguments:
            self.stack.append({})
        elif function is _PARAMETER and isinstance(arguments[0], _Tensor):
            self.stack.append(arguments[0])
        elif function is _TENSOR and isinstance(arguments[0], _Storage):
            storage, offset, shape, strides = arguments[:4]
            shape, strides = (tuple(map(_count, sizes)) for sizes in (shape, strides))
            self.stack.append(_Tensor(storage, _count(offset), shape, strides))
        else:
            raise ValueError("it has a call that no state dict needs")

    def _popped(self, type_: type) -> typing.Any:
        value = self._top(type_)
        self.stack.pop()
        return value

    def _top(self, type_: type) -> typing.Any:
        if not isinstance(self.stack[-1], type_):
            raise ValueError(f"its pickle lacks a {type_.__name__} where it needs one")
        return self.stack[-1]


def _count(value: typing.Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a tensor has an impossible shape")
    return int(value)


def _symbol(name: str) -> typing.Any:
    """Returns the placeholder on the stack for the global `MODULE NAME`."""
    if name not in _SYMBOLS:
        raise ValueError(
            f"it would run {name.replace(' ', '.')}, which no state dict needs; "
            "nothing was run"
        )
    return _SYMBOLS[name]


_ORDERED_DICT, _TENSOR, _PARAMETER = object(), object(), object()
_SYMBOLS = {
    "collections OrderedDict": _ORDERED_DICT,
    "torch._utils _rebuild_tensor_v2": _TENSOR,
    "torch._utils _rebuild_parameter": _PARAMETER,
    **{f"torch {name}": dtype for name, dtype in _STORAGES.items()},
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_VALUES = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING
"""
# Instructions that push one value, and the function of their argument that returns it.
_PUSHED: dict[str, Callable[[typing.Any], typing.Any]] = {
    **{name: lambda argument: argument for name in _VALUES.split()},
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "GLOBAL": _symbol,
}
