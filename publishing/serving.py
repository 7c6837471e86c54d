"""Serves a hub's folder over HTTP, read-only, and optionally a documentation site.

Of the hub's folder, it serves only the index and the files in the index. Pages of the
hub get a content security policy; each page has a stricter one of its own.
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
import urllib.parse
from typing import BinaryIO

from publishing import hub_index, hub_site

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
_ARCHIVE_TYPE, _ARCHIVE_SUFFIX = "application/gzip", ".tar.gz"
_OTHER_TYPE = "application/octet-stream"
_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# For the hub's files. Scripts have the policy of pages, as workers take their own.
_PAGE_SUFFIXES = ("/index.html", ".js", ".mjs")
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; "
        "base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    # Threads of WebAssembly need pages that are isolated from other origins.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_FILE_HEADERS = {  # also for pages of earlier programs, which have styles inside
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "frame-ancestors 'none'; sandbox"
    )
}
_CACHE_FOREVER = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TIMEOUT = 60  # seconds without a byte sent or received


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenFile:
    """An open file to send as an answer.

    Attributes:
      file: open for reading.
      size: in bytes.
      etag: value of the ETag header; it changes with the contents.
      headers: other HTTP headers.
    """

    file: BinaryIO
    size: int
    etag: str
    headers: dict[str, str]


class Server(http.server.ThreadingHTTPServer):
    """Serves `hub`, and `site` for paths that are not in the hub.

    Args:
      address: host and port; port 0 selects any free port.
      hub: folder of a hub.
      site: folder of a documentation site, or None.

    Raises:
      OSError: the server can't listen at the address.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], hub: pathlib.Path, site: pathlib.Path | None
    ):
        self.hub = hub
        self.site = site
        self._index = hub_index.Reader(hub)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Binds without a DNS look-up of the host name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()

    def find(self, parts: list[str]) -> OpenFile | None:
        """Opens the file at a path, given by its parts; None if there is none."""
        path = "/".join(parts)
        index = self._index.read()
        files, handles = index.files, index.models
        if path == hub_site.FRONT_PAGE and path in files:  # each publish rewrites it
            headers = {**_PAGE_HEADERS, "Cache-Control": _REVALIDATE}
            return _open(self.hub, parts, headers)
        if path.removesuffix(_ARCHIVE_SUFFIX) in handles:  # the form in the documents
            path = path.removesuffix(_ARCHIVE_SUFFIX)
            parts = path.split("/")
        if path in files:
            is_page = path.endswith(_PAGE_SUFFIXES)
            headers = {
                **(_PAGE_HEADERS if is_page else _FILE_HEADERS),
                "Cache-Control": _CACHE_FOREVER,
            }
            if path in handles:
                name = f"{'-'.join(parts)}{_ARCHIVE_SUFFIX}"
                headers["Content-Type"] = _ARCHIVE_TYPE
                headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return _open(self.hub, parts, headers, etag=files[path]["sha256"])
        if path == hub_index.NAME:
            return _open(self.hub, parts, {"Cache-Control": _REVALIDATE})
        if self.site:
            return _open(self.site, parts, {"Cache-Control": _REVALIDATE})
        return None

    def has_folder(self, parts: list[str]) -> bool:
        """Checks whether hub or site have a folder with an index page at this path."""
        page = self.find([*parts, "index.html"])
        if page:
            page.file.close()
        return page is not None


