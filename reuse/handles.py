"""Opens a SavedModel from a directory, an archive or a hub URL."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator

_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")  # one is needed
_KINDS = ("feature_vector", "classification")  # an export is OUT/ARCH/KIND/VERSION
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
SCHEMES = ("http://", "https://")
_COMPRESSED = "tf-hub-format=compressed"  # query of TensorFlow Hub's archives
_SIZES_FILE = ".files.json"  # in the cache: the size of each file of a model, by path
_MAX_BYTES = 16 << 30  # of an archive, and of its contents
_MAX_FILES = 10_000  # in an archive
_TIMEOUT = 30  # seconds without data
# Longest time of a download, in seconds: _GRACE + bytes received / _MIN_RATE.
_GRACE = 60
_MIN_RATE = 10_000  # bytes a second
_MAX_HEADER = 1 << 16  # bytes of a member's long name, or of its extended attributes


@contextlib.contextmanager
def open_model(path: str | os.PathLike[str], *, name: str) -> Iterator[pathlib.Path]:
    """Context manager that yields the directory of a SavedModel.

    An archive is unpacked into a temporary directory, which is deleted at the end.

    Args:
      path: a directory; a `.tar.gz`, `.tgz` or `.tar` archive; the URL of such an
        archive; or any other URL, to which `?tf-hub-format=compressed` is added, as
        tensorflow-hub does. For the directory OUT/ARCH of an export, yields its newest
        classifier.
      name: name of the caller's argument, for error messages.

    Raises:
      ValueError: there is no SavedModel, or the archive is damaged, too large, or
        would write outside its folder.
    """
    text = os.fspath(path)
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(text)
        if text.startswith(SCHEMES) or text.endswith(_ARCHIVES):
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            directory = _extract_model(text, pathlib.Path(scratch), name)
        yield _saved_model(directory, name, text)


def download_once(url: str, *, name: str) -> pathlib.Path:
    """Downloads a URL's SavedModel unless it is cached; returns its cached directory.

    The cache never expires, since a published version of a model never changes. The
    model is downloaded again if its directory, or any file in it, was removed.

    Args:
      url: as for `open_model`.
      name: name of the caller's argument, for error messages.

    Raises:
      ValueError: as for `open_model`, or the cache can't be written.
    """
    folder = cache_folder(url)
    if is_cached(url):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            directory = _extract_model(url, pathlib.Path(scratch), name)
            _move_files(_saved_model(directory, name, url), folder)
    except OSError as error:
        raise ValueError(
            f"{name} {url!r} can't be cached in {folder.parent} ({error.strerror}); "
            "set KERAS_HOME to another folder."
        ) from error
    return folder


def absolute(path: str) -> str:
    """Returns a handle for `open_model` that means the same in every folder.

    URLs lose what may be a secret: user, password and query.
    """
    if not path.startswith(SCHEMES):
        return os.path.abspath(path)
    parts = urllib.parse.urlsplit(path)
    query = parts.query if parts.query == _COMPRESSED else ""
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query=query, fragment="").geturl()


def cache_folder(url: str) -> pathlib.Path:
    """Returns the directory in which `download_once` keeps a URL's SavedModel."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home, "reuse", hashlib.sha256(url.encode()).hexdigest())


def is_cached(url: str) -> bool:
    """Returns whether the cache has all files of a URL's SavedModel, in full size."""
    folder = cache_folder(url)
    try:
        sizes = json.loads((folder / _SIZES_FILE).read_text(encoding="utf-8"))
        return sizes.items() <= _sizes(folder).items()
    except (OSError, ValueError):
        return False


def _move_files(directory: pathlib.Path, target: pathlib.Path) -> None:
    """Moves the files of a SavedModel into the cache, and the list of their sizes.

    A file that is already there is replaced atomically by an identical one, so other
    processes may read the model, or move the same files, at the same time.
    """
    sizes = _sizes(directory)
    (directory / _SIZES_FILE).write_text(json.dumps(sizes), encoding="utf-8")
    for path in (_SIZES_FILE, *sizes):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).replace(target / path)


