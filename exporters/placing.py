"""Where a pair of one format goes, and whether it is there already."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from exporters import formats, manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """The place of one pair.

    Attributes:
      format: one of `formats.FORMATS`.
      arch_folder: of all exports of the arch.
      version: of both halves.
    """

    format: str
    arch_folder: pathlib.Path
    version: int

    @property
    def folder(self) -> pathlib.Path:
        is_first = self.format == formats.SAVED_MODEL
        return self.arch_folder if is_first else self.arch_folder / self.format

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
        """Whether the export of this identity is in place, whole.

        Raises:
          ValueError: something else is, or one that was changed.
        """
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
