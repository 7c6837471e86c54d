"""Describes an export request, and finds what of it is not exported yet."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence

from exporters import export_folder, formats, manifest
from foundation import source_hash
from zoo import config, definition
from zoo.weights import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Options of an export; see `tools/export --help`."""

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
        """The folder OUT/ARCH, of all formats and versions."""
        return self.output / self.arch

    @property
    def export_folders(self) -> list[export_folder.ExportFolder]:
        """Where the pair goes in each format, and what is there already."""
        return [
            export_folder.ExportFolder(
                format=export_format, arch_folder=self.folder, version=self.version
            )
            for export_format in self.formats
        ]

    def missing(
        self, identity: manifest.JsonObject
    ) -> list[export_folder.ExportFolder]:
        """Returns the folders to write: those not exported yet; all if `overwrite`.

        Raises:
          ValueError: another export exists at a path and `overwrite` is False, or a
            file is in the way.
        """
        for folder in self.export_folders:
            folder.check_replaceable()
        if self.overwrite:
            return self.export_folders
        return [f for f in self.export_folders if not f.is_finished(identity)]

    @functools.cached_property
    def definition(self) -> definition.Definition:
        """What determines the model, read once.

        Raises:
          ValueError: the arch, its facts, a gin file or the weights don't exist.
        """
        return definition.resolve(
            self.arch,
            weights=self.weights,
            gin_files=self.gin_files,
            gin_bindings=self.gin_bindings,
            trust_gin_imports=self.trust_gin_imports,
        )

    def identity(self) -> manifest.JsonObject:
        """Returns what determines the bytes of an export, beside package versions.

        With the same packages, equal identities give equal exports. The format is not
        in it: each format has a pair of its own.

        Raises:
          ValueError: see `definition`.
        """
        source = self.definition.weights
        return {
            "arch": self.arch,
            "version": self.version,
            "gin": source_hash.hash_gin_texts(self.definition.gin_texts),
            "weights": source.sha256 if source else registry.RANDOM,
            "weights_record": _record_hash(source) if source else None,
            "seed": self.seed,
            "code": _code_hash(self.arch),
        }


def _record_hash(source: registry.Source) -> str:
    """Returns the SHA-256 of the name and record that the registry has for weights."""
    text = json.dumps([source.name, source.record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_hash(arch: str) -> str:
    """Returns the SHA-256 of the source and data files that an export depends on.

    All modules of `exporters` count for every format, so a change of `onnx.py` makes
    SavedModels stale too: a list of modules for each format would have to be kept
    current by hand. `foundation` does not count: it writes, locks and hashes files, and
    formats messages, but does not compute what is in an export.
    """
    gin_file = config.config_file(arch)
    paths = [
        *pathlib.Path(__file__).parent.glob("*.py"),
        *(config.ZOO.parent / "images").glob("*.py"),  # exported as `preprocess`
        manifest.SCHEMA,
        *config.ZOO.glob("*.py"),
        *(config.ZOO / "layers").glob("*.py"),
        *(config.ZOO / "weights").glob("*.py"),
        *(config.ZOO / "taxonomies").glob("*"),
        *gin_file.parent.parent.glob("*.py"),
        *gin_file.parent.parent.glob("names/*.json"),
        gin_file.with_suffix(".facts.json"),
    ]
    return source_hash.hash_files(paths, root=config.ZOO.parent)
