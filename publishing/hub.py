"""A hub that is a folder, which any static file server can serve.

PUBLISHER/ARCH/KIND/VERSION                 the model's archive: its handle is its path
PUBLISHER/models/ARCH/KIND/VERSION.md       in TensorFlow Hub's markdown
PUBLISHER/models/ARCH/KIND/VERSION/…        its other documents, its conformance report
index.json                                  what is published, with sums; written last
"""

from __future__ import annotations

import json
import os
import pathlib
import re

from common import atomic
from exporters import manifest
from publishing import archives, hub_index, pairs, upload_files

JOURNAL = ".publishing.json"  # the files of a publish that has not come to its end
TFHUB_DOCUMENT = "tfhub.md"
_PUBLISHER = re.compile(r"[a-z\d-]+", re.ASCII)


class Hub:
    """A folder, and in whose name models are published in it.

    What the index names is published. It is replaced in one step, after all files are
    in place; whoever is killed before leaves a journal of what to clear away.

    Args:
      folder: of the hub; made by the first publish.
      publisher: small letters, digits, hyphens.
    """

    def __init__(self, folder: pathlib.Path, publisher: str):
        if not _PUBLISHER.fullmatch(publisher):
            raise ValueError(
                "--publisher must be of small letters, digits and hyphens, got "
                f"{publisher!r}."
            )
        self.folder = folder
        self.publisher = publisher

    def handles(self, pair: pairs.Pair) -> list[str]:
        return [self._handle(half) for half in pair.halves]

    def _handle(self, half: pairs.ExportedModel) -> str:
        return f"{self.publisher}/{half.name}"

    def has(self, pair: pairs.Pair) -> bool:
        """See `parcels.Destination`."""
        models = hub_index.read(self.folder)
        there = [half for half in pair.halves if self._handle(half) in models]
        for half in there:
            published = models[self._handle(half)]
            if half.sums != {name: published[name] for name in half.sums}:
                raise ValueError(
                    f"{self._handle(half)} is published already, with other bytes, and "
                    f"a version never changes: export another --version than "
                    f"{half.version}."
                )
        return len(there) == len(pair.halves)

    def pack(
        self, pair: pairs.Pair, papers: upload_files.Documents, scratch: pathlib.Path
    ) -> list[upload_files.UploadFile]:
        """Archives and documents; see `parcels.Destination`."""
        items = []
        for half in pair.halves:
            archive = scratch / f"{half.kind}.tar.gz"
            archives.write(half.files(), archive)
            items.append(upload_files.upload_file(self._handle(half), archive))
            for name, content in sorted(papers[half.kind].items()):
                target = f"{self.publisher}/{pairs.MODELS}/{half.name}/{name}"
                if name == TFHUB_DOCUMENT:
                    target = f"{self.publisher}/{pairs.MODELS}/{half.name}.md"
                items.append(upload_files.written_file(target, content, scratch))
        return items

    def publish(self, pair: pairs.Pair, papers: upload_files.Documents) -> None:
        """Publishes the pair whole or not at all; another publisher waits its turn."""
        with atomic.locked(self.folder):
            self._clear()
            if self.has(pair):
                return
            with atomic.staging_folder(self.folder) as scratch:
                items = self.pack(pair, papers, scratch)
                try:
                    self._place(pair, items, scratch)
                finally:
                    self._clear()

    def _place(
        self,
        pair: pairs.Pair,
        items: list[upload_files.UploadFile],
        scratch: pathlib.Path,
    ) -> None:
        for item in items:
            if os.path.lexists(self.folder / item.target):
                raise ValueError(
                    f"{self.folder / item.target} is in the way: it is in no index. "
                    "Move it away."
                )
        self._write(JOURNAL, json.dumps([item.target for item in items]), scratch)
        for item in items:
            atomic.move_into_place(item.source, self.folder / item.target)
        models = hub_index.read(self.folder)
        for half in pair.halves:
            models[self._handle(half)] = self._entry(half, items)
        self._write(hub_index.NAME, hub_index.to_text(models), scratch)

    def _entry(
        self, half: pairs.ExportedModel, items: list[upload_files.UploadFile]
    ) -> manifest.JsonObject:
        """What the index says of a half."""
        documents = f"{self.publisher}/{pairs.MODELS}/{half.name}"
        own = (self._handle(half), f"{documents}.md")
        return {
            **half.sums,
            "weights": half.manifest.weights["name"],
            "files": {
                item.target: {"size": item.size, "sha256": item.sha256}
                for item in items
                if item.target in own or item.target.startswith(f"{documents}/")
            },
        }

    def _write(self, name: str, text: str, scratch: pathlib.Path) -> None:
        file = scratch / name
        file.write_text(text, encoding="utf-8")
        atomic.move_into_place(file, self.folder / name)

    def _clear(self) -> None:
        """Removes what a publish placed that did not come to its end."""
        published = hub_index.files(hub_index.read(self.folder))
        for target in interrupted(self.folder):
            if target not in published:
                path = self.folder / target
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, self.folder)
        (self.folder / JOURNAL).unlink(missing_ok=True)


def interrupted(folder: pathlib.Path) -> list[str]:
    """The files of a publish that has not come to its end, there or not."""
    try:
        return json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []


def _remove_empty(folder: pathlib.Path, root: pathlib.Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
