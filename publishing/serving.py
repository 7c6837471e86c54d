"""Serves a hub's folder over HTTP, read-only, and a site of documentation beside it.

Of the hub it gives what its index names, and the index: no other path leads anywhere.
"""

from __future__ import annotations

import dataclasses
import email.utils
import http
import http.server
import os
import pathlib
import re
import socketserver
import stat
import threading
import urllib.parse
from typing import BinaryIO

from exporters import manifest
from publishing import hub_index

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_ARCHIVE, _SUFFIX = "application/gzip", ".tar.gz"
_OTHER = "application/octet-stream"
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TIMEOUT = 60  # seconds in which a client takes not one byte, or says nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What a path leads to.

    Attributes:
      file: open.
      size: in bytes.
      etag: changes with the contents.
      headers: further ones.
    """

    file: BinaryIO
    size: int
    etag: str
    headers: dict[str, str]


class Server(http.server.ThreadingHTTPServer):
    """Serves `hub`, and where that has nothing, `site`.

    Args:
      address: host and port; 0 is any free port.
      hub: the folder of a hub.
      site: a folder of pages, or None.

    Raises:
      OSError: the address can't be had.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], hub: pathlib.Path, site: pathlib.Path | None
    ):
        self.hub = hub
        self.site = site
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] = ()
        self._files: dict[str, manifest.JsonObject] = {}
        self._handles: frozenset[str] = frozenset()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Binds without asking a name server what this host is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()

    def find(self, parts: list[str]) -> Found | None:
        """The file that a path's parts lead to, if any."""
        path = "/".join(parts)
        files, handles = self._published()
        if path.removesuffix(_SUFFIX) in handles:  # its documents call it so
            path = path.removesuffix(_SUFFIX)
            parts = path.split("/")
        if path in files:
            headers = {"Cache-Control": _FOREVER}
            if path in handles:
                name = f"{'-'.join(parts)}{_SUFFIX}"
                headers["Content-Type"] = _ARCHIVE
                headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return _opened(self.hub, parts, headers, etag=files[path]["sha256"])
        if path == hub_index.NAME:
            return _opened(self.hub, parts, {"Cache-Control": _ASK_AGAIN})
        if self.site:
            return _opened(self.site, parts, {"Cache-Control": _ASK_AGAIN})
        return None

    def has_folder(self, parts: list[str]) -> bool:
        """Whether the site has such a folder, with a page in it."""
        found = _opened(self.site, [*parts, "index.html"], {}) if self.site else None
        if found:
            found.file.close()
        return found is not None

    def _published(self) -> tuple[dict[str, manifest.JsonObject], frozenset[str]]:
        """The files and handles of the index, read again when it was replaced."""
        with self._lock:
            try:
                seen = (self.hub / hub_index.NAME).stat()
                stamp = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
                if stamp != self._stamp:
                    models = hub_index.read(self.hub)
                    self._files, self._handles = (
                        hub_index.files(models),
                        frozenset(models),
                    )
                    self._stamp = stamp
            except FileNotFoundError:
                self._files, self._handles, self._stamp = {}, frozenset(), ()
            return self._files, self._handles


