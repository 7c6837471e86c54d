"""Tests downloads from a local server that breaks off, sends wrong data or is down."""

import hashlib
import http.server
import io
import multiprocessing
import tarfile
import threading

import pytest

from zoo.weights import downloads, registry

DATA = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 8192  # 2 MiB


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks off each answer after `stops_after` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/weights.h5": DATA}
        self.headers = {}
        self.stops_after = None
        self.supports_ranges = True
        self.failures = []
        self.requested_ranges = []

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requested_ranges.append(self.headers.get("Range"))
        data = server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = 0
        if server.failures:
            self.send_error(server.failures.pop())
            return
        tag = server.headers.get("ETag")
        unchanged = self.headers.get("If-Range", tag) == tag
        if server.supports_ranges and unchanged and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        stop = start + server.stops_after if server.stops_after else len(data)
        self.wfile.write(data[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_MODEL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def record(server, name="weights.h5", **fields):
    return {"url": server.url(name), **fields}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_fetched_once_and_seen(server):
    seen = []
    registry_record = record(
        server, sha256=sha256(DATA), md5=hashlib.md5(DATA).hexdigest()
    )
    path = downloads.fetch(registry_record, progress=lambda *args: seen.append(args))
    assert path.read_bytes() == DATA
    assert seen[-1] == ("weights.h5", len(DATA), len(DATA))
    assert [received for _, received, _ in seen] == sorted(
        {received for _, received, _ in seen}
    )
    assert downloads.fetch(registry_record) == path
    assert server.requested_ranges == [None]


def test_a_download_goes_on_where_it_broke_off(server):
    server.stops_after = len(DATA) // 2
    path = downloads.fetch(record(server, sha256=sha256(DATA)))
    assert path.read_bytes() == DATA
    assert server.requested_ranges == [None, f"bytes={len(DATA) // 2}-"]


def test_another_run_goes_on_where_the_last_was_stopped(server):
    server.stops_after = 1000
    registry_record = record(server, sha256=sha256(DATA))
    with pytest.raises(ValueError, match="ended after 3000 of 2097160 bytes.*or put"):
        downloads.fetch(registry_record)
    server.stops_after = None
    assert downloads.fetch(registry_record).read_bytes() == DATA
    assert server.requested_ranges[-1] == "bytes=3000-"


def test_a_server_without_ranges_begins_again(server):
    server.stops_after = 1000
    with pytest.raises(ValueError, match="ended after"):
        downloads.fetch(record(server))
    server.stops_after, server.supports_ranges = None, False
    assert downloads.fetch(record(server)).read_bytes() == DATA


def test_a_file_that_changed_meanwhile_begins_again(server):
    server.headers, server.stops_after = {"ETag": '"1"'}, 1000
    with pytest.raises(ValueError, match="ended after"):
        downloads.fetch(record(server))
    new = DATA[:8] + DATA[8:][::-1]
    server.headers, server.stops_after = {"ETag": '"2"'}, None
    server.files["/weights.h5"] = new
    assert downloads.fetch(record(server)).read_bytes() == new
    assert [path.name for path in downloads.folder().rglob("weights*")] == [
        "weights.h5"
    ]


def test_a_server_that_is_busy_is_asked_again(server):
    server.failures = [503, 429]
    assert downloads.fetch(record(server)).read_bytes() == DATA
    server.files["/other.h5"], server.failures = DATA, [503] * 3
    with pytest.raises(ValueError, match="answers 503"):
        downloads.fetch(record(server, "other.h5"))


def test_a_part_that_is_too_long_begins_again(server):
    server.stops_after = 1000
    with pytest.raises(ValueError, match="ended after"):
        downloads.fetch(record(server))
    (part,) = downloads.folder().rglob("*.part")
    part.write_bytes(DATA + b"more")
    server.stops_after = None
    assert downloads.fetch(record(server)).read_bytes() == DATA


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_what_is_not_the_registrys_is_refused_each_time(server, kind):
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"weights\.h5 is not .*{kind}.*ed 00"):
            downloads.fetch(record(server, **{kind: "00"}))


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "is a web page, not a file"),
        ({"Content-Encoding": "gzip"}, "the answer is compressed"),
        ({"Content-Range": "bytes 7-9/10"}, "bytes from 0 on were requested"),
    ],
)
def test_answers_that_are_no_file_are_refused(server, headers, message):
    server.headers = headers
    with pytest.raises(ValueError, match=message):
        downloads.fetch(record(server))
    assert not list(downloads.folder().rglob("weights*"))