def _open(
    root: pathlib.Path, parts: list[str], headers: dict[str, str], *, etag: str = ""
) -> OpenFile | None:
    """Opens a regular file below `root`; None if it is missing or reached by a link."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            subfolder = os.open(name, flags, dir_fd=folder)
            os.close(folder)
            folder = subfolder
        # O_NONBLOCK: opening a pipe would wait until another process writes to it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(parts[-1], flags, dir_fd=folder)
    except (OSError, ValueError):
        return None
    finally:
        os.close(folder)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        return None
    content_type = _TYPES.get(
        pathlib.PurePosixPath(parts[-1]).suffix.lower(), _OTHER_TYPE
    )
    return OpenFile(
        file=open(handle, "rb", buffering=0),
        size=status.st_size,
        etag=f'"{etag or f"{status.st_mtime_ns:x}-{status.st_size:x}"}"',
        headers={
            "Content-Type": content_type,
            "Last-Modified": email.utils.formatdate(status.st_mtime, usegmt=True),
            **headers,
        },
    )


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD requests."""

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
            self.close_connection = True  # the body is not read
        target, _, query = self.path.partition("?")
        formats = urllib.parse.parse_qs(query).get("tf-hub-format", ["compressed"])
        parts = path_parts(target)
        if parts is None:
            return self._refuse(http.HTTPStatus.NOT_FOUND)
        if formats != ["compressed"]:
            return self._refuse(http.HTTPStatus.NOT_ACCEPTABLE)
        try:
            opened = self.server.find(parts)
        except (OSError, ValueError) as error:  # the index is damaged or unreadable
            self.log_error("%s", error)
            return self._refuse(http.HTTPStatus.INTERNAL_SERVER_ERROR)
        if opened:
            with opened.file:
                return self._send(opened, with_body=with_body)
        if not target.endswith("/") and self.server.has_folder(parts):
            # Built from the parts: a path that begins with // names another host.
            location = "".join(f"/{urllib.parse.quote(part)}" for part in parts)
            return self._refuse(
                http.HTTPStatus.MOVED_PERMANENTLY, {"Location": f"{location}/"}
            )
        return self._refuse(http.HTTPStatus.NOT_FOUND)

    def _send(self, opened: OpenFile, *, with_body: bool) -> None:
        headers = {
            **opened.headers,
            "ETag": opened.etag,
            "Accept-Ranges": "bytes",
            **_SAFE_HEADERS,
        }
        if _has_tag(self.headers.get("If-None-Match", ""), opened.etag):
            return self._head(http.HTTPStatus.NOT_MODIFIED, headers)
        first, end = 0, opened.size
        status = http.HTTPStatus.OK
        condition = self.headers.get("If-Range", opened.etag)
        if condition in (opened.etag, opened.headers["Last-Modified"]):
            byte_range = _byte_range(self.headers.get("Range", ""), opened.size)
            if byte_range:
                first, end = byte_range
                if first >= end:
                    size = {"Content-Range": f"bytes */{opened.size}"}
                    return self._refuse(
                        http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, size
                    )
                status = http.HTTPStatus.PARTIAL_CONTENT
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{opened.size}"
        headers["Content-Length"] = str(end - first)
        self._head(status, headers)
        if with_body and end > first:
            sent = self.connection.sendfile(opened.file, first, end - first)
            self.close_connection |= sent != end - first  # the file became shorter

    def _head(self, status: http.HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(
        self, status: http.HTTPStatus, headers: dict[str, str] | None = None
    ) -> None:
        """Answers with a one-line error that contains no text of the request."""
        body = f"{status.value} {status.phrase}\n".encode()
        self.close_connection |= self.command not in ("GET", "HEAD")
        error_headers = {
            "Content-Type": _TYPES[".txt"],
            "Content-Length": str(len(body)),
            **_SAFE_HEADERS,
        }
        if self.close_connection:
            error_headers["Connection"] = "close"
        self._head(status, {**error_headers, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle(self) -> None:
        """Handles requests until the client closes the connection or is lost."""
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True


def path_parts(target: str) -> list[str] | None:
    """Splits the path of a request into names; None if it can't be a file's path.

    If the path ends in `/`, the last name is `index.html`.
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


def _has_tag(condition: str, etag: str) -> bool:
    """Checks whether the value of an If-None-Match header matches `etag`."""
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return etag in tags or tags == ["*"]


def _byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Parses a Range header to first byte and end; None for the whole file."""
    match = _RANGE.fullmatch(text.strip())
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
    """Returns the URL of a server."""
    return f"http://{server.server_name}:{server.server_port}/"
