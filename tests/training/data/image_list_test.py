"""Lists of images: paths and URIs, and why some of them can't be read."""

import base64
import contextlib
import http.server
import importlib
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.parse

import numpy as np
import PIL.Image
import pytest
from fsspec.implementations import memory

from images import model_input, reader
from tests.images import kinds
from training.data import data_sources, image_list, remote_files, split

# The package `fsspec` has another object of this name.
registry = importlib.import_module("fsspec.registry")
PNG = kinds.encoded(np.zeros((2, 3, 3), np.uint8), "PNG")
SECRETS = ("pass", "word", "signature")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path of a request; see `answers`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        record = self.server.record
        with record.lock:
            record.paths.append(self.path)
            record.headers.append(dict(self.headers))
        self.answer(urllib.parse.urlsplit(self.path).path)

    def answer(self, path):
        first, _, rest = path.lstrip("/").partition("/")
        record = self.server.record
        count = sum(seen == self.path for seen in record.paths)
        if first == "slow":
            with record.lock:
                record.now += 1
                record.most = max(record.most, record.now)
            time.sleep(0.2)
            with record.lock:
                record.now -= 1
            self.send(200, PNG)
        elif first == "flaky":
            self.send(200 if count > 2 else 503, PNG)
        elif first == "later":
            self.send(200 if count > 1 else 429, PNG, **{"Retry-After": "9"})
        elif first.isdecimal():
            self.send(int(first), b"sorry")
        elif first == "page":
            self.send(200, b"<html>", **{"Content-Type": "text/html"})
        elif first == "zipped":
            self.send(200, PNG, **{"Content-Encoding": "gzip"})
        elif first == "cut":
            self.send(200, PNG[:-5], **{"Content-Length": str(len(PNG))})
            self.close_connection = True
        elif first == "chunks":
            self.send(200, b"5\r\nab", **{"Transfer-Encoding": "chunked"})
            self.close_connection = True
        elif first == "slow_to":
            time.sleep(0.2)
            self.send(302, b"", Location=urllib.parse.unquote(rest))
        elif first == "to":
            self.send(302, b"", Location=urllib.parse.unquote(rest))
        elif first == "endless":
            self.send(302, b"", Location=self.path)
        elif first == "drip":
            self.send(200, b"", **{"Content-Length": "1000"})
            self.drip(b".")
        elif first in ("header", "headers", "continue", "extension"):
            self.send_slowly(first)
        elif first == "large_redirect":
            self.send(302, b"", Location="/x", **{"Content-Length": str(1 << 40)})
            with contextlib.suppress(OSError):
                for _ in range(400):
                    self.wfile.write(bytes(1 << 16))
                    record.sent += 1 << 16
            self.close_connection = True
        elif first == "slow_redirect":
            self.send(302, b"", Location="/x", **{"Content-Length": "1000"})
            self.drip(b".")
        elif first == "silent":
            time.sleep(0.5)
            self.close_connection = True
        elif first == "closed":
            self.close_connection = True
        else:
            self.send(200, PNG)

    def send(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_slowly(self, part):
        """Sends a part of an answer that does not end."""
        starts = {"continue": b"", "extension": b"Transfer-Encoding: chunked\r\n\r\n5;"}
        if part != "continue":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + starts.get(part, b"X: "))
        more = {"headers": b"\r\nX: y", "continue": b"HTTP/1.1 100 Continue\r\n\r\n"}
        self.drip(more.get(part, b"x"))

    def drip(self, data):
        """Sends data again and again for a while; each time is a sign of life."""
        with contextlib.suppress(OSError):
            for _ in range(80):
                self.wfile.write(data)
                time.sleep(0.02)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # a client that has gone


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSES", (0.01, 0.02))
    with Server(("127.0.0.1", 0), Handler) as running:
        running.record = types.SimpleNamespace(
            paths=[], headers=[], sent=0, now=0, most=0, lock=threading.Lock()
        )
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a.png", "b.png", " c.png ", "#d.png", "ä.png"):
        PIL.Image.new("RGB", (4, 5), "red").save(folder / name, "png")
    return folder


