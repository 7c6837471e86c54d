"""A hub in a folder, which any static file server can serve.

PUBLISHER/ARCH/KIND/VERSION                 the model's archive: its path is its handle
PUBLISHER/models/ARCH/KIND/VERSION.md       its page in TensorFlow Hub's Markdown
PUBLISHER/models/ARCH/KIND/VERSION/…        other documents and the conformance report
PUBLISHER/models/ARCH/KIND/VERSION/formats/FORMAT.tar.gz
                                            the model in another format, and
PUBLISHER/models/ARCH/KIND/VERSION/formats/FORMAT.json
                                            how it compares with the SavedModel
index.json                                  published files with hashes; written last
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterable

from exporters import manifest
from foundation import atomic, progress
from publishing import archives, hub_index, pairs, upload_files

_LOG = progress.logger(__name__)

CLEANUP_LIST = ".publishing.json"  # files to remove if the publish is interrupted
TFHUB_DOCUMENT = "tfhub.md"
_PUBLISHER = re.compile(r"[a-z\d-]+", re.ASCII)


class Hub:
    """Publishes models to a folder under a publisher's name.

    A model is published once the index lists it. The index is replaced atomically after
    all files are in place. A process killed before that leaves a list of the files to
    remove.

    Args:
      folder: of the hub; the first publish creates it.
      publisher: lowercase letters, digits and hyphens.

    Raises:
      ValueError: `publisher` has other characters.
    """

    takes_formats = True

    def __init__(self, folder: pathlib.Path, publisher: str):
        if not _PUBLISHER.fullmatch(publisher):
            raise ValueError(
                "--publisher must consist of lowercase letters, digits and hyphens, "
                f"got {publisher!r}."
            )
        self.folder = folder
        self.publisher = publisher

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [self._handle(model) for model in pair.models]

    def _handle(self, model: pairs.ExportedModel) -> str:
        return f"{self.publisher}/{model.name}"

    def has(self, pair: pairs.Pair) -> bool:
        """See `upload_files.Destination`."""
        index = hub_index.read(self.folder)
        published = [model for model in pair.models if self._handle(model) in index]
        for model in published:
            entry = index[self._handle(model)]
            if model.hashes != {name: entry[name] for name in model.hashes}:
                raise ValueError(
                    f"{self._handle(model)} is already published with different bytes, "
                    f"and a published version can't change: export with a --version "
                    f"other than {model.version}."
                )
            self._warn_of_missing_formats(model, pair, entry["files"])
        return len(published) == len(pair.models)

    def _warn_of_missing_formats(
        self, model: pairs.ExportedModel, pair: pairs.Pair, files: Iterable[str]
    ) -> None:
        """Logs the formats that are exported, but were not published with the model."""
        missing = [
            other.format
            for other in pair.others
            if self._format_file(model, f"{other.format}.tar.gz") not in files
        ]
        if missing:
            _LOG.info(
                f"{self._handle(model)} was published without {', '.join(missing)}: "
                "publish another --version to add formats"
            )

    def _format_file(self, model: pairs.ExportedModel, name: str) -> str:
        """Returns the path of a file on another format of a model."""
        return f"{self.publisher}/{pairs.MODELS}/{model.name}/formats/{name}"

    def pack(
        self, pair: pairs.Pair, documents: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """Writes archives and documents; see `upload_files.Destination`."""
        uploads = []
        for model in pair.models:
            archive = scratch / f"{model.kind}.tar.gz"
            archives.write(model.files(), archive)
            uploads.append(upload_files.upload_file(self._handle(model), archive))
            for name, content in sorted(documents[model.kind].items()):
                target = f"{self.publisher}/{pairs.MODELS}/{model.name}/{name}"
                if name == TFHUB_DOCUMENT:
                    target = f"{self.publisher}/{pairs.MODELS}/{model.name}.md"
                uploads.append(upload_files.write_file(target, content, scratch))
        for other in pair.others:
            for model in other.models:
                archive = scratch / f"{model.kind}-{other.format}.tar.gz"
                archives.write(model.files(), archive)
                target = self._format_file(model, f"{other.format}.tar.gz")
                uploads.append(upload_files.upload_file(target, archive))
                if other.report.is_file():
                    target = self._format_file(model, f"{other.format}.json")
                    report = other.report.read_bytes()  # the file itself stays
                    uploads.append(upload_files.write_file(target, report, scratch))
        return uploads

    def publish(self, pair: pairs.Pair, documents: upload_files.Documents) -> None:
        """Publishes both models or none; waits for other publishers to finish."""
        with atomic.locked(self.folder):
            self._clear()
            if self.has(pair):
                return
            with atomic.staging_folder(self.folder) as scratch:
                uploads = self.pack(pair, documents, scratch)
                try:
                    self._place(pair, uploads, scratch)
                finally:
                    self._clear()

    def _place(
        self,
        pair: pairs.Pair,
        uploads: list[upload_files.UploadFile],
        scratch: pathlib.Path,
    ) -> None:
        for upload in uploads:
            if os.path.lexists(self.folder / upload.target):
                raise ValueError(
                    f"{self.folder / upload.target} exists but is not in the index. "
                    "Move it away."
                )
        targets = [upload.target for upload in uploads]
        self._write(CLEANUP_LIST, json.dumps(targets), scratch)
        for upload in uploads:
            atomic.move_into_place(upload.source, self.folder / upload.target)
        index = hub_index.read(self.folder)
        for model in pair.models:
            index[self._handle(model)] = self._entry(model, uploads)
        self._write(hub_index.NAME, hub_index.to_text(index), scratch)

    def _entry(
        self, model: pairs.ExportedModel, uploads: list[upload_files.UploadFile]
    ) -> manifest.JsonObject:
        """Returns the index entry of a model."""
        folder = f"{self.publisher}/{pairs.MODELS}/{model.name}"
        single_files = (self._handle(model), f"{folder}.md")
        return {
            **model.hashes,
            "weights": model.manifest.weights["name"],
            "files": {
                upload.target: {"size": upload.size, "sha256": upload.sha256}
                for upload in uploads
                if upload.target in single_files
                or upload.target.startswith(f"{folder}/")
            },
        }

    def _write(self, name: str, text: str, scratch: pathlib.Path) -> None:
        file = scratch / name
        file.write_text(text, encoding="utf-8")
        atomic.move_into_place(file, self.folder / name)

    def _clear(self) -> None:
        """Removes the files that an unfinished publish placed."""
        published = hub_index.files(hub_index.read(self.folder))
        for target in interrupted_files(self.folder):
            if target not in published:
                path = self.folder / target
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, self.folder)
        (self.folder / CLEANUP_LIST).unlink(missing_ok=True)


def interrupted_files(folder: pathlib.Path) -> list[str]:
    """Returns the files of an unfinished publish, including those not written yet."""
    try:
        return json.loads((folder / CLEANUP_LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []


def _remove_empty(folder: pathlib.Path, root: pathlib.Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
