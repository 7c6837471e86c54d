"""What is asked of an export, and which of it is not there yet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

from common import source_hash
from exporters import export_folder, formats, manifest
from zoo import config, facts
from zoo.weights import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be exported and where to; see `tools/export --help`."""

    arch: str
    output: pathlib.Path
    weights: str = registry.RANDOM
    version: int = 1
    seed: int = 0
    gin_files: Sequence[str] = ()
    gin_bindings: Sequence[str] = ()
    trust_gin_imports: bool = False
    formats: Sequence[formats.Format] = (formats.SAVED_MODEL,)
    overwrite: bool = False

    @property
    def folder(self) -> pathlib.Path:
        return self.output / self.arch

    @property
    def places(self) -> list[export_folder.ExportFolder]:
        """Where each format's pair goes."""
        return [
            export_folder.ExportFolder(
                format=known, arch_folder=self.folder, version=self.version
            )
            for known in self.formats
        ]

    def missing(
        self, identity: manifest.JsonObject
    ) -> list[export_folder.ExportFolder]:
        """The places where the export of this identity is not yet, or not to stay.

        Raises:
          ValueError: something else is in a place, and `overwrite` is not asked for, or
            can't help.
        """
        for place in self.places:
            place.check_room()
        if self.overwrite:
            return self.places
        return [place for place in self.places if not place.is_finished(identity)]

    def identity(self) -> manifest.JsonObject:
        """What decides on the bytes: equal identities give equal exports.

        Raises:
          ValueError: the arch, its facts, a gin file or the weights are not there.
        """
        texts = config.texts(
            self.arch,
            gin_files=self.gin_files,
            gin_bindings=self.gin_bindings,
            trust_gin_imports=self.trust_gin_imports,
        )
        facts.load(self.arch)
        source = registry.find(self.arch, self.weights)
        return {
            "arch": self.arch,
            "version": self.version,
            "gin": source_hash.of_gin(texts),
            "weights": source.sha256 if source else registry.RANDOM,
            "weights_record": _record_hash(source) if source else None,
            "seed": self.seed,
            "code": _code_hash(self.arch),
        }


def _record_hash(source: registry.Source) -> str:
    """SHA-256 over what the registry says of weights, and by which name."""
    text = json.dumps([source.name, source.record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_hash(arch: str) -> str:
    """SHA-256 over the sources and data that make an export of `arch`."""
    gin_file = config.config_file(arch)
    paths = [
        *pathlib.Path(__file__).parent.glob("*.py"),
        manifest.SCHEMA,
        *config.ZOO.glob("*.py"),
        *(config.ZOO / "layers").glob("*.py"),
        *(config.ZOO / "weights").glob("*.py"),
        *(config.ZOO / "taxonomies").glob("*"),
        *gin_file.parent.parent.glob("*.py"),
        *gin_file.parent.parent.glob("names/*.json"),
        gin_file.with_suffix(".facts.json"),
    ]
    return source_hash.of_files(paths, root=config.ZOO.parent)