def write(folder, *lines, name="list.txt"):
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def opened(path):
    return data_sources.open_all(f"list:{path}")


def images_of(images):
    return images.fetch(np.arange(images.size))[0].tolist()


def failures_of(images):
    images.fetch(np.arange(images.size))
    return [images.failure(number) for number in range(images.size)]


def test_each_line_is_an_image(photographs):
    lines = ["a.png", str(photographs / "b.png"), f"file://{photographs}/%23d.png"]
    lines += [f"file://localhost{photographs}/a.png", "#d.png", " c.png ", "ä.png"]
    images = opened(write(photographs, *lines))
    assert images.size == len(lines)
    assert not images.has_labels
    assert images.name == split.ALL
    assert images.notes == ()
    assert [images.key(n) for n in range(images.size)] == lines
    paths = ["a.png", "b.png", "#d.png", "a.png", "#d.png", " c.png ", "ä.png"]
    expected = [(photographs / path).read_bytes() for path in paths]
    assert images_of(images) == expected
    assert failures_of(images) == [""] * len(lines)
    _, labels = images.fetch(np.array([1, 2]))
    assert labels.tolist() == images.labels_of(np.array([1, 2])).tolist() == [-1, -1]
    assert images.all_labels().tolist() == [-1] * len(lines)
    assert images.describe(0) == str(photographs / "a.png")
    assert images.describe(2) == lines[2]
    assert images.first_path == str(photographs / "a.png")
    again = pickle.loads(pickle.dumps(images))
    assert images_of(again) == expected


def test_spreadsheets_and_windows_write_lists_too(photographs):
    path = photographs / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.png\r\n\r\n  \nb.png")
    images = opened(path)
    assert [images.key(number) for number in range(images.size)] == ["a.png", "b.png"]


def test_a_relative_list(photographs, monkeypatch):
    write(photographs, "a.png")
    monkeypatch.chdir(photographs)
    assert images_of(opened("list.txt")) == [(photographs / "a.png").read_bytes()]
    monkeypatch.chdir(photographs.parent)
    assert opened("photographs/list.txt").describe(0) == "photographs/a.png"


def test_a_repeated_line_is_two_images(photographs):
    images = opened(write(photographs, "a.png", "b.png", "a.png"))
    assert images.size == 3
    assert images.key(0) == images.key(2) == "a.png"
    assert images.notes == ("repeated lines: 1; each is an image of its own",)


def test_images_are_returned_in_the_order_asked_for(photographs):
    for name, color in (("a.png", "blue"), ("b.png", "green")):
        PIL.Image.new("RGB", (4, 5), color).save(photographs / name)
    a, b = ((photographs / name).read_bytes() for name in ("a.png", "b.png"))
    images = opened(write(photographs, "a.png", "b.png"))
    assert images.fetch(np.array([1, 0, 1]))[0].tolist() == [b, a, b]
    assert images.fetch(np.array([], np.int64))[0].tolist() == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no images"),
        ("\n \r\n", "lists no images"),
        ("x.png\ny.png\n", "none of its 2 images can be read. Paths are relative to "),
        ("x.png\n", "line 1, x.png: it is missing"),
        ("\n.\n", "line 2, .: it is a folder"),
        ("list.txt/x\n", "it is missing"),
        ("file://elsewhere/a.png\n", "it must begin with file:///"),
        ("file:///%00\n", "embedded null byte"),
        ("ftp://host/a.png\n", "ftp:// is not one of file, http, https, s3"),
        ("gopher://u:word@h/a?signature\n", "line 1, gopher://h/a: gopher:// is not"),
        ("a.png\nb\0.png\n", "list.txt, line 2 has a NUL byte"),
        ("a.png\n\n\xff\n", "list.txt, line 3 is not UTF-8: save"),
        ("a.png\n" + "x" * 70000 + "\n", "line 2 has 65536 bytes or more"),
        ("x" * 300 + "\n", f"line 1, {'x' * 200}: File name too long"),
    ],
)
def test_a_list_that_is_none_is_told_in_a_line(photographs, lines, message):
    path = photographs / "list.txt"
    path.write_bytes(lines.encode("latin-1"))
    with pytest.raises(ValueError, match="list.txt") as caught:
        opened(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "none.txt: No such file or directory."),
        (".", "Is a directory."),
        ("", "needs a value after the colon"),
    ],
)
def test_a_list_that_is_not_there_is_told(photographs, name, message):
    path = photographs / name if name else ""
    with pytest.raises(ValueError, match=message):
        opened(path)