def _sizes(directory: pathlib.Path) -> dict[str, int]:
    """Returns the size in bytes of each file but `_SIZES_FILE`, by relative path."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    sizes = {f.relative_to(directory).as_posix(): f.stat().st_size for f in files}
    sizes.pop(_SIZES_FILE, None)
    return sizes


def _extract_model(text: str, scratch: pathlib.Path, name: str) -> pathlib.Path:
    """Unpacks an archive, after downloading it if `text` is a URL.

    Returns:
      The directory of the only SavedModel in it. If it has none, or several, the
      directory with all contents of the archive.
    """
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
    models = _saved_models_below(directory)
    return models[0] if len(models) == 1 else directory


def _saved_models_below(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns the directories of all SavedModels in a directory, sorted."""
    return sorted({p.parent for file in _FILES for p in directory.glob(f"**/{file}")})


def _download(url: str, archive: pathlib.Path) -> None:
    if not url.endswith(_ARCHIVES):
        url += ("&" if "?" in url else "?") + _COMPRESSED
    request = urllib.request.Request(url, headers={"User-Agent": "image-model-zoo"})
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT) as response,
        archive.open("wb") as file,
    ):
        start = time.monotonic()
        while chunk := response.read1(1 << 18):
            file.write(chunk)
            seconds = time.monotonic() - start
            if seconds > _GRACE + file.tell() / _MIN_RATE:
                raise ValueError(f"only {file.tell()} bytes arrived in {seconds:.0f} s")
            if file.tell() > _MAX_BYTES:
                raise ValueError(f"it is larger than {_MAX_BYTES >> 30} GiB")


class _Member(tarfile.TarInfo):
    """An archive member that refuses extended headers of excessive length.

    Extended headers carry long names and other attributes. tarfile reads them into
    memory, whatever length the archive declares.
    """

    _EXTENDED = (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._EXTENDED and self.size > _MAX_HEADER:
            raise ValueError(
                f"it has a name or attributes of {self.size} bytes, more than "
                f"{_MAX_HEADER}"
            )
        return super()._proc_member(tar)  # type: ignore[misc]


def _unpack(archive: pathlib.Path, directory: pathlib.Path) -> None:
    """Unpacks an archive into `directory`; refuses all but plain files and folders."""
    directory.mkdir()
    size = 0
    with tarfile.open(archive, tarinfo=_Member) as tar:
        for number, member in enumerate(tar):
            size += member.size
            if number >= _MAX_FILES or size > _MAX_BYTES:
                raise ValueError(
                    f"it has more than {_MAX_FILES} files or {_MAX_BYTES >> 30} GiB"
                )
            _extract(tar, member, directory.resolve())


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, directory: pathlib.Path
) -> None:
    """Extracts a file or a folder without its owner, mode and time.

    Replaces `tar.extract(member, directory, filter="data")`: Python 3.11.0 to 3.11.3,
    which this project supports, have no argument `filter`.
    """
    target = (directory / member.name).resolve()
    if not target.is_relative_to(directory):
        raise ValueError(f"its member {member.name!r} leads outside its folder")
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
    elif member.isfile() and (source := tar.extractfile(member)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    else:
        raise ValueError(f"its member {member.name!r} is neither file nor folder")


def _saved_model(directory: pathlib.Path, name: str, text: str) -> pathlib.Path:
    """Returns the directory of a SavedModel, or of the newest classifier of an export.

    Args:
      directory: the given directory, or the temporary one with an archive's contents.
      name: name of the caller's argument, for error messages.
      text: the directory, archive or URL as the caller gave it.
    """
    if any((directory / file).is_file() for file in _FILES):
        return directory
    if all((directory / kind).is_dir() for kind in _KINDS):
        files = directory.glob(f"{_KINDS[-1]}/*/{_FILES[0]}")
        versions = [path.parent for path in files if path.parent.name.isdigit()]
        if versions:
            return max(versions, key=lambda path: int(path.name))
    problem, hint = "it has no saved_model.pb, .pbtxt or .cpb", ""
    if not directory.exists():
        problem = "it does not exist"
    if models := _saved_models_below(directory):
        if directory == pathlib.Path(text):
            hint = f" Did you mean {str(models[0])!r}?"
        else:
            inside = [model.relative_to(directory).as_posix() for model in models]
            problem = f"it has several: {', '.join(inside)}"
    raise ValueError(
        f"{name} must be a SavedModel (a directory, an archive or a URL), got "
        f"{text!r}: {problem}.{hint}"
    )
