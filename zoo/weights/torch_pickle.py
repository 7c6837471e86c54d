"""Reads PyTorch's `.pth` files without PyTorch and without running what is in them.

A pickle is a program. It is not unpickled here, but read by a machine that knows the
instructions of a state dict and no others, and that calls nothing by name. Both layouts
are read: the zip archive of PyTorch 1.6 and later, and the chain of pickles before it.

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

# Averages first, as timm has it (`timm/models/_helpers.py`, `load_state_dict`).
_STATES = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
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
    """A view of a storage, in elements; the storage's bytes may still be unread."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor of impossible shape")

    def view(self, data: np.ndarray) -> np.ndarray:
        """The tensor's values, without a copy."""
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        elements = math.prod(self.shape)
        if elements and max(self.offset + last + 1, elements) > data.size:
            raise ValueError(
                f"a tensor of shape {list(self.shape)} in a storage of {data.size} "
                "elements"
            )
        strides = [stride * data.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, strides, writeable=False
        )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    Args:
      path: a file that `torch.save` wrote, of a state dict or of a dict that holds
        one under a name of `_STATES`.

    Returns:
      Tensors by name, on the host, in the file's own layout and dtype.

    Raises:
      ValueError: the file is damaged, holds something else, or names code to run.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
            if is_zip and not zipfile.is_zipfile(file):
                raise ValueError("it is truncated: the archive has no end")
            file.seek(0)
            if is_zip:
                state, storages = _read_zip(file)
            else:
                state, storages = _read_legacy(file)
        return {
            name: tensor.view(storages[tensor.storage.key])
            for name, tensor in _state_dict(state).items()
        }
    except Exception as error:  # a hostile file may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a usable PyTorch state dict: {reason}. Where PyTorch can "
            "load it, save its weights alone: torch.save(model.state_dict(), FILE)."
        ) from error


def _state_dict(state: typing.Any) -> dict[str, _Tensor]:
    if isinstance(state, dict):
        found = [state.get(name) for name in _STATES]
        state = next((s for s in found if s and isinstance(s, dict)), state)
    if not isinstance(state, dict) or not state:
        raise ValueError("it holds no dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {str(name)[:80]!r} is no tensor")
    return state


def _read_zip(file: typing.BinaryIO) -> tuple[typing.Any, dict[str, np.ndarray]]:
    """`NAME/data.pkl` is the pickle, `NAME/data/KEY` the storages, uncompressed."""
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
    """The value that a pickle describes; the storages it names go to `storages`."""
    return _Machine(storages).run(data)


class _Machine:
    """Pickle's stack machine, as far as a state dict needs it.

    Nothing is called, hashed, compared or printed that a file brought along, but
    strings and numbers.
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
        place = self.marks.pop()
        items = self.stack[place:]
        del self.stack[place:]
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
        """Attributes of an ordered dict, such as the versions of modules: left out."""
        self.stack.pop()
        self._top(dict)

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it names something by what is no name")
        self.stack.append(_symbol(f"{module} {name}"))

    def _binpersid(self) -> None:
        _, dtype, key, _, size = self._popped(tuple)[:5]
        if not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise ValueError("it refers to something that is no storage")
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
            raise ValueError("it calls what is no part of a state dict")

    def _popped(self, kind: type) -> typing.Any:
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise ValueError(f"there is no {kind.__name__} where one should be")
        return value

    def _top(self, kind: type) -> typing.Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"there is no {kind.__name__} where one should be")
        return self.stack[-1]


def _count(value: typing.Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("a tensor of impossible shape")
    return int(value)


def _symbol(name: str) -> typing.Any:
    """What stands for `MODULE NAME` on the stack."""
    if name not in _SYMBOLS:
        raise ValueError(
            f"it wants to run {name.replace(' ', '.')}, which no state dict needs; "
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
# Instructions that push one value, from their argument.
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
