"""Paths of an exported pair in one format, and checks of existing exports."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from exporters import formats, manifest

REPORT = "report.json"  # name in the staging folder; the final name has the version


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFolder:
    """Folder of one pair in one format.

    Attributes:
      format: format of the pair.
      arch_folder: folder of all exports of the arch.
      version: version of both models.
    """

    format: formats.Format
    arch_folder: pathlib.Path
    version: int

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the format: the arch's folder for SavedModels, else below it."""
        if self.format == formats.SAVED_MODEL:
            return self.arch_folder
        return self.arch_folder / self.format.name

    @property
    def targets(self) -> dict[str, pathlib.Path]:
        """Folder of each model, by kind."""
        return {kind: self.folder / kind / str(self.version) for kind in manifest.KINDS}

    @property
    def pair_file(self) -> pathlib.Path:
        """File that is written last and marks the pair as complete."""
        return self.folder / f"pair-{self.version}.json"

    @property
    def report_file(self) -> pathlib.Path:
        """Report of the comparison of a converted pair with the SavedModels."""
        return self.folder / f"report-{self.version}.json"

    @property
    def paths(self) -> list[pathlib.Path]:
        """Folders of both models, and the pair file."""
        return [*self.targets.values(), self.pair_file]

    def pair_record(
        self,
        identity: manifest.JsonObject,
        *,
        hashes: Mapping[str, dict[str, str]] | None = None,
    ) -> manifest.JsonObject:
        """Returns the contents of the pair file, with hashes of the exported models.

        Args:
          identity: what was exported; see `request.Request.identity`.
          hashes: hashes of each model's files, by kind; None computes them.
        """
        hashes = hashes or manifest.hashes_by_kind(self.targets)
        models = {
            kind: {
                "path": target.relative_to(self.folder).as_posix(),
                "sha256": manifest.content_hash(hashes[kind]),
                "manifest_sha256": manifest.manifest_hash(target),
            }
            for kind, target in self.targets.items()
        }
        packages = manifest.packages(self.format.packages)
        return {**identity, "packages": packages, "models": models}

    def is_finished(self, identity: manifest.JsonObject) -> bool:
        """Whether the export of this identity exists and is complete.

        Raises:
          ValueError: another export exists, or its files were changed.
        """
        if not self.pair_file.exists():
            self._refuse_foreign_folders()
            return False
        try:
            record = json.loads(self.pair_file.read_text(encoding="utf-8"))
            expected = self.pair_record(identity)
            keys = expected.keys() - {"models"}
            different = sorted(key for key in keys if record.get(key) != expected[key])
        except (ValueError, AttributeError):
            record, different = {}, ["everything"]
        if not different and record == expected:
            return not self.format.is_converted or self.report_file.exists()
        problem = "a file of its models was changed"
        if different:
            problem = f"differs in {', '.join(different)}"
        raise ValueError(
            f"{self.pair_file} already exists, and {problem}: "
            f"give --overwrite, another --output, or another --version than "
            f"{self.version}."
        )

    def check_replaceable(self) -> None:
        """Raises ValueError if a path that should be a folder exists as a file."""
        targets = self.targets.values()
        for path in (self.folder, *(t.parent for t in targets), *targets):
            if os.path.lexists(path) and not path.is_dir():
                raise ValueError(
                    f"{path} is in the way: it is not a folder. Move it away."
                )

    def _refuse_foreign_folders(self) -> None:
        """Raises ValueError if a target folder is not an (interrupted) export."""
        for target in self.targets.values():
            if target.exists() and manifest.read(target) is None:
                raise ValueError(
                    f"{target} already exists and is not an export: move it away, or "
                    "give --overwrite."
                )
