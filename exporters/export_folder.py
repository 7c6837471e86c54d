"""Where a pair of one format goes, and whether it is there already."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from exporters import formats, manifest

REPORT = "report.json"  # where it is written; of one version where it is placed


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFolder:
    """The place of one pair.

    Attributes:
      format: of the pair.
      arch_folder: of all exports of the arch.
      version: of both halves.
    """

    format: formats.Format
    arch_folder: pathlib.Path
    version: int

    @property
    def folder(self) -> pathlib.Path:
        is_first = self.format == formats.SAVED_MODEL
        return self.arch_folder if is_first else self.arch_folder / self.format.name

    @property
    def targets(self) -> dict[str, pathlib.Path]:
        """Where each half goes, by kind."""
        return {kind: self.folder / kind / str(self.version) for kind in manifest.KINDS}

    @property
    def pair_file(self) -> pathlib.Path:
        return self.folder / f"pair-{self.version}.json"

    @property
    def report_file(self) -> pathlib.Path:
        """How far a converted pair is from the SavedModels."""
        return self.folder / f"report-{self.version}.json"

    @property
    def paths(self) -> list[pathlib.Path]:
        return [*self.targets.values(), self.pair_file]

    def pair_record(self, identity: manifest.JsonObject) -> manifest.JsonObject:
        """The contents of the pair's file, with the hashes of what is in place."""
        models = {
            kind: {
                "path": target.relative_to(self.folder).as_posix(),
                "sha256": manifest.content_hash(manifest.file_hashes(target)),
                "manifest_sha256": manifest.manifest_hash(target),
            }
            for kind, target in self.targets.items()
        }
        packages = manifest.packages(self.format.packages)
        return {**identity, "packages": packages, "models": models}

    def is_finished(self, identity: manifest.JsonObject) -> bool:
        """Whether the export of this identity is in place, whole.

        Raises:
          ValueError: something else is, or one that was changed.
        """
        if not self.pair_file.exists():
            self._refuse_foreign_folders()
            return False
        try:
            found = json.loads(self.pair_file.read_text(encoding="utf-8"))
            wanted = self.pair_record(identity)
            keys = wanted.keys() - {"models"}
            different = sorted(key for key in keys if found.get(key) != wanted[key])
        except (ValueError, AttributeError):
            found, different = {}, ["everything"]
        if not different and found == wanted:
            return self.format.judged or self.report_file.exists()
        change = "what it names was changed"
        if different:
            change = f"differs in {', '.join(different)}"
        raise ValueError(
            f"{self.pair_file} is there already, and {change}: "
            f"give --overwrite, another --output, or another --version than "
            f"{self.version}."
        )

    def check_room(self) -> None:
        """Raises ValueError where something stands that no folder can replace."""
        targets = self.targets.values()
        for path in (self.folder, *(t.parent for t in targets), *targets):
            if os.path.lexists(path) and not path.is_dir():
                raise ValueError(
                    f"{path} is in the way: it is no folder. Move it away."
                )

    def _refuse_foreign_folders(self) -> None:
        """What an interrupted export left may be replaced, nothing else."""
        for target in self.targets.values():
            if target.exists() and manifest.read(target) is None:
                raise ValueError(
                    f"{target} is there already and is no export: move it away, or "
                    "give --overwrite."
                )
