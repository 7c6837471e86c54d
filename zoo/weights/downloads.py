"""Fetches the registry's files once, and keeps them: resumed, verified, unpacked.

Files are kept in `$IMAGE_MODEL_ZOO_CACHE`, or in `~/.cache/image_model_zoo`.
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
_LARGEST = 8 << 30  # bytes; no weights of ours come near it
_ATTEMPTS = 3
_PASSING = (429, 500, 502, 503, 504)  # answers that may be others in a moment


def folder() -> pathlib.Path:
    """Where downloads are kept."""
    chosen = os.environ.get("IMAGE_MODEL_ZOO_CACHE")
    return pathlib.Path(chosen or "~/.cache/image_model_zoo").expanduser()


def fetch(record: Record, *, progress: Progress | None = None) -> pathlib.Path:
    """The file of a registry's record: from the folder, or from its URL into it.

    Args:
      record: with `url`, perhaps `sha256` or `md5` (hex), and for an archive
        `member`: the file, or the prefix of the checkpoint, in it.
      progress: is told the file's name, and of how many bytes (None where that is not
        known) how many are there.

    Raises:
      ValueError: it can't be had, or is not what the registry knows; the message says
        which file to put where.
    """
    url = record["url"]
    # Of one name there may be files of several sources.
    source = hashlib.sha256(url.encode()).hexdigest()[:12]
    target = folder() / source / urllib.parse.unquote(url.rpartition("/")[2])
    is_archive = "member" in record
    last = target.with_name("unpacked") if is_archive else target
    with contextlib.nullcontext() if last.exists() else _locked(target.parent):
        if not target.exists():
            _download(url, target, record, progress or _print)
        _verify(target, target.name, record)
        return _member(target, record["member"]) if is_archive else target


@contextlib.contextmanager
def _locked(place: pathlib.Path) -> Iterator[None]:
    """One process at a time; the others then find what it fetched."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = (place / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"{place} can't be written: set IMAGE_MODEL_ZOO_CACHE to another folder."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(
    url: str, target: pathlib.Path, record: Record, progress: Progress
) -> None:
    part = target.with_name(f"{target.name}.part")
    by_hand = f"or put the file of {url} at {target}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _receive(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if attempt < _ATTEMPTS and error.code in _PASSING:
                time.sleep(attempt)
                continue
            raise ValueError(
                f"{url} answers {error.code} {error.reason}: put the file at {target}."
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if attempt == _ATTEMPTS:
                reason = getattr(error, "reason", None) or error or type(error).__name__
                raise ValueError(
                    f"The weights can't be downloaded ({reason}): try again, {by_hand}."
                ) from error
            time.sleep(attempt)
    try:
        if "member" not in record:
            weights_file.kind(part)
        elif not tarfile.is_tarfile(part):
            raise ValueError(f"{part} is no archive.")
    except (ValueError, EOFError, zlib.error) as error:
        part.unlink()
        raise ValueError(
            f"What {url} gave can't be used, and was removed: {error}"
        ) from error
    part.rename(target)
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


def _verify(target: pathlib.Path, name: str, record: Record) -> None:
    """Whoever put the file there: it must be the one that the registry knows.

    PyTorch's files have the first digits of their SHA-256 in their names.
    """
    digits = re.search(r"-([0-9a-f]{8,})\.(pth|safetensors)$", name)
    hashes = {"sha256": digits[1] if digits else None}
    hashes |= {kind: record[kind] for kind in ("sha256", "md5") if record.get(kind)}
    for kind, expected in hashes.items():
        if expected:
            with target.open("rb") as file:
                found = hashlib.file_digest(file, kind).hexdigest()
            if not found.startswith(expected):
                raise ValueError(
                    f"{target} is not the file that the registry knows: {kind} "
                    f"{found}, expected {expected}. Remove it, and try again."
                )


def _receive(url: str, part: pathlib.Path, progress: Progress) -> None:
    """Gets what `part` still lacks, of the file that it was begun with."""
    have = part.stat().st_size if part.exists() else 0
    tag = part.with_name(f"{part.name}.etag")
    request = urllib.request.Request(url, headers={"User-Agent": "image-model-zoo"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text("ascii"))
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # as long as the file, or longer: begin again
        raise ConnectionError("what was there did not fit") from error
    with answer:
        _check(answer, have)
        resumes = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumes else 0
        strong = answer.headers.get("ETag", "W/")
        if not resumes:
            tag.unlink(missing_ok=True)
        if not strong.startswith("W/"):
            tag.write_text(strong, "ascii")
        length = answer.headers.get("Content-Length")
        size = have + int(length) if length else None
        if size and size > _LARGEST:
            raise ConnectionError(f"{size} bytes are too many")
        with part.open("ab" if resumes else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(part.stem, have, size)
                if have > _LARGEST:
                    raise ConnectionError("it does not end")
            file.flush()
            os.fsync(file.fileno())
    if size is not None and have < size:
        raise ConnectionError(f"it ended after {have} of {size} bytes")


def _check(answer: typing.Any, have: int) -> None:
    """Refuses what is no file: a page of a portal, a compressed or another part."""
    kind = answer.headers.get_content_type()
    if kind.startswith("text/html"):
        raise ValueError("the answer is a web page, not a file")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the answer is compressed")
    part = answer.headers.get("Content-Range")
    if part and not part.startswith(f"bytes {have}-"):
        raise ValueError(f"the answer is another part than was asked for: {part}")


def _print(name: str, have: int, size: int | None) -> None:
    """A line that overwrites itself on a terminal; elsewhere one for each tenth."""
    done = f"{have / 1e6:.1f}" + (f" of {size / 1e6:.1f} MB" if size else " MB")
    if sys.stderr.isatty():
        end = "\n" if have == size else ""
        print(f"\rdownload {name}: {done}", end=end, file=sys.stderr, flush=True)
    elif size and have * 10 // size > (have - _CHUNK) * 10 // size:
        print(f"download {name}: {done}", file=sys.stderr, flush=True)


def _member(archive: pathlib.Path, name: str) -> pathlib.Path:
    """Unpacks the file of one name, or the files of one prefix, beside the archive.

    Only plain files are, and only to below that place, whatever else is in it.
    """
    place = archive.with_name("unpacked")
    if not place.exists():
        partial = archive.with_name("unpacked.part")
        try:
            with tarfile.open(archive) as tar:
                wanted = [info for info in tar if _is_wanted(info, name)]
                tar.extractall(partial, wanted, filter="data")
        except (gzip.BadGzipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{archive} is damaged: {error}. Remove it.") from error
        if not wanted:
            raise ValueError(f"{archive} has no {name} in it.")
        partial.rename(place)
    return place / name


def _is_wanted(info: tarfile.TarInfo, name: str) -> bool:
    path = os.path.normpath(info.name)
    belongs = path == name or path.startswith(f"{name}.")
    return belongs and info.isfile() and info.size <= _LARGEST
