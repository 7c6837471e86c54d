"""What a training's data were, to say what has changed when it goes on."""

from __future__ import annotations

import array
import heapq
import io
import itertools
import pathlib
import typing
import zipfile
from collections.abc import Mapping

import numpy as np

from common import atomic
from training.data import image_files, split

_SHOWN = 3  # files of each kind


def save(path: pathlib.Path, splits: Mapping[str, split.Split]) -> None:
    """Writes the files of splits with their sizes and times; whole, or not at all.

    Raises:
      OSError: it can't be written.
    """
    file = io.BytesIO()
    np.savez_compressed(file, **_arrays(splits))  # type: ignore[arg-type]
    atomic.write_file(path, file.getvalue())


def difference(path: pathlib.Path, splits: Mapping[str, split.Split]) -> str:
    """Which files were added, removed or changed since `save`; "" where that is open.

    A file is changed if its size or the time of its last change is another.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            before = _listed({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return ""
    now = _listed(_arrays(splits))
    is_old = np.isin(now.hashes, before.hashes)
    is_left = np.isin(before.hashes, now.hashes)
    order = np.argsort(before.hashes)
    found = np.searchsorted(before.hashes, now.hashes[is_old], sorter=order)
    is_changed = is_old.copy()
    is_changed[is_old] = (now.states[is_old] != before.states[order[found]]).any(axis=1)
    told = (
        _told("added", now, ~is_old),
        _told("removed", before, ~is_left),
        _told("changed", now, is_changed),
    )
    return "; ".join(filter(None, told))


def explain(path: pathlib.Path, splits: Mapping[str, split.Split]) -> str:
    """Why the fingerprints of splits are others than at `save`; "" if that is open."""
    found = difference(path, splits)
    if not found and _arrays(splits):
        return "no file was added, removed or changed, but labels or halves"
    return found


class _Listing(typing.NamedTuple):
    """Millions of files.

    Attributes:
      names: one after the other.
      ends: where in `names` each ends, [N].
      states: size and time of each, [N, 2].
      hashes: of the names, [N] int64; those of one process compare.
    """

    names: bytes
    ends: np.ndarray
    states: np.ndarray
    hashes: np.ndarray

    def name(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.names[start : int(self.ends[number])]


def _told(kind: str, listing: _Listing, is_meant: np.ndarray) -> str:
    numbers = np.flatnonzero(is_meant).tolist()
    if not numbers:
        return ""
    names = heapq.nsmallest(_SHOWN, map(listing.name, numbers))
    some = ", ".join(name.decode(errors="replace") for name in names)
    rest = ", …" if len(numbers) > _SHOWN else ""
    return f"{len(numbers)} {kind}: {some}{rest}"


def _arrays(splits: Mapping[str, split.Split]) -> dict[str, np.ndarray]:
    """The files of splits; those of the whole, once, where they are parts of one."""
    found: dict[str, np.ndarray] = {}
    told = set()
    for name, half in splits.items():
        whole = half.whole if isinstance(half, split.Subset) else half
        if isinstance(whole, image_files.ImageFileSplit) and id(whole) not in told:
            told.add(id(whole))
            found[f"{name}/names"] = np.frombuffer(whole.names, np.uint8)
            found[f"{name}/ends"] = whole.ends
            found[f"{name}/states"] = whole.states
    return found


def _listed(arrays: Mapping[str, np.ndarray]) -> _Listing:
    """The files of all halves as one list."""
    parts = []
    for half in sorted({name.partition("/")[0] for name in arrays}):
        names = arrays[f"{half}/names"].tobytes()
        ends, states = arrays[f"{half}/ends"], arrays[f"{half}/states"]
        plain = array.array("q", ends.astype("<i8").tobytes())
        bounds = itertools.pairwise(itertools.chain([0], plain))
        hashes = (hash(names[start:end]) for start, end in bounds)
        parts.append((names, ends, states, np.fromiter(hashes, np.int64, len(ends))))
    if not parts:
        return _Listing(b"", *(np.zeros(shape, np.int64) for shape in (0, (0, 2), 0)))
    starts = itertools.accumulate((len(names) for names, *_ in parts), initial=0)
    return _Listing(
        names=b"".join(names for names, *_ in parts),
        ends=np.concatenate(
            [e + s for (_, e, *_), s in zip(parts, starts, strict=False)]
        ),
        states=np.concatenate([states for _, _, states, _ in parts]),
        hashes=np.concatenate([hashes for *_, hashes in parts]),
    )
