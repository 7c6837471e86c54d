"""Reads files by URI: http and https here, object stores through fsspec.

Sizes and times are bounded, redirects lead to http and https only, and what is read is
data, never code. Messages contain no credentials.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import io
import re
import socket
import ssl
import time
import typing
import urllib.error
import urllib.parse
import urllib.request

from foundation import messages

WEB = ("http", "https")
STORES = {  # scheme -> package that fsspec needs
    **{"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"},
    **{"az": "adlfs", "abfs": "adlfs", "oss": "ossfs", "hf": "huggingface_hub"},
}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*")
_AUTHORITY_END, _PATH_END = re.compile("[/?#]"), re.compile("[?#]")
_BAD_PORT = re.compile(r"[^\[\]]*:(?!\d*$)")  # an authority that is no HOST:PORT

_MAX_BYTES = 256 << 20
_TIMEOUT = 10  # seconds without data
# Longest time of a request with its redirects, in seconds:
# _GRACE + bytes of the body / _MIN_RATE.
_GRACE = 30
_MIN_RATE = 10_000  # bytes a second
_CHUNK = 1 << 18
_PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt
_MAX_PAUSE = 10.0  # seconds, if the server asks for a pause
_RETRIED_STATUSES = (408, 429, 500, 502, 503, 504)
_MAX_MESSAGE = 200  # characters of another library's message


class _RefusedError(ValueError):
    """The file can't be read, and another attempt would not help."""


class _TransientError(Exception):
    """Reading failed, and may succeed later, after `pause` seconds if that is known."""

    def __init__(self, message: str, pause: float = 0) -> None:
        super().__init__(message)
        self.pause = pause


class _DeadlineError(Exception):
    """A request takes too long. No OSError or ValueError: http.client catches those."""


