"""Uploads with huggingface_hub to a fake hub that accepts Git LFS and Xet."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re

import pytest

from exporters import manifest
from tests.publishing import standin
from tests.publishing.conftest import make_export

pytest.importorskip("huggingface_hub")
TOKEN = "hf_secretsecretsecret"
HANDLES = [f"me/toy-{kind}@v1" for kind in manifest.KINDS]


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(standin.Handler):
    def answer(self, path, query):
        for pattern, action in ACTIONS:
            method, _, expression = pattern.partition(" ")
            match = re.fullmatch(expression, path)
            if match and method == self.command:
                return action(self, *match.groups())
        return self.reply(404, {"error": f"unknown: {path}"})

    def create(self):
        request = json.loads(self.body())
        name = f"{request['organization']}/{request['name']}"
        if name in self.server.repositories:
            answer = {"error": "it exists", "url": f"{self.server.url}/{name}"}
            return self.reply(409, answer)
        first = {".gitattributes": b""}
        self.server.repositories[name] = {"commits": [first], "tags": {}}
        return self.reply(200, {"url": f"{self.server.url}/{name}"})

    def revision(self, name, revision):
        """Returns the files at a revision, or sends an error and returns None."""
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.reply(404, {"error": "no"}, X_Error_Code="RepoNotFound")
        tags = repository["tags"]
        number = tags.get(revision, -1 if revision == "main" else None)
        if number is None:
            return self.reply(404, {"error": "no"}, X_Error_Code="RevisionNotFound")
        return repository["commits"][number]

    def tree(self, name, revision):
        files = self.revision(name, revision)
        if files is None:
            return
        entries = [{"type": "directory", "path": "variables", "oid": "0", "size": 0}]
        for path, content in files.items():
            size, sha256 = len(content), hashlib.sha256(content).hexdigest()
            entry = {"type": "file", "path": path, "size": size}
            entry["oid"] = git_hash(content)
            if is_large(path):
                entry["oid"] = git_hash(b"a pointer")
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 9}
            entries.append(entry)
        self.reply(200, entries)

    def preupload(self, name, revision):
        files = self.revision(name, revision)
        answers = []
        for file in json.loads(self.body())["files"]:
            path = file["path"]
            large, oid = is_large(path), None
            if path in files:
                by_git = git_hash(files[path])
                oid = hashlib.sha256(files[path]).hexdigest() if large else by_git
            mode = "lfs" if large else "regular"
            answers.append(
                {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self.reply(200, {"files": answers})

    def batch(self, name):
        objects = []
        for lfs_object in json.loads(self.body())["objects"]:
            oid = lfs_object["oid"]
            if oid not in self.server.objects:
                link = {"href": f"{self.server.url}/upload/{oid}"}
                lfs_object["actions"] = {"upload": link}
            objects.append(lfs_object)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid):
        if self.breaks_off() is not None:
            return
        content = self.body()
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        self.reply(200)

    def commit(self, name, revision):
        files = dict(self.revision(name, revision))
        for line in self.body().splitlines():
            value = json.loads(line)["value"]
            match json.loads(line)["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commits = self.server.repositories[name]["commits"]
        commits.append(files)
        oid = f"{len(commits) - 1:040x}"
        self.reply(200, {"commitUrl": f"{self.server.url}/{name}", "commitOid": oid})

    def information(self, name, revision):
        oid = f"{len(self.server.repositories[name]['commits']) - 1:040x}"
        self.reply(200, {"id": name, "sha": oid, "siblings": [], "tags": []})

    def tag(self, name, oid):
        name_of_tag = json.loads(self.body())["tag"]
        if self.server.refuses_tags:
            return self.reply(500, {"error": "not today"})
        self.server.repositories[name]["tags"][name_of_tag] = int(oid, 16)
        return self.reply(200, {})

    def validate(self):
        self.body()
        self.reply(200, {"warnings": []})

    def xet_token(self, name, revision):
        answer = {"casUrl": self.server.url, "exp": 1 << 33, "accessToken": "xet"}
        self.reply(200, answer)

    def xorb(self):
        self.server.xorbs.append(self.body())
        self.reply(200, {"was_inserted": True})

    def shard(self):
        """Stores the expected files whose SHA-256 is in the shard.

        Xorbs hold packed chunks, so the test supplies the contents of the files. A
        shard has each file's SHA-256 in byte-reversed words of 8 bytes.
        """
        body = self.body()
        for content in self.server.expected:
            digest = hashlib.sha256(content).digest()
            words = [digest[start : start + 8][::-1] for start in range(0, 32, 8)]
            if b"".join(words) in body:
                self.server.objects[digest.hex()] = content
        self.reply(200, {"result": 1})

    def no(self):
        self.body()
        self.reply(404, {"error": "no"})


_NAME = r"/api/models/([\w.-]+/[\w.-]+)"
ACTIONS = [
    ("POST /api/repos/create", Handler.create),
    ("POST /api/validate-yaml", Handler.validate),
    (f"GET {_NAME}/tree/(.*)", Handler.tree),
    (f"GET {_NAME}/revision/(.*)", Handler.information),
    (f"POST {_NAME}/preupload/(.*)", Handler.preupload),
    (f"POST {_NAME}/commit/(.*)", Handler.commit),
    (f"POST {_NAME}/tag/(.*)", Handler.tag),
    (r"POST /([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /upload/(\w+)", Handler.upload),
    (f"GET {_NAME}/xet-write-token/(.*)", Handler.xet_token),
    (r"POST /v1/xorbs/.*", Handler.xorb),
    (r"POST /v1/shards", Handler.shard),
    (r"POST /v\d/.*", Handler.no),  # older API paths for the same
]


def is_large(path):
    return path.endswith((".pb", ".data"))


@pytest.fixture
def fake_hub():
    with standin.Server(Handler) as server:
        server.repositories, server.objects = {}, {}
        server.refuses_tags = False
        server.expected, server.xorbs = [], []
        yield server


@pytest.fixture
def environment(fake_hub, tmp_path):
    return {
        "HF_ENDPOINT": fake_hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
    }


@pytest.fixture
def send(publish, environment):
    def send(export, *arguments):
        done = publish(export, "--hub=hf:me", *arguments, **environment)
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return send


def files_at(server, kind, tag="v1"):
    repository = server.repositories[f"me/toy-{kind}"]
    return repository["commits"][repository["tags"][tag]]


def test_each_model_is_a_repository(fake_hub, send, export):
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    for kind in manifest.KINDS:
        sent = files_at(fake_hub, kind)
        folder = export / kind / "1"
        model = [p for p in folder.rglob("*") if p.is_file()]
        for path in model:
            assert sent[path.relative_to(folder).as_posix()] == path.read_bytes()
        others = {"README.md", "conformance.json", ".gitattributes"}
        assert len(sent) == len(model) + len(others)
        assert sent["README.md"].startswith(b"---\nlicense: apache-2.0")
    assert f"Bearer {TOKEN}" in fake_hub.tokens


@pytest.mark.ci
def test_uploads_by_xet_which_is_the_default(fake_hub, publish, environment, tmp_path):
    weights = os.urandom(5000)  # incompressible
    export = make_export(tmp_path, content=weights)
    fake_hub.expected = [weights, *(p.read_bytes() for p in export.rglob("*.pb"))]
    del environment["HF_HUB_DISABLE_XET"]
    done = publish(export, "--hub=hf:me", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    assert any(weights in xorb for xorb in fake_hub.xorbs)
    assert not any(path.startswith("/upload") for _, path in fake_hub.seen)
    sent = files_at(fake_hub, "classification")
    assert sent["variables/variables.data"] == weights
    done = publish(export, "--hub=hf:me", **environment)
    assert "already published" in done.stderr


def test_a_dry_run_lists_files_and_sends_nothing(fake_hub, send, export):
    dry = send(export, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert {method for method, _ in fake_hub.seen} == {"GET"}
    assert send(export).returncode == 0
    sent = {
        f"{hashlib.sha256(data).hexdigest()}  {len(data):>12}  me/toy-{kind}@v1/{path}"
        for kind in manifest.KINDS
        for path, data in files_at(fake_hub, kind).items()
        if path != ".gitattributes"
    }
    assert set(dry.stdout.splitlines()) == sent


@pytest.mark.ci
def test_the_same_bytes_are_not_published_again(fake_hub, send, export):
    assert send(export).returncode == 0
    fake_hub.seen.clear()
    done = send(export)
    assert done.returncode == 0
    assert done.stdout.splitlines() == HANDLES
    assert "already published" in done.stderr
    assert {method for method, _ in fake_hub.seen} == {"GET"}


@pytest.mark.ci
def test_different_bytes_of_a_version_are_rejected(fake_hub, send, export, tmp_path):
    assert send(export).returncode == 0
    other = make_export(tmp_path / "others", content=b"other")
    done = send(other)
    assert done.returncode == 2
    assert "me/toy-feature_vector@v1 is already published with a" in done.stderr
    assert len(fake_hub.repositories["me/toy-classification"]["commits"]) == 2


@pytest.mark.ci
def test_a_later_version_leaves_the_first_unchanged(fake_hub, send, export, tmp_path):
    assert send(export).returncode == 0
    first = dict(files_at(fake_hub, "classification"))
    make_export(tmp_path / "exports", version=2, content=b"better")
    assert send(export).returncode == 0
    assert files_at(fake_hub, "classification") == first
    second = files_at(fake_hub, "classification", "v2")
    assert second["variables/variables.data"] == b"better"


@pytest.mark.ci
def test_an_interrupted_upload_resumes(fake_hub, send, export):
    fake_hub.breaks = 1
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert fake_hub.breaks == 0
    assert len(files_at(fake_hub, "classification")) == 6


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file(fake_hub, send, start, export, environment):
    """An incomplete version is not visible."""
    fake_hub.breaks = 1
    process = start(export, "--hub=hf:me", **environment)
    assert fake_hub.broken.wait(60)
    process.kill()
    process.wait()
    repository = fake_hub.repositories["me/toy-feature_vector"]
    assert len(repository["commits"]) == 1
    assert repository["tags"] == {}
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    assert len(files_at(fake_hub, "classification")) == 6


@pytest.mark.slow
def test_a_version_without_its_tag_is_completed(fake_hub, send, export):
    fake_hub.refuses_tags = True
    done = send(export)
    assert done.returncode == 2
    commits = fake_hub.repositories["me/toy-feature_vector"]["commits"]
    assert len(commits) == 2
    fake_hub.refuses_tags = False
    done = send(export)
    assert done.returncode == 0, done.stderr
    assert len(commits) == 2
    assert len(files_at(fake_hub, "feature_vector")) == 6


@pytest.mark.slow  # the library tries for 23 seconds
def test_an_unreachable_hub_is_a_one_line_error(publish, export, environment):
    unreachable = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = publish(export, "--hub=hf:me", **unreachable)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("publish: Hugging Face: ")
    assert TOKEN not in done.stderr
    assert "Traceback" not in done.stderr
