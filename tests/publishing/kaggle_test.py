"""Uploads with kagglehub to a fake Kaggle server, which acts as its proxy."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from exporters import manifest
from tests.publishing import standin
from tests.publishing.conftest import make_export

pytest.importorskip("kagglehub")
TOKEN = "KGAT_secretsecretsecret"
VARIATIONS = {kind: f"me/toy/{kind.replace('_', '-')}" for kind in manifest.KINDS}
HANDLES = ["me/toy/tensorFlow2/feature-vector/1", "me/toy/tensorFlow2/classification/1"]


class Handler(standin.Handler):
    def answer(self, path, query):
        if upload := re.fullmatch(r"/upload/(\d+)", path):
            return self.upload(upload[1])
        name = path.rpartition("/")[2]
        action = ACTIONS.get(name)
        body = json.loads(self.body())
        if not self.headers.get("Authorization"):
            return self.reply(401, {"code": 401, "message": "who are you?"})
        return action(self, body) if action else self.missing()

    def missing(self):
        self.reply(404, {"code": 404, "message": "there is no such thing"})

    def get_model(self, request):
        name = f"{request['ownerSlug']}/{request['modelSlug']}"
        if name not in self.server.models:
            return self.missing()
        return self.reply(200, {"slug": request["modelSlug"]})

    def create_model(self, request):
        assert request["isPrivate"]
        self.server.models.add(f"{request['ownerSlug']}/{request['slug']}")
        self.reply(200, {"id": 1})

    def get_instance(self, request):
        versions = self.server.versions.get(variation(request))
        if not versions:
            return self.missing()
        return self.reply(200, {"versionNumber": len(versions)})

    def start_upload(self, request):
        number = str(len(self.server.blobs))
        self.server.blobs[number] = (request["name"], request["contentLength"], b"")
        url = f"{self.server.url}/upload/{number}"
        self.reply(200, {"token": number, "createUrl": url})

    def upload(self, number):
        """Accepts resumable uploads like Google Cloud Storage."""
        name, size, received = self.server.blobs[number]
        content_range = self.headers["Content-Range"]
        if content_range == f"bytes */{size}":
            self.body()
            headers = {"Range": f"bytes=0-{len(received) - 1}"} if received else {}
            return self.reply(200 if len(received) == size else 308, **headers)
        assert content_range == f"bytes {len(received)}-{size - 1}/{size}"
        first_part = self.breaks_off()
        content = received + (self.body() if first_part is None else first_part)
        self.server.blobs[number] = (name, size, content)
        return self.reply(200) if first_part is None else None

    def create_instance(self, request):
        request = {**request, **request.pop("body")}
        if variation(request) in self.server.versions:
            return self.reply(200, {"error": "it exists", "errorCode": 409})
        assert request["framework"] == "MODEL_FRAMEWORK_TENSOR_FLOW_2"
        assert request["licenseName"] == "Apache 2.0"
        return self.add_version(request)

    def create_version(self, request):
        request = {**request, **request.pop("body")}
        assert re.fullmatch(r"version \d+, sha256 [\da-f]{64}", request["versionNotes"])
        self.add_version(request)

    def add_version(self, request):
        files = dict(self.named(request))
        self.server.versions.setdefault(variation(request), []).append(files)
        self.reply(200, {"id": 1, "url": "/models"})

    def named(self, folder, path=""):
        for file in folder.get("files", ()):
            name, size, content = self.server.blobs[file["token"]]
            assert len(content) == size
            yield path + name, content
        for inner in folder.get("directories", ()):
            yield from self.named(inner, f"{path}{inner['name']}/")

    def download(self, request):
        files = self.server.versions[variation(request)][request["versionNumber"] - 1]
        kind = {"Content_Type": "application/octet-stream"}
        self.reply(200, files[request["path"]], **kind)

    def update(self, request):
        self.server.pages[variation(request)] = request
        self.reply(200, {"id": 1})


ACTIONS = {
    "GetModel": Handler.get_model,
    "CreateModel": Handler.create_model,
    "GetModelInstance": Handler.get_instance,
    "StartBlobUpload": Handler.start_upload,
    "CreateModelInstance": Handler.create_instance,
    "CreateModelInstanceVersion": Handler.create_version,
    "DownloadModelInstanceVersion": Handler.download,
    "UpdateModelInstance": Handler.update,
}


def variation(request):
    return "/".join(request[f"{part}Slug"] for part in ("owner", "model", "instance"))


@pytest.fixture
def fake_kaggle():
    with standin.Server(Handler) as server:
        server.models, server.versions = set(), {}
        server.blobs, server.pages = {}, {}
        yield server


@pytest.fixture
def environment(fake_kaggle, tmp_path):
    # kagglehub maps "LOCALHOST" to http://localhost, and reaches that through a proxy.
    return {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": fake_kaggle.url,
        "http_proxy": fake_kaggle.url,
        "NO_PROXY": "",
        "no_proxy": "",
        "KAGGLE_API_TOKEN": TOKEN,
        "KAGGLEHUB_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def send(publish, environment):
    def send(export, *arguments, **overrides):
        variables = {**environment, **overrides}
        done = publish(export, "--hub=kaggle:me", *arguments, **variables)
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return send


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_each_model_is_a_variation(fake_kaggle, send, export):
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    for kind, name in VARIATIONS.items():
        assert fake_kaggle.versions[name] == [contents(export / kind / "1")]
        page = fake_kaggle.pages[name]
        assert (page["overview"], page["fineTunable"]) == ("Toy", True)
        assert page["updateMask"] == "fineTunable,overview"
    assert f"Bearer {TOKEN}" in fake_kaggle.tokens


@pytest.mark.slow
def test_a_dry_run_lists_files_and_sends_nothing(fake_kaggle, send, export):
    dry = send(export, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert {path.rpartition("/")[2] for _, path in fake_kaggle.seen} == {
        "GetModelInstance"
    }
    assert send(export).returncode == 0
    sent = {
        f"{hashlib.sha256(data).hexdigest()}  {len(data):>12}  {handle}/{path}"
        for handle, name in zip(HANDLES, VARIATIONS.values(), strict=True)
        for path, data in fake_kaggle.versions[name][0].items()
    }
    listed = set(dry.stdout.splitlines())
    assert sent <= listed
    assert [line.rpartition("/")[2] for line in sorted(listed - sent)] == [
        "classification#model-instance-metadata.json",
        "feature-vector#model-instance-metadata.json",
    ]


@pytest.mark.ci
def test_the_same_bytes_are_not_published_again(fake_kaggle, send, export):
    assert send(export).returncode == 0
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    assert "already published" in done.stderr
    assert [len(versions) for versions in fake_kaggle.versions.values()] == [1, 1]


@pytest.mark.ci
def test_different_bytes_of_a_version_are_rejected(fake_kaggle, send, export, tmp_path):
    assert send(export).returncode == 0
    other = make_export(tmp_path / "others", content=b"other")
    done = send(other)
    assert done.returncode == 2
    assert f"{HANDLES[0]} is already published with a different assets" in done.stderr
    assert "export with --version=2" in done.stderr
    assert [len(versions) for versions in fake_kaggle.versions.values()] == [1, 1]


@pytest.mark.ci
def test_the_next_version(fake_kaggle, send, export, tmp_path):
    assert send(export).returncode == 0
    make_export(tmp_path / "exports", version=2, content=b"better")
    done = send(export)
    assert done.returncode == 0, done.stderr
    versions = fake_kaggle.versions["me/toy/classification"]
    assert [files["variables/variables.data"] for files in versions] == [
        b"weights" * 10_000,
        b"better",
    ]


def test_a_version_that_kaggle_would_number_differently(fake_kaggle, send, tmp_path):
    export = make_export(tmp_path, version=3)
    done = send(export)
    assert done.returncode == 2
    assert (
        "the next version of me/toy/tensorFlow2/feature-vector is 1, not 3"
        in done.stderr
    )
    assert not fake_kaggle.versions


@pytest.mark.ci
def test_an_interrupted_upload_resumes(fake_kaggle, send, export):
    fake_kaggle.breaks = 1
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert fake_kaggle.breaks == 0
    for kind, name in VARIATIONS.items():
        assert fake_kaggle.versions[name] == [contents(export / kind / "1")]


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file(fake_kaggle, send, start, export, environment):
    """An incomplete version is not visible."""
    fake_kaggle.breaks = 1
    process = start(export, "--hub=kaggle:me", **environment)
    assert fake_kaggle.broken.wait(60)
    process.kill()
    process.wait()
    assert not fake_kaggle.versions
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    for kind, name in VARIATIONS.items():
        assert fake_kaggle.versions[name] == [contents(export / kind / "1")]


@pytest.mark.ci
def test_a_published_model_is_not_sent_again(fake_kaggle, send, export):
    assert send(export).returncode == 0
    del fake_kaggle.versions["me/toy/classification"]
    assert send(export).returncode == 0
    assert [len(versions) for versions in fake_kaggle.versions.values()] == [1, 1]


def test_a_missing_token_is_a_one_line_error(send, export):
    done = send(export, KAGGLE_API_TOKEN="")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: Kaggle: ")


def test_an_unreachable_hub_is_a_one_line_error(send, export):
    unreachable = "http://127.0.0.1:9"
    done = send(export, HTTP_PROXY=unreachable, http_proxy=unreachable)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: Kaggle: ")
