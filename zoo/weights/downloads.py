"""Downloads weights files into a cache: resumes, verifies and unpacks them.

The cache is `$IMAGE_MODEL_ZOO_CACHE`, or `~/.cache/image_model_zoo` by default.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import sys
import tarfile
import time
import typing
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator

from zoo.weights import weights_file

Record = dict[str, typing.Any]
Progress = Callable[[str, int, int | None], None]

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte
_LARGEST = 8 << 30  # bytes; far more than any weights file of the registry has
_ATTEMPTS = 3
_RETRIED_STATUSES = (429, 500, 502, 503, 504)


def folder() -> pathlib.Path:
    """Returns the cache folder."""
    configured = os.environ.get("IMAGE_MODEL_ZOO_CACHE")
    return pathlib.Path(configured or "~/.cache/image_model_zoo").expanduser()


def fetch(record: Record, *, progress: Progress | None = None) -> pathlib.Path:
    """Returns the path of a cached weights file, after downloading it if needed.

    Args:
      record: the registry's record. It has a `url`, may have a `sha256` or `md5` (hex),
        and for an archive has a `member`: the file, or the checkpoint prefix, in it.
      progress: function called during the download with the file's name, the bytes
        received so far, and the total number of bytes or None if it is unknown.

    Raises:
      ValueError: the download fails, or the hash of the file is not the registry's. The
        message says which file to put where by hand.
    """
    url = record["url"]
    # Files from different sources may have the same name.
    source = hashlib.sha256(url.encode()).hexdigest()[:12]
    target = folder() / source / urllib.parse.unquote(url.rpartition("/")[2])
    is_archive = "member" in record
    result = target.with_name("unpacked") if is_archive else target
    with contextlib.nullcontext() if result.exists() else _locked(target.parent):
        if not target.exists():
            _download(url, target, record, progress or _print_progress)
        _verify(target, target.name, record)
        return _unpack(target, record["member"]) if is_archive else target


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> Iterator[None]:
    """Locks a folder of the cache, so that only one process downloads into it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"{directory} can't be written: set IMAGE_MODEL_ZOO_CACHE to another "
            "folder."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(
    url: str, target: pathlib.Path, record: Record, progress: Progress
) -> None:
    part = target.with_name(f"{target.name}.part")
    alternative = f"or put the file of {url} at {target}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _receive(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if attempt < _ATTEMPTS and error.code in _RETRIED_STATUSES:
                time.sleep(attempt)
                continue
            raise ValueError(
                f"{url} answers {error.code} {error.reason}: download the file by "
                f"other means, and put it at {target}."
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if attempt == _ATTEMPTS:
                reason = getattr(error, "reason", None) or error or type(error).__name__
                raise ValueError(
                    f"The weights can't be downloaded ({reason}): try again, "
                    f"{alternative}."
                ) from error
            time.sleep(attempt)
    try:
        if "member" not in record:
            weights_file.kind(part)
        elif not tarfile.is_tarfile(part):
            raise ValueError(f"{part} is not a tar archive.")
    except (ValueError, EOFError, zlib.error) as error:
        part.unlink()
        raise ValueError(
            f"The file from {url} is not usable and was removed: {error}"
        ) from error
    part.rename(target)
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


def _verify(target: pathlib.Path, name: str, record: Record) -> None:
    """Checks the hash of a file, which the user may have put there.

    The names of PyTorch's files contain the first digits of their SHA-256.

    Raises:
      ValueError: the hash is not the registry's.
    """
    digits = re.search(r"-([0-9a-f]{8,})\.(pth|safetensors)$", name)
    hashes = {"sha256": digits[1] if digits else None}
    hashes |= {kind: record[kind] for kind in ("sha256", "md5") if record.get(kind)}
    for kind, expected in hashes.items():
        if expected:
            with target.open("rb") as file:
                actual = hashlib.file_digest(file, kind).hexdigest()
            if not actual.startswith(expected):
                raise ValueError(
                    f"{target} is not the file that the registry describes: {kind} "
                    f"{actual}, expected {expected}. Remove it, and try again."
                )


def _receive(url: str, part: pathlib.Path, progress: Progress) -> None:
    """Downloads a file to `part`, resuming if `part` holds the beginning of it."""
    received = part.stat().st_size if part.exists() else 0
    etag_file = part.with_name(f"{part.name}.etag")
    request = urllib.request.Request(url, headers={"User-Agent": "image-model-zoo"})
    if received:
        request.add_header("Range", f"bytes={received}-")
        if etag_file.exists():
            request.add_header("If-Range", etag_file.read_text("ascii"))
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # It is not shorter than the file: start again.
        raise ConnectionError("the partial download was not of this file") from error
    with response:
        _check_response(response, received)
        resumes = response.status == http.client.PARTIAL_CONTENT
        received = received if resumes else 0
        etag = response.headers.get("ETag", "W/")
        if not resumes:
            etag_file.unlink(missing_ok=True)
        if not etag.startswith("W/"):  # If-Range needs a strong ETag.
            etag_file.write_text(etag, "ascii")
        length = response.headers.get("Content-Length")
        size = received + int(length) if length else None
        if size and size > _LARGEST:
            raise ConnectionError(f"its size of {size} bytes is over {_LARGEST}")
        with part.open("ab" if resumes else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                progress(part.stem, received, size)
                if received > _LARGEST:
                    raise ConnectionError(f"it has more than {_LARGEST} bytes")
            file.flush()
            os.fsync(file.fileno())
    if size is not None and received < size:
        raise ConnectionError(f"it ended after {received} of {size} bytes")


def _check_response(response: typing.Any, received: int) -> None:
    """Raises ValueError for a web page, compressed data or the wrong byte range."""
    content_type = response.headers.get_content_type()
    if content_type.startswith("text/html"):
        raise ValueError("the answer is a web page, not a file")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the answer is compressed")
    content_range = response.headers.get("Content-Range")
    if content_range and not content_range.startswith(f"bytes {received}-"):
        raise ValueError(
            f"the answer has the range {content_range!r}, but bytes from {received} on "
            "were requested"
        )


def _print_progress(name: str, received: int, size: int | None) -> None:
    """Prints progress: on a terminal continuously on one line, else every 10%."""
    done = f"{received / 1e6:.1f}" + (f" of {size / 1e6:.1f} MB" if size else " MB")
    if sys.stderr.isatty():
        end = "\n" if received == size else ""
        print(f"\rdownload {name}: {done}", end=end, file=sys.stderr, flush=True)
    elif size and received * 10 // size > (received - _CHUNK) * 10 // size:
        print(f"download {name}: {done}", file=sys.stderr, flush=True)


def _unpack(archive: pathlib.Path, name: str) -> pathlib.Path:
    """Unpacks the file `name`, or the files with this prefix, next to the archive.

    Only regular files are extracted, and only into the folder `unpacked`.

    Returns:
      The path of the file, or the prefix of the files.

    Raises:
      ValueError: the archive is damaged, or has no such file.
    """
    unpacked = archive.with_name("unpacked")
    if not unpacked.exists():
        partial = archive.with_name("unpacked.part")
        try:
            with tarfile.open(archive) as tar:
                members = [info for info in tar if _has_prefix(info, name)]
                for member in members:
                    source = tar.extractfile(member)
                    assert source is not None  # since it is a regular file
                    target = partial / os.path.normpath(member.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with source, target.open("wb") as file:
                        shutil.copyfileobj(source, file)
        except (gzip.BadGzipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{archive} is damaged: {error}. Remove it.") from error
        if not members:
            raise ValueError(f"{archive} has no {name} in it.")
        partial.rename(unpacked)
    return unpacked / name


def _has_prefix(info: tarfile.TarInfo, name: str) -> bool:
    """Returns whether a member is a regular file called `name` or `name.…`."""
    path = os.path.normpath(info.name)
    matches = path == name or path.startswith(f"{name}.")
    return matches and info.isfile() and info.size <= _LARGEST
