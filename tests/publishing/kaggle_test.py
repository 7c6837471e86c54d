"""Uploads by kagglehub itself, to a stand-in that it finds as its proxy."""

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

    def get_model(self, asked):
        name = f"{asked['ownerSlug']}/{asked['modelSlug']}"
        if name not in self.server.models:
            return self.missing()
        return self.reply(200, {"slug": asked["modelSlug"]})

    def create_model(self, asked):
        assert asked["isPrivate"]
        self.server.models.add(f"{asked['ownerSlug']}/{asked['slug']}")
        self.reply(200, {"id": 1})

    def get_instance(self, asked):
        versions = self.server.versions.get(variation(asked))
        if not versions:
            return self.missing()
        return self.reply(200, {"versionNumber": len(versions)})

    def start_upload(self, asked):
        number = str(len(self.server.blobs))
        self.server.blobs[number] = (asked["name"], asked["contentLength"], b"")
        url = f"{self.server.url}/upload/{number}"
        self.reply(200, {"token": number, "createUrl": url})

    def upload(self, number):
        """As Google's storage takes uploads that can be resumed."""
        name, size, held = self.server.blobs[number]
        wanted = self.headers["Content-Range"]
        if wanted == f"bytes */{size}":
            self.body()
            there = {"Range": f"bytes=0-{len(held) - 1}"} if held else {}
            return self.reply(200 if len(held) == size else 308, **there)
        assert wanted == f"bytes {len(held)}-{size - 1}/{size}"
        half = self.breaks_off()
        content = held + (self.body() if half is None else half)
        self.server.blobs[number] = (name, size, content)
        return self.reply(200) if half is None else None

    def create_instance(self, asked):
        asked = {**asked, **asked.pop("body")}
        if variation(asked) in self.server.versions:
            return self.reply(200, {"error": "it exists", "errorCode": 409})
        assert asked["framework"] == "MODEL_FRAMEWORK_TENSOR_FLOW_2"
        assert asked["licenseName"] == "Apache 2.0"
        return self.add_version(asked)

    def create_version(self, asked):
        asked = {**asked, **asked.pop("body")}
        assert re.fullmatch(r"version \d+, sha256 [\da-f]{64}", asked["versionNotes"])
        self.add_version(asked)

    def add_version(self, asked):
        files = dict(self.named(asked))
        self.server.versions.setdefault(variation(asked), []).append(files)
        self.reply(200, {"id": 1, "url": "/models"})

    def named(self, folder, path=""):
        for file in folder.get("files", ()):
            name, size, content = self.server.blobs[file["token"]]
            assert len(content) == size
            yield path + name, content
        for inner in folder.get("directories", ()):
            yield from self.named(inner, f"{path}{inner['name']}/")

    def download(self, asked):
        files = self.server.versions[variation(asked)][asked["versionNumber"] - 1]
        kind = {"Content_Type": "application/octet-stream"}
        self.reply(200, files[asked["path"]], **kind)

    def update(self, asked):
        self.server.pages[variation(asked)] = asked
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


def variation(asked):
    return "/".join(asked[f"{part}Slug"] for part in ("owner", "model", "instance"))


@pytest.fixture
def standing_in():
    with standin.Server(Handler) as server:
        server.models, server.versions = set(), {}
        server.blobs, server.pages = {}, {}
        yield server


