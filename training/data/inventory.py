"""What a training's data were, to say what has changed when it goes on."""

from __future__ import annotations

import io
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from training.data import image_files, split
from zoo.weights import own

_SHOWN = 3  # files of each kind


def save(path: pathlib.Path, splits: Mapping[str, split.Split]) -> None:
    """Writes the files of splits with their sizes and times; whole, or not at all.

    Raises:
      OSError: it can't be written.
    """
    file = io.BytesIO()
    np.savez_compressed(file, **_arrays(splits))  # type: ignore[arg-type]
    own.replace(path, file.getvalue())


def difference(path: pathlib.Path, splits: Mapping[str, split.Split]) -> str:
    """Which files were added, removed or changed since `save`; "" where that is open.

    A file is changed if its size or the time of its last change is another.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            before = _known({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return ""
    now = _known(_arrays(splits))
    kinds = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(n for n in now.keys() & before.keys() if now[n] != before[n]),
    }
    return "; ".join(_told(kind, names) for kind, names in kinds.items() if names)


def _told(kind: str, names: list[bytes]) -> str:
    some = ", ".join(name.decode(errors="replace") for name in names[:_SHOWN])
    rest = ", …" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {some}{rest}"


def _arrays(splits: Mapping[str, split.Split]) -> dict[str, np.ndarray]:
    """The files of splits; those of the whole, once, where they are parts of one."""
    found: dict[str, np.ndarray] = {}
    told = set()
    for name, half in splits.items():
        whole = half.whole if isinstance(half, split.Part) else half
        if isinstance(whole, image_files.Files) and id(whole) not in told:
            told.add(id(whole))
            found[f"{name}/names"] = np.frombuffer(whole.names, np.uint8)
            found[f"{name}/ends"] = whole.ends
            found[f"{name}/states"] = whole.states
    return found


def _known(arrays: Mapping[str, np.ndarray]) -> dict[bytes, tuple[int, int]]:
    """Size and time of each file, by name."""
    found: dict[bytes, tuple[int, int]] = {}
    for half in {name.partition("/")[0] for name in arrays}:
        names = arrays[f"{half}/names"].tobytes()
        ends = arrays[f"{half}/ends"].tolist()
        starts = [0, *ends[:-1]]
        for start, end, state in zip(
            starts, ends, arrays[f"{half}/states"].tolist(), strict=True
        ):
            found[names[start:end]] = tuple(state)
    return found
