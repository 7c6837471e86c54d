"""Fixtures: exports made without TensorFlow, hubs, and the publishing tool."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from exporters import manifest
from publishing import hub as hubs
from publishing import releasing
from tests.publishing import publisher

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def contents(folder):
    """Returns the bytes of all files by their paths in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def make_export(
    output,
    *,
    arch="toy",
    version=1,
    content=b"weights" * 10_000,
    weights="toy",
    model_format="saved_model",
    build=None,
    file="saved_model.pb",
    fields=None,
    more_files=None,
):
    """Writes OUT/ARCH like tools/export, with arbitrary bytes in place of models.

    `fields` returns more fields of the manifest of a kind. `more_files` has texts of
    files in `assets`, by kind and name.
    """
    models = {}
    for kind in manifest.KINDS:
        folder = output / arch / kind / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / file).write_bytes(kind.encode() * 1000)
        (folder / "variables" / "variables.data").write_bytes(content)
        for name, text in (more_files or {}).get(kind, {}).items():
            (folder / "assets").mkdir(exist_ok=True)
            (folder / "assets" / name).write_text(text)
        record = {
            **dict.fromkeys(manifest.Manifest.__annotations__, ""),
            "license": "Apache-2.0",
            "weights": {"name": weights},
            **(fields(kind) if fields else {}),
            "arch": arch,
            "format": model_format,
            "kind": kind,
            "version": version,
            "files": manifest.file_hashes(folder),
        }
        (folder / "assets.extra").mkdir()
        (folder / manifest.MANIFEST).write_text(manifest.to_json(record))
        models[kind] = {
            "sha256": manifest.content_hash(manifest.file_hashes(folder)),
            "manifest_sha256": manifest.manifest_hash(folder),
        }
    pair_file = output / arch / f"pair-{version}.json"
    pair_file.write_text(json.dumps({**(build or {}), "models": models}))
    return output / arch


def add_format(export, name, *, build=None, **options):
    """Adds the same pair in another format to an export."""
    scratch = export.parent / "scratch"
    made = make_export(
        scratch, arch=export.name, model_format=name, build=build, **options
    )
    made.rename(export / name)
    (export / name / "report-1.json").write_text('{"images": 32}\n')
    return export / name


@pytest.fixture
def export(tmp_path):
    return make_export(tmp_path / "exports")


def start_process(*arguments, **environment):
    """Starts the tool as a process, without the conformance suite."""
    command = [sys.executable, HERE / "publisher.py", *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.fixture
def start():
    """Returns a function that starts the tool; kills its processes after the test."""
    processes = []

    def start(*arguments, **environment):
        processes.append(start_process(*arguments, **environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def publish():
    """Returns a function that runs the tool and returns the completed process."""

    def run(*arguments, **environment):
        process = start_process(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=500)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            process.args, process.returncode, stdout=out, stderr=err
        )

    return run


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Returns a hub with one pair; tests must not change it."""
    folder = tmp_path_factory.mktemp("published")
    releasing.release(
        make_export(folder / "exports"),
        destination=hubs.Hub(folder / "hub", "image-model-zoo", publisher.Pages()),
        documents=publisher.documents,
        check=publisher.check,
        suite="of the tests",
        dry_run=False,
    )
    return folder / "hub"


@pytest.fixture
def hub(published, tmp_path):
    """Returns a copy of the hub that a test may change."""
    return pathlib.Path(shutil.copytree(published, tmp_path / "hub"))
