"""Where a model is: its directory, an archive of it, or a hub's URL of that."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator

_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_HALVES = ("feature_vector", "classification")  # of a pair, each with its versions
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
SCHEMES = ("http://", "https://")
_LIST = ".files.json"  # in the cache, the size of each file of a model by its path
_LARGEST = 16 << 30  # bytes, of an archive and of what is in it
_MOST = 10_000  # files in an archive
_TIMEOUT = 30  # seconds without a byte
_GRACE, _SLOWEST = 60, 10_000  # seconds, and then bytes a second on average
_LONGEST_NAME = 1 << 16  # bytes, and of a file's other attributes


@contextlib.contextmanager
def open_model(path: str | os.PathLike[str], *, name: str) -> Iterator[pathlib.Path]:
    """The directory of a SavedModel; what had to be unpacked is there for a while.

    Args:
      path: a directory, a `.tar.gz` archive, or the URL of one. Of other URLs, a hub's
        handles, the compressed form is asked for, as tensorflow-hub does. Of the folder
        OUT/ARCH of an export, the newest classifier is meant.
      name: of the argument, for messages.

    Raises:
      ValueError: there is no SavedModel, or an archive that is damaged, too large, or
        would write elsewhere.
    """
    text = os.fspath(path)
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(text)
        if text.startswith(SCHEMES) or text.endswith(_ARCHIVES):
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            directory = _unpacked(text, pathlib.Path(scratch), name)
        yield _saved_model(directory, name, text)


def cached_folder(url: str, *, name: str) -> pathlib.Path:
    """The directory of a URL's SavedModel, which is downloaded once and then kept.

    Published versions never change; remove the directory to have it downloaded again.
    If a cleaner removed files from the directory, the model is downloaded again.

    Args:
      url: as for `opened`.
      name: of the argument, for messages.

    Raises:
      ValueError: as `opened`, or it can't be written to the cache.
    """
    place = cache_folder(url)
    if is_cached(url):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            directory = _unpacked(url, pathlib.Path(scratch), name)
            _move_files(_saved_model(directory, name, url), place)
    except OSError as error:
        raise ValueError(
            f"{name} {url!r} can't be kept in {place.parent} ({error.strerror}); "
            "KERAS_HOME names another folder."
        ) from error
    return place


def cache_folder(url: str) -> pathlib.Path:
    """Where `kept` has a URL's SavedModel, or would have it."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home, "reuse", hashlib.sha256(url.encode()).hexdigest())


def is_cached(url: str) -> bool:
    """Whether the cache has every file of a URL's SavedModel, in its full size."""
    place = cache_folder(url)
    try:
        listed = json.loads((place / _LIST).read_text(encoding="utf-8"))
        return listed.items() <= _sizes(place).items()
    except (OSError, ValueError):
        return False


def _move_files(directory: pathlib.Path, place: pathlib.Path) -> None:
    """Moves a SavedModel into the cache, with the list of its files.

    Each file takes the place of an equal one in a single step, so other processes may
    read the model, or move the same files, at the same time.
    """
    sizes = _sizes(directory)
    (directory / _LIST).write_text(json.dumps(sizes), encoding="utf-8")
    for path in (_LIST, *sizes):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).replace(place / path)


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    """Bytes of each file below a directory, by its path there; without the list."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    sizes = {f.relative_to(directory).as_posix(): f.stat().st_size for f in files}
    sizes.pop(_LIST, None)
    return sizes


def _unpacked(text: str, scratch: pathlib.Path, name: str) -> pathlib.Path:
    """The one SavedModel of an archive or of a URL, or all that is there instead."""
    directory, archive = scratch / "model", pathlib.Path(text)
    try:
        if text.startswith(SCHEMES):
            archive = scratch / "archive"
            _download(text, archive)
        _unpack(archive, directory)
    except (
        *(OSError, ValueError, EOFError),
        *(tarfile.TarError, zlib.error, http.client.HTTPException),
        *(RecursionError, MemoryError),
    ) as error:
        raise ValueError(f"{name} {text!r} can't be used: {error}") from error
    inner = _inner(directory)
    return inner[0] if len(inner) == 1 else directory


def _inner(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.parent for path in directory.glob("**/saved_model.pb"))


def _download(url: str, archive: pathlib.Path) -> None:
    if not url.endswith(_ARCHIVES):
        url += ("&" if "?" in url else "?") + "tf-hub-format=compressed"
    request = urllib.request.Request(url, headers={"User-Agent": "image-model-zoo"})
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT) as answer,
        archive.open("wb") as file,
    ):
        start = time.monotonic()
        while chunk := answer.read1(1 << 18):
            file.write(chunk)
            spent = time.monotonic() - start
            if spent > _GRACE + file.tell() / _SLOWEST:
                raise ValueError(f"after {spent:.0f} s, only {file.tell()} bytes came")
            if file.tell() > _LARGEST:
                raise ValueError(f"it is larger than {_LARGEST >> 30} GiB")


class _Member(tarfile.TarInfo):
    """One whose name and attributes are read only if they are of sensible length.

    tarfile reads them into memory, whatever length the archive says they have.
    """

    _LONG = (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._LONG and self.size > _LONGEST_NAME:
            raise ValueError(f"it has a name of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _unpack(archive: pathlib.Path, directory: pathlib.Path) -> None:
    """Unpacks plain files and folders below `directory`, or raises."""
    directory.mkdir()
    size = 0
    with tarfile.open(archive, tarinfo=_Member) as tar:
        for number, member in enumerate(tar):
            size += member.size
            if number >= _MOST or size > _LARGEST:
                raise ValueError(
                    f"it holds more than {_MOST} files or {_LARGEST >> 30} GiB"
                )
            if member.name.startswith(("/", "\\")):
                raise ValueError(f"{member.name!r} in it is an absolute path")
            if not (member.isfile() or member.isdir()):
                raise ValueError(f"{member.name!r} in it is neither file nor folder")
            tar.extract(member, directory, filter="data")


def _saved_model(directory: pathlib.Path, name: str, given: str) -> pathlib.Path:
    """The directory, if it holds a SavedModel, whole or not."""
    if any((directory / file).is_file() for file in _FILES):
        return directory
    if all((directory / half).is_dir() for half in _HALVES):
        inner = directory.glob(f"{_HALVES[-1]}/*/{_FILES[0]}")
        versions = [path.parent for path in inner if path.parent.name.isdigit()]
        if versions:
            return max(versions, key=lambda path: int(path.name))
    others = [str(other) for other in _inner(directory) if other != directory]
    hint = f" Did you mean {others[0]!r}?" if others else ""
    raise ValueError(
        f"{name} must be the directory of a SavedModel, got {given!r}: it has no "
        f"{_FILES[0]}.{hint}"
    )
