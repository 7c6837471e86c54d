"""What is asked of an export, and whether it is there already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

from exporters import manifest
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
    overwrite: bool = False

    @property
    def folder(self) -> pathlib.Path:
        return self.output / self.arch

    @property
    def targets(self) -> dict[str, pathlib.Path]:
        """Where each half goes, by kind."""
        return {kind: self.folder / kind / str(self.version) for kind in manifest.KINDS}

    @property
    def pair_file(self) -> pathlib.Path:
        return self.folder / f"pair-{self.version}.json"

    @property
    def paths(self) -> list[pathlib.Path]:
        return [*self.targets.values(), self.pair_file]

    def identity(self) -> manifest.Record:
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
            "gin": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
            "weights": source.sha256 if source else registry.RANDOM,
            "weights_record": _record_hash(source) if source else None,
            "seed": self.seed,
            "code": _code_hash(self.arch),
            "packages": manifest.packages(),
        }

    def pair_record(self, identity: manifest.Record) -> manifest.Record:
        """The contents of the pair's file, with the hashes of what is in place."""
        models = {
            kind: {
                "path": target.relative_to(self.folder).as_posix(),
                "sha256": manifest.content_hash(manifest.file_hashes(target)),
                "manifest_sha256": manifest.manifest_hash(target),
            }
            for kind, target in self.targets.items()
        }
        return {**identity, "models": models}

    def is_finished(self, identity: manifest.Record) -> bool:
        """Whether this very export is in place, whole.

        Raises:
          ValueError: a finished pair of another identity is, or one that was
            changed, and `overwrite` is not asked for.
        """
        if self.overwrite:
            return False
        if not self.pair_file.exists():
            self._refuse_foreign_folders()
            return False
        try:
            found = json.loads(self.pair_file.read_text(encoding="utf-8"))
            different = [key for key in identity if found.get(key) != identity[key]]
        except (ValueError, AttributeError):
            found, different = {}, ["everything"]
        if not different and found == self.pair_record(identity):
            return True
        change = f"differs in {', '.join(different)}" if different else "was changed"
        raise ValueError(
            f"{self.pair_file} is there already and {change}: "
            f"give --overwrite, or another --version than {self.version}."
        )

    def _refuse_foreign_folders(self) -> None:
        """What an interrupted export left may be replaced, nothing else."""
        for target in self.targets.values():
            if target.exists() and manifest.read(target) is None:
                raise ValueError(
                    f"{target} is there already and is no export: move it away, or "
                    "give --overwrite."
                )


def _record_hash(source: registry.Source) -> str:
    """SHA-256 over what the registry says of weights, and by which name."""
    text = json.dumps([source.name, source.record], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_hash(arch: str) -> str:
    """SHA-256 over the sources and data that make an export of `arch`."""
    gin_file = config.config_file(arch)
    paths = [
        *pathlib.Path(__file__).parent.glob("*.py"),
        *config.ZOO.glob("*.py"),
        *(config.ZOO / "layers").glob("*.py"),
        *(config.ZOO / "weights").glob("*.py"),
        *(config.ZOO / "taxonomies").glob("*"),
        *gin_file.parent.parent.glob("*.py"),
        *gin_file.parent.parent.glob("names/*.json"),
        gin_file.with_suffix(".facts.json"),
    ]
    digest = hashlib.sha256()
    for path in sorted(path.resolve() for path in paths):
        digest.update(f"{path.relative_to(config.ZOO.parent)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
