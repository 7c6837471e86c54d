"""Responses of a hub's HTTP server."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from publishing import hub_index, serving, verifying
from tests.publishing.conftest import make_export

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HANDLE = "/image-model-zoo/toy/classification/1"
PAGE = "/image-model-zoo/models/toy/classification/1/index.html"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    (folder / "archs").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>home")
    (folder / "archs" / "index.html").write_text("archs")
    (folder / "look.css").write_text("p {}")
    (folder / "data.bin").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture
def server(hub, site):
    with serving.Server(("127.0.0.1", 0), hub, site) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    """Returns a function that sends a request and returns status, headers and body."""

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    return ask


def raw(server, data):
    """Sends bytes and returns the answer; the server may hang up before the end."""
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", server.server_port), 10) as client,
        contextlib.suppress(OSError),
    ):
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while chunk := client.recv(1 << 16):
            answer += chunk
    return answer


@pytest.mark.parametrize(
    "query", ["", "?tf-hub-format=compressed", "?a=%00&b", ".tar.gz"]
)
def test_a_handle_is_its_archive(ask, hub, query):
    data = (hub / HANDLE[1:]).read_bytes()
    status, headers, body = ask(HANDLE + query)
    assert (status, body) == (200, data)
    assert headers["Content-Type"] == "application/gzip"
    assert headers["Content-Length"] == str(len(data))
    assert headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert "immutable" in headers["Cache-Control"]
    assert headers.get("Content-Encoding") is None
    name = "image-model-zoo-toy-classification-1.tar.gz"
    assert headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_other_formats_are_not_acceptable(ask):
    assert ask(f"{HANDLE}?tf-hub-format=uncompressed")[0] == 406


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/archs/", "text/html; charset=utf-8"),
        ("/look.css", "text/css; charset=utf-8"),
        ("/look.css?v=1#top", "text/css; charset=utf-8"),
        ("/data.bin", "application/octet-stream"),
        ("/index.json", "application/json"),
        (PAGE, "text/html; charset=utf-8"),
        (PAGE.replace("index.html", "conformance.json"), "application/json"),
        (f"{PAGE.removesuffix('/index.html')}.md", "text/markdown; charset=utf-8"),
        (PAGE.replace("toy", "%74oy"), "text/html; charset=utf-8"),
    ],
)
def test_content_types(ask, path, kind):
    status, headers, body = ask(path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert len(body) == int(headers["Content-Length"]) > 0
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/archs", PAGE.removesuffix("/index.html")])
def test_a_folder_with_a_page_redirects_to_its_slash(ask, path):
    status, headers, _ = ask(path)
    assert (status, headers["Location"]) == (301, f"{path}/")
    assert ask(f"{path}/")[0] == 200


def test_the_hub_opens_with_its_front_page(ask, hub):
    for path in ("/", "/index.html"):
        status, headers, body = ask(path)
        assert (status, body) == (200, (hub / "index.html").read_bytes())
        assert headers["Cache-Control"] == "no-cache"  # the next publish rewrites it
    page = ask(PAGE.removesuffix("index.html"))
    assert page[2] == (hub / PAGE[1:]).read_bytes()
    assert "immutable" in page[1]["Cache-Control"]
    assert ask("/archs/")[2] == b"archs"  # of the site


def test_a_hub_without_a_front_page_opens_with_the_site(ask, hub):
    models = hub_index.read(hub)
    (hub / "index.json").write_text(hub_index.to_text(models))
    assert ask("/")[2] == b"<!doctype html>home"


def test_pages_have_security_headers(ask, hub):
    style = next(hub.glob("assets/*/look.css")).relative_to(hub)
    for path in ("/", PAGE, f"/{style}", HANDLE, "/index.json", "/none", "/archs/"):
        headers = ask(path)[1]
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "no-referrer", path
    for path in ("/", PAGE):
        headers = ask(path)[1]
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "'unsafe-eval'" not in policy
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    for path in (f"/{style}", HANDLE, PAGE.replace("index.html", "conformance.json")):
        assert ask(path)[1]["Content-Security-Policy"].endswith("sandbox")
    assert ask("/archs/")[1]["Content-Security-Policy"] is None  # not of the hub


def test_pages_of_earlier_programs_keep_their_styles(ask, hub):
    models = hub_index.read(hub)
    name = PAGE[1:].replace("index.html", "page.html")
    (hub / name).write_text("<!doctype html><style>p {}</style>")
    models[HANDLE[1:]]["files"][name] = {"size": 34, "sha256": "0" * 64}
    (hub / "index.json").write_text(hub_index.to_text(models))
    status, headers, _ = ask(f"/{name}")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert "style-src 'unsafe-inline'" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.mjs", "text/javascript; charset=utf-8"),
        ("x.wasm", "application/wasm"),
        ("x.onnx", "application/octet-stream"),
        ("x.tar.gz", "application/octet-stream"),
    ],
)
def test_types_of_files_for_programs(ask, site, name, kind):
    (site / name).write_bytes(b"x")
    assert ask(f"/{name}")[1]["Content-Type"] == kind


def test_files_of_a_model_that_are_missing_are_not_found(ask, hub, publish, tmp_path):
    """All else goes on working."""
    other = make_export(tmp_path / "exports", arch="other")
    assert publish(other, f"--hub={hub}").returncode == 0
    shutil.rmtree(hub / "image-model-zoo/models/toy/classification")
    (hub / HANDLE[1:]).unlink()
    for path in (HANDLE, PAGE, PAGE.removesuffix("index.html")):
        assert ask(path)[0] == 404
    for path in ("/", HANDLE.replace("toy", "other"), PAGE.replace("toy", "other")):
        assert ask(path)[0] == 200
    assert ask(PAGE.replace("classification", "feature_vector"))[0] == 200
    found = {line.split(":")[0] for line in verifying.verify(hub).findings}
    assert {HANDLE[1:], PAGE[1:]} <= found
    assert all("/toy/classification/1" in name for name in found)


def test_head_is_get_without_a_body(ask):
    for path in (HANDLE, "/", "/none", "/archs"):
        get, head = ask(path), ask(path, "HEAD")
        assert head[2] == b""
        assert head[0] == get[0]
        del get[1]["Date"], head[1]["Date"]
        assert head[1].items() == get[1].items()


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=5-9", slice(5, 10)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=100-99999999", slice(100, None)),
        ("bytes=-99999999", slice(None)),
    ],
)
def test_ranges(ask, hub, byte_range, part):
    data = (hub / HANDLE[1:]).read_bytes()
    status, headers, body = ask(HANDLE, Range=byte_range)
    assert (status, body) == (206, data[part])
    first, last, size = part.indices(len(data))[0], 0, len(data)
    last = first + len(body) - 1
    assert headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    "byte_range", ["bytes=9-5", "bytes=0-1,5-6", "lines=1-2", "bytes=-"]
)
def test_an_invalid_range_is_ignored(ask, byte_range):
    assert ask(HANDLE, Range=byte_range)[0] == 200


@pytest.mark.parametrize("byte_range", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end(ask, hub, byte_range):
    status, headers, _ = ask(HANDLE, Range=byte_range)
    assert status == 416
    size = (hub / HANDLE[1:]).stat().st_size
    assert headers["Content-Range"] == f"bytes */{size}"


def test_a_download_resumes_only_with_the_same_bytes(ask):
    etag = ask(HANDLE)[1]["ETag"]
    assert ask(HANDLE, Range="bytes=5-", If_Range=etag)[0] == 206
    assert ask(HANDLE, Range="bytes=5-", If_Range='"other"')[0] == 200


@pytest.mark.parametrize("path", [HANDLE, "/", "/index.json"])
def test_a_cached_file_is_not_sent_again(ask, path):
    etag = ask(path)[1]["ETag"]
    for condition in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        status, headers, body = ask(path, If_None_Match=condition)
        assert (status, body, headers["ETag"]) == (304, b"", etag)
    assert ask(path, If_None_Match='"other"')[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(ask, method):
    status, headers, _ = ask(HANDLE, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.txt",
        "/archs/../../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/%2e%2e%2foutside.txt",
        "/..%5coutside.txt",
        "/..\\outside.txt",
        "/%252e%252e/outside.txt",
        "/./index.html",
        "/%2f/etc/passwd",
        "//etc/passwd",
        "/link.txt",
        "/out/outside.txt",
        "/out",
        "/pipe",
        "/.git/config",
        "/archs/.%67it",
        "/look.css%00",
        "/look.css%00.html",
        "/%0d%0aSet-Cookie:x",
        "/%ff%fe",
        "/look.css/",
        "/look.css/x",
        "/archs//index.html",
        "/image-model-zoo",
        "/image-model-zoo/toy",
        f"{HANDLE}/",
        "/.publishing.json",
        "/.partial-x/y",
        f"/{'a' * 5000}",
        f"/{'a/' * 3000}",
        "http://127.0.0.1/index.html",
        "*",
    ],
)
def test_no_other_file_is_served(server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(server, request.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer
    assert b"secret" not in body
    assert b"Set-Cookie" not in answer


def test_a_redirect_stays_on_the_host(server):
    answer = raw(
        server, b"GET //archs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b"Location: //" not in answer


def test_a_file_of_the_hub_outside_the_index_is_not_served(ask, hub):
    (hub / "image-model-zoo" / "toy" / "stray").write_text("secret")
    (hub / PAGE[1:]).unlink()
    (hub / PAGE[1:]).symlink_to("/etc/passwd")
    assert ask("/image-model-zoo/toy/stray")[0] == 404
    assert ask(PAGE)[0] == 404


def test_a_version_is_served_as_soon_as_it_is_published(ask, hub, publish, tmp_path):
    handle = HANDLE.replace("toy", "other")
    assert ask(handle)[0] == 404
    other = make_export(tmp_path / "exports", arch="other")
    assert publish(other, f"--hub={hub}").returncode == 0
    assert ask(handle)[0] == 200


def test_a_damaged_index_is_a_server_error(ask, hub):
    (hub / "index.json").write_text("{")
    status, _, body = ask(HANDLE)
    assert (status, body) == (500, b"500 Internal Server Error\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nRange: bytes=" + b"9" * 5000 + b"-\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /",
        b"G" * 100_000,
        b"",
    ],
)
def test_an_invalid_request_does_not_stop_the_server(server, ask, request_bytes):
    raw(server, request_bytes)
    assert ask("/")[0] == 200


def test_one_connection_takes_many_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    for path in (HANDLE, "/none", "/", HANDLE):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert not answer.will_close
    connection.close()


def test_fifty_concurrent_clients(server, hub, publish, tmp_path, capfd):
    """All clients are mid-download at the same time, and each gets every byte."""
    weights = os.urandom(8 << 20)  # more than the socket buffers hold
    large = make_export(tmp_path / "exports", arch="large", content=weights)
    assert publish(large, f"--hub={hub}").returncode == 0
    handle = HANDLE.replace("toy", "large")
    expected = hashlib.sha256((hub / handle[1:]).read_bytes()).hexdigest()
    barrier = threading.Barrier(50)

    def download(_):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.request("GET", f"{handle}?tf-hub-format=compressed")
        answer = connection.getresponse()
        digest = hashlib.sha256(answer.read(1 << 10))
        barrier.wait(60)
        while chunk := answer.read(1 << 16):
            digest.update(chunk)
        return digest.hexdigest()

    with concurrent.futures.ThreadPoolExecutor(50) as clients:
        assert set(clients.map(download, range(50))) == {expected}
    assert "Traceback" not in capfd.readouterr().err


def start(*arguments):
    command = [sys.executable, ROOT / "tools" / "serve", *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_stops_at_a_signal(hub, number):
    process = start(hub, "--port=0")
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):  # an idle client
        time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_a_one_line_error(hub, server):
    process = start(hub, f"--port={server.server_port}")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert f"--port={server.server_port}: Address already in use" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DIR is missing"),
        (["{tmp}"], "is not a hub: it has no index.json"),
        (["{hub}", "--site={tmp}/none"], "--site must be a folder"),
        (["{hub}", "--port=70000"], "--port=70000"),
        (["{hub}", "--host=nonsense.invalid", "--port=0"], "can't listen on"),
    ],
)
def test_wrong_usage_is_a_one_line_error(tool, hub, tmp_path, arguments, message):
    names = {"hub": hub, "tmp": tmp_path}
    done = tool("serve", *(argument.format(**names) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("serve: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_copy_of_a_hub_is_a_hub(hub, tmp_path):
    """A hub does not depend on its location."""
    copy = shutil.copytree(hub, tmp_path / "copy")
    process = start(copy, "--port=0")
    address = process.stdout.readline().strip()
    host = address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(host)
    connection.request("GET", HANDLE)
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
    process.terminate()
    process.communicate(timeout=10)
