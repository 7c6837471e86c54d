"""Reads a text file that lists images, one path or URI a line, without labels."""

from __future__ import annotations

import array
import codecs
import dataclasses
import functools
import os
import stat
import urllib.parse
from collections.abc import Iterator

import numpy as np

from foundation import daemon_threads
from training.data import remote_files, split

_THREADS = 16  # of a process: the latency of a URL is long
_MAX_LINE = 1 << 16  # bytes
_MAX_SHOWN = 200  # characters of a line in a message
_FILE = "file"  # a scheme
_NO_STATE = (-1, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListedImages(split.Split):
    """Images of a list. Each is read when it is needed.

    Attributes:
      folder: folder of the list, to which paths are relative.
      lines: concatenated lines, UTF-8.
      ends: end of each line in `lines`, [N] int64.
      suffixes: line numbers to add to the keys of URIs that differ in their query or
        their user only, [N] int64; 0 for none.
      first_file: path of the first image that is a file here; empty if none is.
      failures: why images could not be read, by number.
    """

    folder: str
    lines: bytearray
    ends: np.ndarray
    suffixes: np.ndarray
    first_file: str
    failures: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)

    image_format = split.ENCODED

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The pipeline fills a batch up with copies of one example.
        distinct, positions = np.unique(numbers, return_inverse=True)
        images = np.empty(len(distinct), object)
        images[:] = _pool(os.getpid()).map(self._read, distinct.tolist())
        return images[positions], self.labels_of(numbers)

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        return np.full(len(numbers), -1, np.int64)

    def all_labels(self) -> np.ndarray:
        return self.labels_of(np.arange(self.size))

    def failure(self, number: int) -> str:
        return self.failures.get(number, "")

    @property
    def first_path(self) -> str:
        return self.first_file

    def describe(self, number: int) -> str:
        line = self._line(number)
        is_uri = remote_files.scheme_of(line)
        return self.key(number) if is_uri else os.path.join(self.folder, line)

    def key(self, number: int) -> str:
        """Returns the line; of a URI without credentials and query."""
        line = self._line(number)
        if not remote_files.scheme_of(line):
            return line
        suffix = self.suffixes[number]
        return remote_files.public(line) + (f"#line={suffix}" if suffix else "")

    def _line(self, number: int) -> str:
        start = int(self.ends[number - 1]) if number else 0
        return self.lines[start : int(self.ends[number])].decode("utf-8")

    def _read(self, number: int) -> bytes:
        """Returns the bytes of an image; empty if it can't be read."""
        line = self._line(number)
        try:
            path = _path(self.folder, line)
            data = remote_files.read(line) if path is None else _read_file(path)
        except ValueError as error:
            self.failures[number] = f"{self.describe(number)}: {error}."
            return b""
        self.failures.pop(number, None)
        return data


def open_images(file: str, source: str) -> split.Split:
    """Opens all images of a list.

    Each line is a path, absolute or relative to the list's folder, or a URI. Blank
    lines are left out. There are no comments, because a path may begin with any
    character. A line that is there twice is two images. What can't be read is an
    unreadable image, unless no line can be read.

    Args:
      file: a text file, UTF-8.
      source: value of `--data`.

    Raises:
      ValueError: the list is not UTF-8 text, is empty, or none of its lines can be
        read; the message is one line.
      ImportError: a package is missing.
    """
    collector = _Collector(file)
    for number, line in _lines(file):
        collector.add(number, line)
    return collector.build_split(source)