@pytest.fixture
def environment(standing_in, tmp_path):
    # "LOCALHOST" is http://localhost to it; a proxy is asked for that in its stead.
    return {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": standing_in.url,
        "http_proxy": standing_in.url,
        "NO_PROXY": "",
        "no_proxy": "",
        "KAGGLE_API_TOKEN": TOKEN,
        "KAGGLEHUB_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def send(publish, environment):
    def send(export, *arguments, **further):
        variables = {**environment, **further}
        done = publish(export, "--hub=kaggle:me", *arguments, **variables)
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return send


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_each_half_is_a_variation(standing_in, send, export):
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    for kind, name in VARIATIONS.items():
        assert standing_in.versions[name] == [contents(export / kind / "1")]
        page = standing_in.pages[name]
        assert (page["overview"], page["fineTunable"]) == ("Toy", True)
        assert page["updateMask"] == "fineTunable,overview"
    assert f"Bearer {TOKEN}" in standing_in.tokens


def test_a_dry_run_lists_what_is_sent_and_sends_nothing(standing_in, send, export):
    dry = send(export, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert {path.rpartition("/")[2] for _, path in standing_in.seen} == {
        "GetModelInstance"
    }
    assert send(export).returncode == 0
    sent = {
        f"{hashlib.sha256(data).hexdigest()}  {len(data):>12}  {handle}/{path}"
        for handle, name in zip(HANDLES, VARIATIONS.values(), strict=True)
        for path, data in standing_in.versions[name][0].items()
    }
    listed = set(dry.stdout.splitlines())
    assert sent <= listed
    assert [line.rpartition("/")[2] for line in sorted(listed - sent)] == [
        "classification#model-instance-metadata.json",
        "feature-vector#model-instance-metadata.json",
    ]


def test_the_same_bytes_are_published_already(standing_in, send, export):
    assert send(export).returncode == 0
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    assert "published already" in done.stderr
    assert [len(versions) for versions in standing_in.versions.values()] == [1, 1]


def test_other_bytes_of_a_version_are_refused(standing_in, send, export, tmp_path):
    assert send(export).returncode == 0
    other = make_export(tmp_path / "others", content=b"other")
    done = send(other)
    assert done.returncode == 2
    assert f"{HANDLES[0]} is published already, with another assets" in done.stderr
    assert "export it with --version=2" in done.stderr
    assert [len(versions) for versions in standing_in.versions.values()] == [1, 1]


def test_the_next_version(standing_in, send, export, tmp_path):
    assert send(export).returncode == 0
    make_export(tmp_path / "exports", version=2, content=b"better")
    done = send(export)
    assert done.returncode == 0, done.stderr
    versions = standing_in.versions["me/toy/classification"]
    assert [files["variables/variables.data"] for files in versions] == [
        b"weights" * 10_000,
        b"better",
    ]


def test_a_version_that_kaggle_would_number_otherwise(standing_in, send, tmp_path):
    export = make_export(tmp_path, version=3)
    done = send(export)
    assert done.returncode == 2
    assert (
        "the next one of me/toy/tensorFlow2/feature-vector is 1, not 3" in done.stderr
    )
    assert not standing_in.versions


def test_an_upload_that_breaks_off_goes_on_where_it_was(standing_in, send, export):
    standing_in.breaks = 1
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert standing_in.breaks == 0
    for kind, name in VARIATIONS.items():
        assert standing_in.versions[name] == [contents(export / kind / "1")]


def test_killed_in_the_middle_of_a_file(standing_in, send, start, export, environment):
    """No version of it is seen before it is whole."""
    standing_in.breaks = 1
    process = start(export, "--hub=kaggle:me", **environment)
    assert standing_in.broken.wait(60)
    process.kill()
    process.wait()
    assert not standing_in.versions
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    for kind, name in VARIATIONS.items():
        assert standing_in.versions[name] == [contents(export / kind / "1")]


def test_one_half_that_is_there_is_not_sent_again(standing_in, send, export):
    assert send(export).returncode == 0
    del standing_in.versions["me/toy/classification"]
    assert send(export).returncode == 0
    assert [len(versions) for versions in standing_in.versions.values()] == [1, 1]


def test_without_a_token_it_is_a_line(send, export):
    done = send(export, KAGGLE_API_TOKEN="")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: Kaggle: ")


def test_nobody_there_is_one_line(send, export):
    nobody = "http://127.0.0.1:9"
    done = send(export, HTTP_PROXY=nobody, http_proxy=nobody)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: Kaggle: ")
