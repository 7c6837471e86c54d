"""A hub in a folder, which any static file server can serve.

PUBLISHER/ARCH/KIND/VERSION                 the model's archive: its path is its handle
PUBLISHER/models/ARCH/KIND/VERSION.md       its page in TensorFlow Hub's Markdown
PUBLISHER/models/ARCH/KIND/VERSION/…        index.html, its page; its report and other
                                            documents
PUBLISHER/models/ARCH/KIND/VERSION/formats/FORMAT.tar.gz
                                            the model in another format, and
PUBLISHER/models/ARCH/KIND/VERSION/formats/FORMAT.json
                                            how it compares with the SavedModel
PUBLISHER/models/ARCH/KIND/VERSION/model.sig
                                            signature of all other files of this version
signing/…                                   signers, and the signature of index.json
assets/HASH/…                               styles and scripts of the pages
index.json                                  published files with hashes
index.html                                  the front page, which each publish rewrites
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
from collections.abc import Iterable

from exporters import manifest
from foundation import atomic, hub_paths, progress
from publishing import (
    archives,
    hub_index,
    hub_site,
    identities,
    pairs,
    signed_index,
    signing,
    upload_files,
)

_LOG = progress.logger(__name__)

CLEANUP_LIST = ".publishing.json"  # files to remove if the publish is interrupted
TFHUB_DOCUMENT = "tfhub.md"
_PUBLISHER = re.compile(r"[a-z\d-]+", re.ASCII)


class Hub:
    """Publishes models to a folder under a publisher's name.

    A model is published once the index lists it. The index is replaced atomically after
    all files are in place. A process killed before that leaves a list of the files to
    remove. The front page is replaced after the index; if the process is killed in
    between, the next publish replaces it.

    Args:
      folder: of the hub; the first publish creates it.
      publisher: lowercase letters, digits and hyphens, but not `assets`,
        `models` or `signing`.
      pages: writes the pages; without it, the hub gets none.
      signer: signs what is published; a signed hub takes nothing without its signer.

    Raises:
      ValueError: `publisher` is not a valid name.
    """

    takes_formats = True

    def __init__(
        self,
        folder: pathlib.Path,
        publisher: str,
        pages: hub_site.Pages | None = None,
        signer: signing.Signer | None = None,
    ):
        if not _PUBLISHER.fullmatch(publisher):
            raise ValueError(
                "--publisher must consist of lowercase letters, digits and hyphens, "
                f"got {publisher!r}."
            )
        if publisher in (hub_site.ASSETS, identities.FOLDER, hub_paths.MODELS):
            raise ValueError(
                f"--publisher can't be {publisher!r}: the hub has such a folder itself."
            )
        self.folder = folder
        self.publisher = publisher
        self.pages = pages
        self._index = hub_index.Reader(folder)
        self.signer = signer

    @functools.cached_property
    def _assets(self) -> hub_site.AssetFolders:
        return hub_site.asset_folders(self.pages) if self.pages else {}

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [self._handle(model) for model in pair.models]

    def _handle(self, model: pairs.ExportedModel) -> str:
        return f"{self.publisher}/{model.name}"

    def has(self, pair: pairs.Pair) -> bool:
        """See `upload_files.Destination`."""
        whole_index = self._index.read()
        index = whole_index.models
        published = [model for model in pair.models if self._handle(model) in index]
        for model in published:
            entry = index[self._handle(model)]
            if model.hashes != {name: entry[name] for name in model.hashes}:
                raise ValueError(
                    f"{self._handle(model)} is already published with different bytes, "
                    f"and a published version can't change: export with a --version "
                    f"other than {model.version}."
                )
            for path, file in entry["files"].items():
                if problem := upload_files.difference(self.folder / path, file):
                    raise ValueError(
                        f"{self._handle(model)} was published, but {path} {problem}: "
                        "put the file back. tools/publish --verify checks all files."
                    )
            self._warn_of_missing_formats(model, pair, entry["files"])
        is_complete = len(published) == len(pair.models)
        if self.signer or not is_complete:
            signed_index.check_signer(self.folder, whole_index, self.signer)
        if not index:
            self._check_empty()
        return is_complete

    def _check_empty(self) -> None:
        """Checks that a folder without an index has no files of others."""
        known = {target.split("/")[0] for target in interrupted_files(self.folder)}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in (hub_index.NAME, CLEANUP_LIST, *known) and (
                not path.name.startswith(atomic.STAGING_PREFIX)
            ):
                raise ValueError(
                    f"{self.folder} is not a hub: it has no models, but {path.name}. "
                    "Give a new or empty folder."
                )

    def _warn_of_missing_formats(
        self, model: pairs.ExportedModel, pair: pairs.Pair, files: Iterable[str]
    ) -> None:
        """Logs the formats that are exported, but were not published with the model."""
        missing = [
            other.format
            for other in pair.others
            if hub_paths.format_archive(self._handle(model), other.format) not in files
        ]
        if missing:
            _LOG.info(
                f"{self._handle(model)} was published without {', '.join(missing)}: "
                "publish another --version to add formats"
            )

    def _documents(self, model: pairs.ExportedModel) -> str:
        return hub_paths.documents_folder(self._handle(model))

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
                target = f"{self._documents(model)}/{name}"
                if name == TFHUB_DOCUMENT:
                    target = f"{self._documents(model)}.md"
                uploads.append(upload_files.write_file(target, content, scratch))
        for other in pair.others:
            for model in other.models:
                archive = scratch / f"{model.kind}-{other.format}.tar.gz"
                archives.write(model.files(), archive)
                handle = self._handle(model)
                target = hub_paths.format_archive(handle, other.format)
                uploads.append(upload_files.upload_file(target, archive))
                if other.report.is_file():
                    target = hub_paths.format_report(handle, other.format)
                    report = other.report.read_bytes()  # the file itself stays
                    uploads.append(upload_files.write_file(target, report, scratch))
        if self.pages:
            index = self._index.read()
            for model in pair.models:
                page = self._page(model, pair, documents, uploads, index)
                target = f"{self._documents(model)}/{hub_paths.PAGE}"
                uploads.append(upload_files.write_file(target, page.encode(), scratch))
            uploads += hub_site.missing_assets(
                self.pages, self._assets, self.folder, index, scratch
            )
        return uploads

    def _page(
        self,
        model: pairs.ExportedModel,
        pair: pairs.Pair,
        documents: upload_files.Documents,
        uploads: list[upload_files.UploadFile],
        index: hub_index.Index,
    ) -> str:
        """Returns the page of a model, whose other files are in `uploads`."""
        assert self.pages
        (other,) = [m for m in pair.models if m is not model]
        handle = self._handle(model)
        return self.pages.model_page(
            model.folder,
            json.loads(documents[model.kind][upload_files.REPORT]),
            handle=handle,
            other=self._handle(other),
            files=self._files(model, uploads),
            formats={
                other.format: same.folder
                for other in pair.others
                for same in other.models
                if same.kind == model.kind
            },
            previous=hub_site.previous_version(self.folder, index, handle),
            assets=self._assets,
        )

    def publish(self, pair: pairs.Pair, documents: upload_files.Documents) -> None:
        """Publishes both models or none; waits for other publishers to finish."""
        with atomic.locked(self.folder):
            self._clear()
            if self.has(pair):
                return
            with atomic.staging_folder(self.folder) as scratch:
                uploads = self.pack(pair, documents, scratch)
                entries = {
                    self._handle(model): self._entry(model, documents, uploads)
                    for model in pair.models
                }
                signatures = self.sign_models(entries, scratch)
                self.place([*uploads, *signatures], entries, scratch)

    def refresh(self) -> None:
        """Completes an interrupted publish, and updates the front page.

        A hub that an earlier program wrote gets its first front page so.
        """
        if not self.pages or not (self.folder / hub_index.NAME).is_file():
            return
        with atomic.locked(self.folder):
            self._clear()
            with atomic.staging_folder(self.folder) as scratch:
                index = self._index.read()
                assets = hub_site.missing_assets(
                    self.pages, self._assets, self.folder, index, scratch
                )
                self.place(assets, {}, scratch)

    def sign_models(
        self, entries: hub_index.Models, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """Signs all files of models and adds the signatures to their index entries."""
        signatures = []
        for handle in entries:
            if not self.signer:
                break
            entry, upload = signed_index.sign_model(
                handle, entries[handle], self.signer, scratch
            )
            entries[handle] = entry
            signatures.append(upload)
        return signatures

    def place(
        self,
        uploads: list[upload_files.UploadFile],
        entries: hub_index.Models,
        scratch: pathlib.Path,
        signers: signed_index.Change | None = None,
    ) -> None:
        """Moves files to the hub, then replaces the index, then the front page.

        Args:
          uploads: new files.
          entries: new index entries by handle.
          scratch: folder in which new files are written.
          signers: new signers of the hub; the signer of this object is the last one.
        """
        old = self._index.read()
        targets = [upload.target for upload in uploads]
        has_front_page = hub_site.FRONT_PAGE in old.site or not self.pages
        for target in [*targets, *([] if has_front_page else [hub_site.FRONT_PAGE])]:
            if os.path.lexists(self.folder / target):
                raise ValueError(
                    f"{self.folder / target} exists but is not in the index. "
                    "Move it away."
                )
            if not self._is_inside(target):
                raise ValueError(
                    f"{self.folder / target} is reached by a link. Move it away."
                )
        models = {**old.models, **entries}
        site = self._site(old, models, uploads, scratch)
        text = ""
        if signers or (models, site) != (old.models, old.site):
            index = dataclasses.replace(old, models=models, site=site)
            text, signatures = self._index_text(old, index, scratch, signers)
            uploads = [*uploads, *signatures]
            targets = [upload.target for upload in uploads]
            targets += [old.signature] if old.signature else []
        try:
            if targets:
                self._write(CLEANUP_LIST, json.dumps(targets), scratch)
            for upload in uploads:
                atomic.move_into_place(upload.source, self.folder / upload.target)
            if text:
                self._write(hub_index.NAME, text, scratch)
            if self.pages and not hub_site.is_current(
                self.folder, site[hub_site.FRONT_PAGE]
            ):
                staged = scratch / hub_site.FRONT_PAGE
                atomic.move_into_place(staged, self.folder / hub_site.FRONT_PAGE)
        finally:
            self._clear()

    def _index_text(
        self,
        old: hub_index.Index,
        new: hub_index.Index,
        scratch: pathlib.Path,
        signers: signed_index.Change | None,
    ) -> tuple[str, list[upload_files.UploadFile]]:
        """Returns the text of a new index, and what its signature needs."""
        if not signers:
            signed_index.check_signer(self.folder, old, self.signer)
        if not self.signer:
            return hub_index.to_text(new.models, new.site), []
        return signed_index.sign_index(new, self.signer, scratch, signers)

    def _site(
        self,
        old: hub_index.Index,
        models: hub_index.Models,
        uploads: list[upload_files.UploadFile],
        scratch: pathlib.Path,
    ) -> hub_index.Files:
        """Writes the front page to `scratch`; returns the index's entry `site`."""
        if not self.pages:
            return old.site
        assets = [u for u in uploads if u.target.startswith(f"{hub_site.ASSETS}/")]
        text = self.pages.front_page(models, assets=self._assets)
        page = upload_files.write_file(hub_site.FRONT_PAGE, text.encode(), scratch)
        return hub_site.site_entries(self.folder, old, assets, page)

    def _entry(
        self,
        model: pairs.ExportedModel,
        documents: upload_files.Documents,
        uploads: list[upload_files.UploadFile],
    ) -> manifest.JsonObject:
        """Returns the index entry of a model."""
        entry = {**model.hashes, "weights": model.manifest.weights["name"]}
        if self.pages:
            report = json.loads(documents[model.kind][upload_files.REPORT])
            entry["summary"] = self.pages.summary(model.folder, report)
        return {**entry, "files": self._files(model, uploads)}

    def _files(
        self, model: pairs.ExportedModel, uploads: list[upload_files.UploadFile]
    ) -> hub_index.Files:
        """Returns size and SHA-256 of a model's files among `uploads`, by path."""
        return {
            upload.target: {"size": upload.size, "sha256": upload.sha256}
            for upload in uploads
            if hub_paths.is_of_model(upload.target, self._handle(model))
        }

    def _write(self, name: str, text: str, scratch: pathlib.Path) -> None:
        file = scratch / name
        file.write_text(text, encoding="utf-8")
        atomic.move_into_place(file, self.folder / name)

    def _is_inside(self, target: str) -> bool:
        """Checks that no link leads from a path in the hub to somewhere else."""
        parent = (self.folder / target).parent
        return parent.resolve().is_relative_to(self.folder.resolve())

    def _clear(self) -> None:
        """Removes the files that an unfinished publish placed."""
        index = self._index.read()
        published = {*index.files, index.signature}
        for target in interrupted_files(self.folder):
            if target not in published and self._is_inside(target):
                path = self.folder / target
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, self.folder)
        (self.folder / CLEANUP_LIST).unlink(missing_ok=True)


def interrupted_files(folder: pathlib.Path) -> list[str]:
    """Returns the files of an unfinished publish, including those not written yet."""
    try:
        targets = json.loads((folder / CLEANUP_LIST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    # Whoever may write to the hub must not have other files of this machine removed.
    targets = targets if isinstance(targets, list) else []
    return [target for target in targets if upload_files.is_valid_name(target)]


def _remove_empty(folder: pathlib.Path, root: pathlib.Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