def test_training_needs_labels(photographs):
    source = f"list:{write(photographs, 'a.png')}"
    for open_one in (
        lambda: data_sources.open_split(source, "train"),
        lambda: data_sources.open_splits(source),
    ):
        with pytest.raises(ValueError, match="has no labels: .* give csv:FILE") as told:
            open_one()
        assert "\n" not in str(told.value)


def test_what_is_missing_is_an_unreadable_image(photographs):
    os.mkfifo(photographs / "pipe")
    lines = ["a.png", "x.png", ".", "pipe", "gopher://u:word@h/a?signature", "a.png/x"]
    images = opened(write(photographs, *lines))
    assert (
        images.notes[0] == "5 of 6 images can't be read: line 2, x.png: it is missing"
    )
    assert [bool(image) for image in images_of(images)] == [True, *[False] * 5]
    first, missing, folder, pipe, scheme, below = failures_of(images)
    assert first == ""
    assert missing == f"{photographs}/x.png: it is missing."
    assert folder == f"{photographs}/.: it is a folder."
    assert pipe == f"{photographs}/pipe: it is no regular file."
    assert scheme.startswith("gopher://h/a: gopher:// is not one of file, http, ")
    assert below == f"{photographs}/a.png/x: it is missing."
    small = reader.Reader(model_input.Preprocessing(height=2, width=2))
    assert images.read_image(0, small).shape == (2, 2, 3)
    with pytest.raises(ValueError, match="x.png: it is missing"):
        images.read_image(1, small)
    part = split.subset(images, np.array([0, 3]), "part")
    assert part.failure(1) == pipe
    (photographs / "x.png").write_bytes(PNG)
    assert failures_of(images)[1] == ""


def test_the_fingerprint_is_of_the_list_and_its_files(photographs):
    os.utime(photographs / "a.png", ns=(1, 1))
    path = write(photographs, "a.png", "b.png", "http://host/x", "none.png")
    prints = [opened(path).fingerprint]
    assert opened(path).fingerprint == prints[0]
    os.utime(photographs / "b.png", ns=(1, 1))
    prints.append(opened(path).fingerprint)
    with (photographs / "a.png").open("ab") as file:
        file.write(b"0")
    os.utime(photographs / "a.png", ns=(1, 1))
    prints.append(opened(path).fingerprint)
    (photographs / "none.png").write_bytes(PNG)
    prints.append(opened(path).fingerprint)
    write(photographs, "b.png", "a.png", "http://host/x", "none.png")
    prints.append(opened(path).fingerprint)
    write(photographs, "b.png", "a.png", "http://host/y", "none.png")
    prints.append(opened(path).fingerprint)
    assert len(set(prints)) == 6


def test_urls_are_read_in_parallel_and_once(server, tmp_path):
    lines = [f"{server.url}/slow/{number}" for number in range(40)]
    images = opened(write(tmp_path, *lines))
    assert images.first_path == ""
    begin = time.monotonic()
    fetched, _ = images.fetch(np.array([*range(40), *[0] * 24]))
    assert time.monotonic() - begin < 3  # 8 s one by one
    assert fetched.tolist() == [PNG] * 64
    assert sorted(server.record.paths) == sorted(f"/slow/{n}" for n in range(40))
    assert 8 <= server.record.most <= 16