class _Collector:
    """Collects the lines of a list and builds a `ListedImages`.

    Args:
      file: the list.
    """

    def __init__(self, file: str) -> None:
        self._file, self._folder = file, os.path.dirname(file)
        self._lines = bytearray()
        self._ends, self._states = array.array("q"), array.array("q")
        self._hashes, self._suffixes = array.array("q"), array.array("q")
        self._owners: dict[int, int] = {}  # hash of a key -> hash of its first URI
        self._first_lines: dict[int, int] = {}  # hash of another URI -> its line number
        self._schemes: set[str] = set()
        self._first_file = self._first_problem = ""
        self._problems = 0

    def add(self, number: int, line: str) -> None:
        """Adds a line.

        Raises:
          ImportError: a package is missing.
        """
        self._lines += line.encode("utf-8")
        self._ends.append(len(self._lines))
        self._hashes.append(hash(line))
        scheme = remote_files.scheme_of(line)
        self._suffixes.append(self._suffix(number, line) if scheme else 0)
        if scheme in remote_files.STORES and scheme not in self._schemes:
            if package := remote_files.missing_package(scheme):
                raise ImportError(
                    f"{self._file}, line {number}: {scheme}:// needs {package}"
                )
            self._schemes.add(scheme)
        state = _NO_STATE
        try:
            path = _path(self._folder, line)
            if path is not None:
                state = _state(path)
                self._first_file = self._first_file or path
        except ValueError as error:
            self._problems += 1
            shown = (remote_files.public(line) if scheme else line)[:_MAX_SHOWN]
            self._first_problem = (
                self._first_problem or f"line {number}, {shown}: {error}"
            )
        self._states.extend(state)

    def _suffix(self, number: int, uri: str) -> int:
        """Returns what `ListedImages.suffixes` has for a URI."""
        owner = self._owners.setdefault(hash(remote_files.public(uri)), hash(uri))
        if owner == hash(uri):
            return 0
        return self._first_lines.setdefault(hash(uri), number)

    def build_split(self, source: str) -> ListedImages:
        """Returns all added lines as a split.

        The fingerprint is a hash of the lines, and of the sizes and modification times
        of files.

        Raises:
          ValueError: there are none, or none can be read.
        """
        count = len(self._ends)
        if not count:
            raise ValueError(f"{self._file} lists no images.")
        if self._problems == count:
            raise ValueError(
                f"{self._file}: none of its {count} images can be read. Paths are "
                f"relative to {self._folder or 'this folder'}; {self._first_problem}."
            )
        repeated = count - np.unique(self._hashes).size
        notes = []
        if self._problems:
            notes.append(
                f"{self._problems} of {count} images can't be read: "
                f"{self._first_problem}"
            )
        if repeated:
            notes.append(f"repeated lines: {repeated}; each is an image of its own")
        ends = np.frombuffer(self._ends, np.int64)
        return ListedImages(
            source=source,
            name=split.ALL,
            size=count,
            has_labels=False,
            fingerprint=split.fingerprint([self._lines, ends, self._states]),
            notes=tuple(notes),
            folder=self._folder,
            lines=self._lines,
            ends=ends,
            suffixes=np.frombuffer(self._suffixes, np.int64),
            first_file=self._first_file,
        )


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, with their numbers from 1.

    Raises:
      ValueError: the file can't be read, or is not UTF-8 text.
    """
    try:
        with open(file, "rb") as opened:
            read_line = functools.partial(opened.readline, _MAX_LINE)
            for number, data in enumerate(iter(read_line, b""), 1):
                if number == 1:
                    data = data.removeprefix(codecs.BOM_UTF8)
                line = _decoded(data, f"{file}, line {number}").rstrip("\r\n")
                stripped = line.strip()
                if stripped:
                    is_uri = remote_files.scheme_of(stripped)
                    yield number, stripped if is_uri else line
    except OSError as error:
        raise ValueError(f"--data: {file}: {error.strerror}.") from error


def _decoded(data: bytes, where: str) -> str:
    """Decodes a line; raises ValueError if it is not text."""
    if len(data) == _MAX_LINE:
        raise ValueError(
            f"{where} has {_MAX_LINE} bytes or more, unlike a path or URI."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: save the list as UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"{where} has a NUL byte: it is not a line of text.")
    return text


def _path(folder: str, line: str) -> str | None:
    """Returns the path of an image; None if it is read by its URI.

    Raises:
      ValueError: such URIs are not supported; the message is the reason.
    """
    scheme = remote_files.scheme_of(line)
    if not scheme:
        return os.path.join(folder, line)
    if scheme in remote_files.WEB or scheme in remote_files.STORES:
        return None
    if scheme != _FILE:
        schemes = (_FILE, *remote_files.WEB, *remote_files.STORES)
        raise ValueError(f"{scheme}:// is not one of {', '.join(schemes)}")
    host, slash, path = line.partition("://")[2].partition("/")
    if host not in ("", "localhost") or not slash:
        raise ValueError("it must begin with file:///")
    return os.fsdecode(urllib.parse.unquote_to_bytes(f"/{path}"))


def _state(path: str) -> tuple[int, int]:
    """Returns the size and modification time of a file.

    Raises:
      ValueError: it is not a file; the message is the reason.
    """
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("it is missing") from None
    except OSError as error:
        raise ValueError(error.strerror) from error
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "no regular file"
        raise ValueError(f"it is {kind}")
    return state.st_size, state.st_mtime_ns


def _read_file(path: str) -> bytes:
    """Reads a file; raises ValueError with the reason if that fails."""
    _state(path)  # opening a pipe would wait
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise ValueError(error.strerror) from error


@functools.cache
def _pool(process: int) -> daemon_threads.Pool:
    """Returns the threads of a process; a fork has none of its parent's."""
    del process
    return daemon_threads.Pool(_THREADS, "image_list")