def test_what_is_no_weights_is_not_kept(server):
    server.files["/weights.h5"] = b"busy, come back later"
    with pytest.raises(ValueError, match=r"was removed: .*has no weights in a"):
        downloads.fetch(record(server))
    server.files["/weights.h5"] = DATA
    assert downloads.fetch(record(server)).read_bytes() == DATA


def test_digits_in_a_name_are_verified(server):
    right = f"net-{sha256(DATA)[:8]}.pth"
    server.files |= {f"/{right}": DATA, "/net-0123abcd.pth": DATA}
    assert downloads.fetch(record(server, right, sha256=None)).read_bytes() == DATA
    with pytest.raises(ValueError, match="expected 0123abcd"):
        downloads.fetch(record(server, "net-0123abcd.pth"))


def test_what_is_not_there_says_which_file_to_put_where(server):
    with pytest.raises(ValueError, match=r"answers 404 .*put it at .*none\.h5"):
        downloads.fetch(record(server, "none.h5"))
    server.shutdown()
    server.server_close()
    with pytest.raises(
        ValueError, match=r"refused.*or put the file of .* at "
    ) as caught:
        downloads.fetch(record(server, "weights.h5"))
    assert "\n" not in str(caught.value)
    path = str(caught.value).rpartition(" at ")[2].rstrip(".")
    with open(path, "wb") as file:
        file.write(DATA)
    assert downloads.fetch(record(server)).read_bytes() == DATA


def fetch(url, results):
    results.put(str(downloads.fetch({"url": url}, progress=lambda *_: None)))


def test_two_at_once_fetch_once(server):
    results = multiprocessing.get_context("spawn").Queue()
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=fetch, args=(server.url("weights.h5"), results)
        )
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    paths = {results.get(timeout=60) for _ in processes}
    assert len(paths) == len(server.requested_ranges) == 1


def archive(**members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return data.getvalue()


def test_a_member_of_an_archive_is_unpacked_and_nothing_else(server, tmp_path):
    server.files["/model.tgz"] = archive(
        **{
            "./net/model.ckpt.index": b"index",
            "./net/model.ckpt.data-00000-of-00001": b"data",
            "./net/other": b"other",
            "../../escaped": b"escaped",
            "net/model.ckpt.link": None,
        }
    )
    registry_record = record(server, "model.tgz", member="net/model.ckpt")
    prefix = downloads.fetch(registry_record)
    assert sorted(path.name for path in prefix.parent.iterdir()) == [
        "model.ckpt.data-00000-of-00001",
        "model.ckpt.index",
    ]
    assert prefix.with_name("model.ckpt.index").read_bytes() == b"index"
    assert not list(tmp_path.rglob("escaped"))


def test_archives_that_are_none_are_refused(server):
    registry_record = record(server, "model.tgz", member="model.ckpt")
    cut = archive(other=bytes(range(256)) * 50)[:150]
    server.files["/model.tgz"] = b"no archive"
    with pytest.raises(ValueError, match="is not a tar archive"):
        downloads.fetch(registry_record)
    server.files["/model.tgz"] = cut
    with pytest.raises(ValueError, match=r"is damaged|was removed"):
        downloads.fetch(registry_record)
    server.files["/other.tgz"] = archive(other=b"x")
    with pytest.raises(ValueError, match=r"has no model\.ckpt in it"):
        downloads.fetch(record(server, "other.tgz", member="model.ckpt"))


def test_a_folder_that_can_not_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMAGE_MODEL_ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ValueError, match=r"can't be written.*set IMAGE_MODEL_ZOO_CACHE"
    ):
        downloads.fetch(record(server))


def test_the_registry_finds_a_download(server, monkeypatch):
    records = {"net": record(server, sha256=sha256(DATA), license="MIT")}
    monkeypatch.setattr(registry, "records", lambda arch: records)
    source = registry.find("mobilenet_v2", "net")
    assert source.sha256 == sha256(DATA)
    assert source.record["license"] == "MIT"