@pytest.mark.parametrize(
    ("path", "attempts", "reason"),
    [
        ("404/x", 1, "the server answers 404 Not Found."),
        ("403/x", 1, "the server answers 403 Forbidden."),
        ("503/x", 3, "the server answers 503 Service Unavailable (3 attempts)."),
        ("599/x", 1, "the server answers 599."),
        ("page", 1, "the answer is a web page, not an image."),
        ("zipped", 1, "the answer is compressed."),
        ("cut", 3, f"it ended after {len(PNG) - 5} of {len(PNG)} bytes (3 attempts)."),
        ("chunks", 3, "it was cut off (3 attempts)."),
        ("closed", 3, "Remote end closed connection without response (3 attempts)."),
        ("silent", 3, "no data arrived within 0.1 s (3 attempts)."),
        ("drip", 1, "only "),
        ("endless", 1, "the server answers 302 Found."),
        ("to/file:%2F%2F%2Fetc%2Fhosts", 1, "the server answers 302 Found."),
        ("to/ftp:%2F%2Fhost%2Fx", 1, "it leads from http to ftp."),
        ("to/http:%2F%2F[", 1, "it is not a valid URL, or leads to none."),
    ],
)
def test_why_a_url_is_not_readable(
    server, tmp_path, monkeypatch, path, attempts, reason
):
    monkeypatch.setattr(remote_files, "_TIMEOUT", 0.1)
    monkeypatch.setattr(remote_files, "_GRACE", 0.2)
    line = server.url.replace("//", "//pass:word@") + f"/{path}?signature=1"
    images = opened(write(tmp_path, line))
    (failure,) = failures_of(images)
    assert failure.startswith(f"{server.url}/{path}: {reason}"), failure
    assert not any(secret in failure for secret in SECRETS)
    if path not in ("endless",):
        assert len(server.record.paths) == attempts


@pytest.mark.parametrize("part", ["header", "headers", "continue", "extension"])
def test_the_deadline_is_of_all_parts_of_an_answer(server, tmp_path, monkeypatch, part):
    monkeypatch.setattr(remote_files, "_GRACE", 0.3)
    images = opened(write(tmp_path, f"{server.url}/{part}"))
    begin = time.monotonic()
    (failure,) = failures_of(images)
    assert 0.3 <= time.monotonic() - begin < 1.2  # the server takes 1.6 s
    assert failure == f"{server.url}/{part}: only 0 bytes arrived in 0 s."
    assert server.record.paths == [f"/{part}"]


