"""Reads and validates exported pairs of models."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from exporters import manifest
from foundation import hub_paths

_PAIR_FILE = re.compile(r"pair-([1-9]\d*)\.json")
_ARCH = re.compile(r"[a-z\d][\w.-]*", re.ASCII)
_FORMAT = "saved_model"  # that handles are for
_NOT_OF_BUILD = {"models", "packages"}  # fields of a pair file that formats don't share


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """One model of a pair.

    Attributes:
      folder: of the SavedModel.
      manifest: its manifest.
      sha256: of all its files except the manifest, see `manifest.content_hash`.
      manifest_sha256: of the manifest.
    """

    folder: pathlib.Path
    manifest: manifest.Manifest
    sha256: str
    manifest_sha256: str

    @property
    def arch(self) -> str:
        return self.manifest.arch

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def name(self) -> str:
        """ARCH/KIND/VERSION."""
        return f"{self.arch}/{self.kind}/{self.version}"

    @property
    def hashes(self) -> dict[str, str]:
        """The two hashes that identify the bytes of this model."""
        return {"sha256": self.sha256, "manifest_sha256": self.manifest_sha256}

    @property
    def warning(self) -> str:
        """Warning about weights that were not trained; empty if all were."""
        if self.manifest.weights["name"] == "random":
            return "RANDOM WEIGHTS: it was never trained, its outputs are meaningless"
        # The entry `head` is the origin of a head that the weights do not have.
        if self.kind == "classification" and self.manifest.weights.get("head"):
            return (
                "RANDOM HEAD: the weights have no head, its predictions are meaningless"
            )
        return ""

    def files(self) -> dict[str, pathlib.Path]:
        """Returns every file of the model by its path in the folder, sorted.

        Raises:
          ValueError: a link, a special file, or a name that begins with a dot.
        """
        files = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.name.startswith("."):
                raise ValueError(f"{path}: names in a model can't begin with a dot.")
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is neither a file nor a folder.")
            if path.is_file():
                files[name] = path
        return files


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A feature-vector model and the classifier that was built with it.

    Attributes:
      export: folder of the pair.
      models: both models.
      others: the same pair in other formats.
    """

    export: pathlib.Path
    models: tuple[ExportedModel, ExportedModel]
    others: tuple[Pair, ...] = ()

    @property
    def version(self) -> int:
        return self.models[0].version

    @property
    def format(self) -> str:
        return self.models[0].manifest.format

    @property
    def report(self) -> pathlib.Path:
        """The report of the comparison with SavedModels, of a converted pair."""
        return self.export / f"report-{self.version}.json"

    @property
    def name(self) -> str:
        """ARCH/VERSION, for messages; with the format, if it is another one."""
        name = f"{self.models[0].arch}/{self.version}"
        return name if self.format == _FORMAT else f"{name} ({self.format})"


def is_name(text: str) -> bool:
    """Checks that `text` is a valid arch name in handles."""
    return bool(_ARCH.fullmatch(text)) and text != hub_paths.MODELS


def versions(export: pathlib.Path) -> list[int]:
    """Returns the versions in the folder OUT/ARCH of an export, in ascending order.

    Raises:
      ValueError: the folder has no pair.
    """
    paths = export.iterdir() if export.is_dir() else ()
    numbers = sorted(int(m[1]) for p in paths if (m := _PAIR_FILE.fullmatch(p.name)))
    if not numbers:
        raise ValueError(
            f"EXPORT must be a folder OUT/ARCH that tools/export wrote, got "
            f"{str(export)!r}: it has no pair-VERSION.json.{_hint(export)}"
        )
    return numbers


def read(export: pathlib.Path, version: int) -> Pair:
    """Reads one version of an export, with its other formats.

    Raises:
      ValueError: the files changed since they were exported, or do not belong together.
    """
    pair, build = _read(export, version)
    if pair.format != _FORMAT:
        raise ValueError(
            f"{export} has the format {pair.format}: a handle is that of a pair of the "
            f"format {_FORMAT}, in the folder OUT/ARCH."
        )
    others = []
    for pair_file in sorted(export.glob(f"*/pair-{version}.json")):
        other, other_build = _read(pair_file.parent, version)
        if other.format != other.export.name or other_build != build:
            different = sorted(k for k in build if build[k] != other_build.get(k))
            raise ValueError(
                f"{other.export} is not of the same build as {export}: "
                f"{', '.join(different) or 'its format'} differs. Export both again, "
                "or move it away."
            )
        others.append(other)
    return dataclasses.replace(pair, others=tuple(others))


def _read(export: pathlib.Path, version: int) -> tuple[Pair, manifest.JsonObject]:
    """Reads a pair in one format; returns it, and what determined its build."""
    pair_file = export / f"pair-{version}.json"
    try:
        record = json.loads(pair_file.read_text(encoding="utf-8"))
        entries = record["models"]
        hashes = {
            kind: (entries[kind]["sha256"], entries[kind]["manifest_sha256"])
            for kind in manifest.KINDS
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{pair_file} is damaged: export the pair again.") from error
    models = []
    for kind in manifest.KINDS:
        model = _exported_model(export / kind / str(version))
        if (model.sha256, model.manifest_sha256) != hashes[kind]:
            raise ValueError(
                f"{model.folder} changed since it was exported: export it again with "
                "--overwrite."
            )
        if (model.kind, model.version) != (kind, version):
            raise ValueError(
                f"{model.folder} has the manifest of another model, {model.name}."
            )
        models.append(model)
    first, second = models
    if (first.arch, first.manifest.format) != (second.arch, second.manifest.format):
        raise ValueError(
            f"{pair_file} has models of two archs or formats: {first.name} and "
            f"{second.name}."
        )
    if not is_name(first.arch):
        raise ValueError(
            f"{pair_file}: {first.arch!r} is not a valid name in a handle."
        )
    build = {key: record[key] for key in record.keys() - _NOT_OF_BUILD}
    return Pair(export=export, models=(first, second)), build


def _exported_model(folder: pathlib.Path) -> ExportedModel:
    model_manifest = manifest.read(folder)
    manifest_sha256 = manifest.manifest_hash(folder)
    if model_manifest is None or manifest_sha256 is None:
        raise ValueError(
            f"{folder} is not an exported model: it has no {manifest.MANIFEST}."
        )
    return ExportedModel(
        folder=folder,
        manifest=model_manifest,
        sha256=manifest.content_hash(manifest.file_hashes(folder)),
        manifest_sha256=manifest_sha256,
    )


def _hint(export: pathlib.Path) -> str:
    """Suggests a folder with a pair directly inside or two levels above `export`."""
    pair_files = [*export.glob("*/pair-*.json"), *export.glob("../../pair-*.json")]
    return (
        f" Did you mean {str(pair_files[0].parent.resolve())!r}?" if pair_files else ""
    )
