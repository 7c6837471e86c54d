"""Records the image files of a training run, to report changes when it resumes."""

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

from foundation import atomic
from training.data import image_files, split

_SHOWN = 3  # files per kind of change


def save(path: pathlib.Path, splits: Mapping[str, split.Split]) -> None:
    """Writes the names, sizes and modification times of all files, atomically.

    Raises:
      OSError: the list can't be written.
    """
    file = io.BytesIO()
    np.savez_compressed(file, **_arrays(splits))  # type: ignore[arg-type]
    atomic.write_file(path, file.getvalue())


def difference(path: pathlib.Path, splits: Mapping[str, split.Split]) -> str:
    """Describes which files were added, removed or changed since `save`.

    A file has changed if its size or its modification time differs. The result is empty
    if nothing changed, or if the list can't be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            before = _listing({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return ""
    now = _listing(_arrays(splits))
    existed = np.isin(now.hashes, before.hashes)
    still_exists = np.isin(before.hashes, now.hashes)
    # Look up the previous state of each file that existed: `before` is not sorted.
    order = np.argsort(before.hashes)
    positions = np.searchsorted(before.hashes, now.hashes[existed], sorter=order)
    old_states = before.states[order[positions]]
    is_changed = existed.copy()
    is_changed[existed] = (now.states[existed] != old_states).any(axis=1)
    messages = (
        _describe("added", now, ~existed),
        _describe("removed", before, ~still_exists),
        _describe("changed", now, is_changed),
    )
    return "; ".join(filter(None, messages))


def explain(path: pathlib.Path, splits: Mapping[str, split.Split]) -> str:
    """Explains why the fingerprints of the splits differ from those at `save`.

    The result is empty if the splits are not image files.
    """
    changes = difference(path, splits)
    if not changes and _arrays(splits):
        return (
            "no file was added, removed or changed, but the labels or the splits differ"
        )
    return changes


class _Listing(typing.NamedTuple):
    """A compact list of files; there may be millions.

    Attributes:
      names: concatenated names of the files.
      ends: end of each name in `names`, [N].
      states: size and modification time of each file, [N, 2].
      hashes: hashes of the names, [N] int64, comparable only within one process.
    """

    names: bytes
    ends: np.ndarray
    states: np.ndarray
    hashes: np.ndarray

    def name(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.names[start : int(self.ends[number])]


def _describe(kind: str, listing: _Listing, selected: np.ndarray) -> str:
    numbers = np.flatnonzero(selected).tolist()
    if not numbers:
        return ""
    names = heapq.nsmallest(_SHOWN, map(listing.name, numbers))
    shown = ", ".join(name.decode(errors="replace") for name in names)
    rest = ", …" if len(numbers) > _SHOWN else ""
    return f"{len(numbers)} {kind}: {shown}{rest}"


def _arrays(splits: Mapping[str, split.Split]) -> dict[str, np.ndarray]:
    """Returns the files of the splits as arrays for `np.savez`.

    If two splits are subsets of one larger split, its files are included once.
    """
    arrays: dict[str, np.ndarray] = {}
    seen = set()
    for name, examples in splits.items():
        whole = examples.whole if isinstance(examples, split.Subset) else examples
        if isinstance(whole, image_files.ImageFileSplit) and id(whole) not in seen:
            seen.add(id(whole))
            arrays[f"{name}/names"] = np.frombuffer(whole.names, np.uint8)
            arrays[f"{name}/ends"] = whole.ends
            arrays[f"{name}/states"] = whole.states
    return arrays


def _listing(arrays: Mapping[str, np.ndarray]) -> _Listing:
    """Returns the files of all splits as one list."""
    parts = []
    for split_name in sorted({name.partition("/")[0] for name in arrays}):
        names = arrays[f"{split_name}/names"].tobytes()
        ends, states = arrays[f"{split_name}/ends"], arrays[f"{split_name}/states"]
        # An array yields Python integers, which slice faster than NumPy's. A list of
        # all of them would take more memory.
        ends_array = array.array("q", ends.astype("<i8").tobytes())
        bounds = itertools.pairwise(itertools.chain([0], ends_array))
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