def test_bytes_prolong_the_deadline(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_GRACE", 0.3)
    monkeypatch.setattr(remote_files, "_MIN_RATE", 10)  # the server sends 50 a second
    monkeypatch.setattr(remote_files, "_PAUSES", ())
    (failure,) = failures_of(opened(write(tmp_path, f"{server.url}/drip")))
    assert "it ended after 80 of 1000 bytes" in failure


def test_the_deadline_is_of_all_redirects(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_GRACE", 0.3)
    target = f"{server.url}/slow"
    for _ in range(2):
        target = f"{server.url}/slow_to/{urllib.parse.quote(target, safe='')}"
    (failure,) = failures_of(opened(write(tmp_path, target)))
    assert failure.endswith(": only 0 bytes arrived in 0 s.")


def test_the_deadline_is_of_all_addresses_of_a_host(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_GRACE", 0.3)
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: [address] * 20)

    class Socket(socket.socket):
        def connect(self, where):
            time.sleep(min(self.gettimeout(), 0.1))
            raise TimeoutError

    monkeypatch.setattr(socket, "socket", Socket)
    (failure,) = failures_of(opened(write(tmp_path, "http://host.invalid/x")))
    assert failure == "http://host.invalid/x: only 0 bytes arrived in 0 s."


def test_the_body_of_a_redirect_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_GRACE", 1)
    lines = [f"{server.url}/large_redirect", f"{server.url}/slow_redirect"]
    images = opened(write(tmp_path, *lines))
    begin = time.monotonic()
    assert images_of(images) == [PNG, PNG]
    assert time.monotonic() - begin < 0.8
    assert server.record.sent < 16 << 20  # what buffers of sockets hold


WAITING = """
import numpy as np, sys
from training.data import data_sources
images = data_sources.open_all(f"list:{sys.argv[1]}")
print("begun", flush=True)
images.fetch(np.arange(images.size))
"""


def test_an_interrupted_process_does_not_wait_for_urls(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        path = write(tmp_path, *(f"{url}/{number}" for number in range(40)))
        command = [sys.executable, "-c", WAITING, str(path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                assert process.stdout.readline() == b"begun\n"
                silent.accept()
                time.sleep(0.2)
                process.send_signal(signal.SIGINT)
                process.wait(timeout=3)  # a request would take 10 s
            finally:
                process.kill()
    assert process.returncode == -signal.SIGINT


def test_no_server_and_no_url(server, tmp_path, monkeypatch):
    port = server.server_port
    server.server_close()
    lines = [f"http://127.0.0.1:{port}/x", "http://pass:wo/rd@host/x", "http:///x"]
    lines += ["http://host:99999999/x", "https://[::1/x", "http://h:0/x"]
    lines += [f"http://{'x' * 70}é.invalid/x"]
    refused, *others = failures_of(opened(write(tmp_path, *lines)))
    assert "Connection refused (3 attempts)" in refused
    for failure in others:
        assert failure.endswith(": it is not a valid URL, or leads to none."), failure
        assert "wo" not in failure


def test_names_of_hosts(server, tmp_path, monkeypatch):
    asked = []

    def getaddrinfo(host, port, *arguments):
        asked.append(host)
        if host == "known.invalid":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        if "xn" not in host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = ("127.0.0.1", port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    lines = ["http://no.such.invalid/x", "http://known.invalid/x"]
    lines += [f"http://münchen.invalid:{server.server_port}/x"]
    assert failures_of(opened(write(tmp_path, *lines))) == [
        f"{lines[0]}: its host is not known.",
        f"{lines[1]}: Temporary failure (3 attempts).",
        "",
    ]
    hosts = ["known.invalid"] * 3 + ["no.such.invalid", "xn--mnchen-3ya.invalid"]
    assert sorted(asked) == hosts


def test_a_certificate_that_is_not_valid_is_not_tried_again():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    explained = remote_files._explained(urllib.error.URLError(error))
    assert isinstance(explained, ValueError)
    assert str(explained) == "its certificate is not valid: self-signed certificate"


def test_what_passes_is_tried_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_MAX_PAUSE", 0.3)
    lines = [f"{server.url}/flaky", f"{server.url}/later"]
    images = opened(write(tmp_path, *lines))
    begin = time.monotonic()
    assert images_of(images) == [PNG, PNG]
    assert 0.3 < time.monotonic() - begin < 5  # the server asks for 9 s
    assert sorted(server.record.paths) == ["/flaky"] * 3 + ["/later"] * 2


@pytest.mark.parametrize("length", [None, str(len(PNG))])
def test_an_image_has_a_largest_size(server, tmp_path, monkeypatch, length):
    monkeypatch.setattr(remote_files, "_MAX_BYTES", len(PNG) - 1)
    (failure,) = failures_of(opened(write(tmp_path, f"{server.url}/x")))
    assert failure == f"{server.url}/x: it is larger than 0 MiB."


def test_redirects_keep_the_password_on_the_host(server, tmp_path):
    here = server.url.partition("//")[2]
    other = here.replace("127.0.0.1", "localhost")
    lines = [
        f"http://pass:w%6Frd@{here}/to/{urllib.parse.quote(f'http://{to}/x{n}', '')}"
        for n, to in enumerate((here, other))
    ]
    images = opened(write(tmp_path, *lines))
    assert images_of(images) == [PNG, PNG]
    sent = dict(zip(server.record.paths, server.record.headers, strict=True))
    basic = "Basic " + base64.b64encode(b"pass:word").decode()
    assert sent["/x0"]["Authorization"] == basic
    assert "Authorization" not in sent["/x1"]
    assert all(sent[path]["Authorization"] == basic for path in sent if "/to/" in path)


def test_urls_are_escaped(server, tmp_path):
    lines = [f"  {server.url}/ä b%20c?q=ö d#part  ", f"{server.url.upper()}/x"]
    images = opened(write(tmp_path, *lines))
    assert images_of(images) == [PNG, PNG]
    assert "/%C3%A4%20b%20c?q=%C3%B6%20d" in server.record.paths
    assert images.key(0) == f"{server.url}/ä b%20c"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://user:word@host:80/a@b?signature#x", "http://host:80/a@b"),
        ("https://pass@host/a", "https://host/a"),
        ("http://user:pa/word@host/a?signature", "http://host/a"),
        ("http://user:pass?word@host/a", "http://host/a"),
        ("http://user:pass#word@host/a", "http://host/a"),
        ("http://user:pass", "http://"),
        ("http://user:p@word@host/a", "http://host/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://[::1]/a", "http://[::1]/a"),
        ("http://host:/a", "http://host:/a"),
        ("abfs://container@account/a", "abfs://container@account/a"),
        ("s3://pass:word@bucket/a", "s3://bucket/a"),
    ],
)
def test_keys_have_no_credentials(uri, expected):
    assert remote_files.public(uri) == expected


def test_keys_are_distinct(tmp_path):
    lines = ["", "http://h/a?1", "http://h/a", "http://h/a?2", "http://h/a?1"]
    lines += ["http://h/a?2", "http://h/b?1", "http://u@h/a"]
    images = opened(write(tmp_path, *lines))
    assert [images.key(number) for number in range(images.size)] == [
        "http://h/a",
        "http://h/a#line=3",
        "http://h/a#line=4",
        "http://h/a",
        "http://h/a#line=4",
        "http://h/b",
        "http://h/a#line=8",
    ]
    assert images.describe(1) == images.key(1)


class Store(memory.MemoryFileSystem):
    """Stands in for the file system of s3fs."""

    protocol = "s3"
    store = {"/bucket/a::b.png": PNG}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("s3:/")

    def _open(self, path, *arguments, **settings):
        kind = path.rpartition("/")[2]
        if kind == "denied":
            raise PermissionError("https://user:word@host/x?signature says no")
        if kind == "busy":
            self.store[path] = self.store.get(path, 0) + 1
            raise OSError("Please\nreduce your request rate.")
        if kind == "broken":
            raise RuntimeError
        if path not in self.store:
            raise FileNotFoundError(path)
        return memory.MemoryFile(path=path, fs=self, data=self.store[path])


def test_object_stores_are_read_by_fsspec(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSES", (0.01, 0.02))
    monkeypatch.setitem(registry._registry, "s3", Store)
    names = ["a::b.png", "none", "denied", "busy", "broken"]
    images = opened(write(tmp_path, *(f"s3://bucket/{name}" for name in names)))
    assert images_of(images) == [PNG, b"", b"", b"", b""]
    assert [images.failure(number) for number in range(5)] == [
        "",
        "s3://bucket/none: it does not exist.",
        "s3://bucket/denied: access is denied (https://host/x says no).",
        "s3://bucket/busy: Please reduce your request rate (3 attempts).",
        "s3://bucket/broken: RuntimeError.",
    ]
    assert Store.store.pop("/bucket/busy") == 3
    monkeypatch.setattr(remote_files, "_MAX_BYTES", len(PNG) - 1)
    read = memory.MemoryFile.read
    monkeypatch.setattr(memory.MemoryFile, "read", lambda file, size: read(file, size))
    assert failures_of(images)[0] == "s3://bucket/a::b.png: it is larger than 0 MiB."


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, "http://host/x", "OSS://bucket/x")
    monkeypatch.setitem(
        registry.known_implementations, "oss", {"class": "no_such.Package"}
    )
    with pytest.raises(ImportError, match="list.txt, line 2: oss:// needs ossfs: run"):
        opened(path)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match="oss:// needs fsspec: run tools/setup bulk"):
        opened(path)


def test_a_fork_has_threads_of_its_own(photographs):
    images = opened(write(photographs, "a.png"))
    images_of(images)
    child = os.fork()
    if not child:
        os._exit(int(images_of(images) == [b""]))
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done
    assert status == 0


def test_threads_are_bounded():
    assert len(image_list._pool(os.getpid()).threads) == 16