class _Deadline:
    """Time limit of a request: of connecting, headers, redirects and the body.

    Attributes:
      received: bytes of the body; each prolongs the limit.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.received = 0

    def timeout(self) -> float:
        """Returns for how many seconds the next operation on a socket may wait.

        Raises:
          _DeadlineError: no time is left.
        """
        seconds = time.monotonic() - self._start
        left = _GRACE + self.received / _MIN_RATE - seconds
        if left <= 0:
            raise _DeadlineError(
                f"only {self.received} bytes arrived in {seconds:.0f} s"
            )
        return min(left, _TIMEOUT)


def scheme_of(text: str) -> str:
    """Returns the scheme of a URI in lower case; empty if the text is not a URI."""
    match = _URI.match(text)
    return match[1].lower() if match else ""


def public(uri: str) -> str:
    """Returns a URI without user name, password, query and fragment.

    The query may be a signature. The name in `abfs://CONTAINER@ACCOUNT/` is kept.
    """
    scheme, _, rest = uri.partition("://")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if "@" not in authority and _BAD_PORT.match(authority):
        # A password has an unescaped / or ? or #.
        rest = rest.rpartition("@")[2] if "@" in rest else rest[len(authority) :]
    elif "@" in authority:
        user, _, host = authority.rpartition("@")
        if scheme.lower() in WEB or ":" in user:
            rest = host + rest[len(authority) :]
    return f"{scheme}://{_PATH_END.split(rest, maxsplit=1)[0]}"


def missing_package(scheme: str) -> str:
    """Returns what to install for the URIs of an object store; empty if nothing."""
    try:
        import fsspec
    except ImportError:
        return "fsspec: run tools/setup bulk"
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError:
        return f"{STORES[scheme]}: run .venv/bin/pip install {STORES[scheme]}"
    return ""


def read(uri: str) -> bytes:
    """Reads a file; tries again after errors that may pass.

    Args:
      uri: its scheme is one of `WEB` or `STORES`.

    Raises:
      ValueError: the file can't be read; the message is the reason, without the URI.
    """
    scheme = scheme_of(uri)
    for pause in (*_PAUSES, None):
        try:
            return _read_web(uri) if scheme in WEB else _read_store(scheme, uri)
        except _TransientError as error:
            if pause is None:
                raise ValueError(f"{error} ({len(_PAUSES) + 1} attempts)") from error
            time.sleep(min(error.pause or pause, _MAX_PAUSE))
    raise AssertionError


def _read_web(uri: str) -> bytes:
    deadline = _Deadline()
    try:
        request = _request(uri, deadline)
        with _opener().open(request, timeout=_TIMEOUT) as response:
            return _body(response, deadline)
    except urllib.error.HTTPError as error:
        error.close()
        name = http.client.responses.get(error.code, "")
        message = f"the server answers {error.code} {name}".rstrip()
        if error.code in _RETRIED_STATUSES:
            raise _TransientError(message, _pause(error.headers)) from error
        raise _RefusedError(message) from error
    except _DeadlineError as error:
        raise _RefusedError(str(error)) from error
    except _RefusedError:
        raise
    except (ValueError, http.client.InvalidURL) as error:  # they may contain the URL
        raise _RefusedError("it is not a valid URL, or leads to none") from error
    except (OSError, http.client.HTTPException) as error:
        raise _explained(error) from error


class _Request(urllib.request.Request):
    """A request that has a deadline."""

    deadline: _Deadline


class _SocketFile(io.RawIOBase):
    """Reads a socket until a deadline."""

    def __init__(self, sock: socket.socket, raw: typing.Any, deadline: _Deadline):
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: typing.Any) -> int | None:
        self._sock.settimeout(self._deadline.timeout())
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._deadline.timeout()  # which raises, if that is the reason
            raise

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        *arguments: typing.Any,
        deadline: _Deadline,
        **rest: typing.Any,
    ) -> None:
        super().__init__(sock, *arguments, **rest)
        file: typing.Any = self.fp
        self.fp = io.BufferedReader(_SocketFile(sock, file.detach(), deadline))


class _Connection(http.client.HTTPConnection):
    """A connection on which all waiting ends at a deadline."""

    def __init__(
        self, *arguments: typing.Any, deadline: _Deadline, **rest: typing.Any
    ) -> None:
        super().__init__(*arguments, **rest)
        response: typing.Any = functools.partial(_Response, deadline=deadline)
        self.response_class = response
        self._create_connection = functools.partial(_connected, deadline)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    pass


def _connected(
    deadline: _Deadline, address: tuple[str, int], *_: typing.Any
) -> socket.socket:
    """Connects to a host; same as `socket.create_connection` but for the deadline."""
    failure = OSError("its host has no address")
    for family, kind, protocol, _name, where in socket.getaddrinfo(
        *address, 0, socket.SOCK_STREAM
    ):
        with contextlib.ExitStack() as stack:
            try:
                sock = stack.enter_context(socket.socket(family, kind, protocol))
                sock.settimeout(deadline.timeout())
                sock.connect(where)
            except OSError as error:
                failure = error
                continue
            # For sending and the TLS handshake.
            sock.settimeout(deadline.timeout())
            stack.pop_all()
            return sock
    raise failure


class _Web(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens requests that have a deadline."""

    def http_open(self, req: typing.Any) -> typing.Any:
        connection: typing.Any = _Connection
        return self.do_open(connection, req, deadline=req.deadline)

    def https_open(self, req: typing.Any) -> typing.Any:
        connection: typing.Any = _SecureConnection
        return self.do_open(connection, req, deadline=req.deadline)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the same scheme, or from http to https.

    The password is sent to the same host only. The body of a redirect is not read.
    """

    def http_error_302(
        self, req: typing.Any, fp: typing.Any, code: int, msg: str, headers: typing.Any
    ) -> typing.Any:
        fp.close()  # urllib would read all of it
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_302
    http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: typing.Any, *arguments: typing.Any) -> typing.Any:
        request: typing.Any = super().redirect_request(req, *arguments)
        if request is None:
            return None
        if request.type not in (req.type, "https"):
            raise _RefusedError(f"it leads from {req.type} to {request.type}")
        request.deadline = req.deadline
        password = req.unredirected_hdrs.get("Authorization")
        if password and request.host == req.host:
            request.add_unredirected_header("Authorization", password)
        return request


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Web(), _Redirects())


def _request(uri: str, deadline: _Deadline) -> _Request:
    """Returns the request of a URL, in which characters may need to be escaped.

    Raises:
      ValueError: it is not a URL.
    """
    parts = urllib.parse.urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    if not parts.hostname or parts.port == 0:
        raise ValueError
    url = urllib.parse.urlunsplit(
        (
            parts.scheme,
            host if host.isascii() else host.encode("idna").decode("ascii"),
            urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~"),
            urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?[]"),
            "",
        )
    )
    request = _Request(url, headers={"User-Agent": "image-model-zoo"})
    request.deadline = deadline
    if parts.username is not None:
        user = urllib.parse.unquote_to_bytes(parts.username)
        password = urllib.parse.unquote_to_bytes(parts.password or "")
        basic = base64.b64encode(user + b":" + password).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {basic}")
    return request


def _body(response: typing.Any, deadline: _Deadline) -> bytes:
    """Reads the body of an answer.

    Raises:
      _RefusedError: it is too large, compressed or a web page.
      _TransientError: it is cut off.
      _DeadlineError: it arrives too slowly.
    """
    if response.headers.get_content_type() == "text/html":
        raise _RefusedError("the answer is a web page, not an image")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _RefusedError("the answer is compressed")
    length = response.length
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        deadline.received = len(data)
        if max(len(data), length or 0) > _MAX_BYTES:
            raise _RefusedError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    if length is not None and len(data) < length:
        raise _TransientError(f"it ended after {len(data)} of {length} bytes")
    return bytes(data)


def _pause(headers: typing.Any) -> float:
    """Returns the seconds for which a server asks; 0 if it does not."""
    text = (headers or {}).get("Retry-After", "")
    return float(text) if text.isdecimal() else 0


def _explained(error: Exception) -> Exception:
    """Returns the error of a failed connection, for a message and another attempt."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return _TransientError(f"no data arrived within {_TIMEOUT} s")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _RefusedError(f"its certificate is not valid: {cause.verify_message}")
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return _RefusedError("its host is not known")
    if isinstance(cause, http.client.IncompleteRead):
        return _TransientError("it was cut off")
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        return _RefusedError("the answer is not HTTP")
    return _TransientError(getattr(cause, "strerror", None) or _cleaned(cause))


def _read_store(scheme: str, uri: str) -> bytes:
    """Reads a file of an object store; raises the errors of `_read_web`."""
    try:
        import fsspec

        # Not `fsspec.open`, which would open a chain of URIs, separated by `::`.
        store = fsspec.get_filesystem_class(scheme)
        files = store(**store._get_kwargs_from_urls(uri))
        with files.open(store._strip_protocol(uri), "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _RefusedError("it does not exist") from error
    except PermissionError as error:
        raise _RefusedError(f"access is denied ({_cleaned(error)})") from error
    except OSError as error:
        raise _TransientError(_cleaned(error)) from error
    except Exception as error:  # packages of stores raise errors of many libraries
        raise _RefusedError(_cleaned(error)) from error
    if len(data) > _MAX_BYTES:
        raise _RefusedError(f"it is larger than {_MAX_BYTES >> 20} MiB")
    return bytes(data)


def _cleaned(error: object) -> str:
    """Returns the message of another library as one line without credentials."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = _URI_IN_TEXT.sub(lambda match: public(match[0]), text)
    return messages.printable(text)[:_MAX_MESSAGE].rstrip(".")