def _opened(
    root: pathlib.Path, parts: list[str], headers: dict[str, str], *, etag: str = ""
) -> Found | None:
    """A plain file below `root`; no part of the way may be a link."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(name, flags, dir_fd=here)
            os.close(here)
            here = inner
        # Not to block: a pipe would be opened only when somebody writes into it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(parts[-1], flags, dir_fd=here)
    except (OSError, ValueError):
        return None
    finally:
        os.close(here)
    seen = os.fstat(handle)
    if not stat.S_ISREG(seen.st_mode):
        os.close(handle)
        return None
    kind = _TYPES.get(pathlib.PurePosixPath(parts[-1]).suffix.lower(), _OTHER)
    return Found(
        file=open(handle, "rb", buffering=0),
        size=seen.st_size,
        etag=f'"{etag or f"{seen.st_mtime_ns:x}-{seen.st_size:x}"}"',
        headers={
            "Content-Type": kind,
            "Last-Modified": email.utils.formatdate(seen.st_mtime, usegmt=True),
            **headers,
        },
    )


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT

    def version_string(self) -> str:
        return "image-model-zoo"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _refuse_method(self) -> None:
        self._refuse(http.HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _answer(self, *, with_body: bool) -> None:
        if {"Content-Length", "Transfer-Encoding"} & set(self.headers):
            self.close_connection = True  # nobody reads what comes with it
        target, _, query = self.path.partition("?")
        wanted = urllib.parse.parse_qs(query).get("tf-hub-format", ["compressed"])
        parts = path_parts(target)
        if parts is None:
            return self._refuse(http.HTTPStatus.NOT_FOUND)
        if wanted != ["compressed"]:
            return self._refuse(http.HTTPStatus.NOT_ACCEPTABLE)
        try:
            found = self.server.find(parts)
        except (OSError, ValueError) as error:  # the index is damaged, or unreadable
            self.log_error("%s", error)
            return self._refuse(http.HTTPStatus.INTERNAL_SERVER_ERROR)
        if found:
            with found.file:
                return self._send(found, with_body=with_body)
        if not target.endswith("/") and self.server.has_folder(parts):
            # From the parts: a path that begins with // would lead to another host.
            place = "".join(f"/{urllib.parse.quote(part)}" for part in parts)
            return self._refuse(
                http.HTTPStatus.MOVED_PERMANENTLY, {"Location": f"{place}/"}
            )
        return self._refuse(http.HTTPStatus.NOT_FOUND)

    def _send(self, found: Found, *, with_body: bool) -> None:
        headers = {
            **found.headers,
            "ETag": found.etag,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
        }
        if _names(self.headers.get("If-None-Match", ""), found.etag):
            return self._head(http.HTTPStatus.NOT_MODIFIED, headers)
        first, end = 0, found.size
        status = http.HTTPStatus.OK
        condition = self.headers.get("If-Range", found.etag)
        if condition in (found.etag, found.headers["Last-Modified"]):
            part = _part(self.headers.get("Range", ""), found.size)
            if part:
                first, end = part
                if first >= end:
                    size = {"Content-Range": f"bytes */{found.size}"}
                    return self._refuse(
                        http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, size
                    )
                status = http.HTTPStatus.PARTIAL_CONTENT
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{found.size}"
        headers["Content-Length"] = str(end - first)
        self._head(status, headers)
        if with_body and end > first:
            sent = self.connection.sendfile(found.file, first, end - first)
            self.close_connection |= sent != end - first  # it was cut short meanwhile

    def _head(self, status: http.HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(
        self, status: http.HTTPStatus, headers: dict[str, str] | None = None
    ) -> None:
        """Answers with a line that repeats nothing of what was asked."""
        body = f"{status.value} {status.phrase}\n".encode()
        self.close_connection |= self.command not in ("GET", "HEAD")
        plain = {"Content-Type": _TYPES[".txt"], "Content-Length": str(len(body))}
        if self.close_connection:
            plain["Connection"] = "close"
        self._head(status, {**plain, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        """Also ends where the client is gone."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def path_parts(target: str) -> list[str] | None:
    """The names in a request's path; None if they can't be those of a file.

    The last of a path that ends in `/` is `index.html`.
    """
    try:
        path = urllib.parse.unquote(target.partition("#")[0], errors="strict")
    except UnicodeDecodeError:
        return None
    if not path.startswith("/") or not path.isprintable() or "\\" in path:
        return None
    *parts, last = path[1:].split("/")
    parts.append(last or "index.html")
    return None if any(not p or p.startswith(".") for p in parts) else parts


def _names(condition: str, etag: str) -> bool:
    """Whether a list of tags has this one in it."""
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return etag in tags or tags == ["*"]


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """First byte and end of the range that is asked for; None for the whole file."""
    match = _RANGE.fullmatch(wanted.strip())
    if not match or match.groups() == ("", ""):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    if not match[2]:
        return first, size
    last = int(match[2])
    return None if last < first else (first, min(last + 1, size))


def address(server: Server) -> str:
    """The URL at which a server is found."""
    return f"http://{server.server_name}:{server.server_port}/"
