"""Reads the pairs that are to be published, as tools/export wrote them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

from exporters import manifest

_PAIR_FILE = re.compile(r"pair-([1-9]\d*)\.json")
_ARCH = re.compile(r"[a-z\d][\w.-]*", re.ASCII)
MODELS = "models"  # the folder of documents stands among those of archs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """One model of a pair.

    Attributes:
      folder: of the SavedModel.
      manifest: what it says of itself.
      sha256: over all of its files but the manifest, see `manifest.content_hash`.
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
    def sums(self) -> dict[str, str]:
        """What tells this model's bytes from all others."""
        return {"sha256": self.sha256, "manifest_sha256": self.manifest_sha256}

    @property
    def warning(self) -> str:
        """What everybody must know of the weights; empty if there is nothing."""
        if self.manifest.weights["name"] == "random":
            return "RANDOM WEIGHTS: it was never trained, and its output means nothing"
        if self.kind == "classification" and self.manifest.weights.get("head"):
            return "RANDOM HEAD: the weights came without one; its classes mean nothing"
        return ""

    def files(self) -> dict[str, pathlib.Path]:
        """Every file of the model by its path inside, sorted.

        Raises:
          ValueError: there is a link, a special file, or a name that begins with a dot.
        """
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.name.startswith("."):
                raise ValueError(f"{path}: a name in a model can't begin with a dot.")
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is neither a file nor a folder.")
            if path.is_file():
                found[name] = path
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """A feature vector and the classifier that was built with it."""

    export: pathlib.Path
    halves: tuple[ExportedModel, ExportedModel]

    @property
    def version(self) -> int:
        return self.halves[0].version

    @property
    def name(self) -> str:
        """ARCH/VERSION, for messages."""
        return f"{self.halves[0].arch}/{self.version}"


def is_name(text: str) -> bool:
    """Whether a model may be called so in handles."""
    return bool(_ARCH.fullmatch(text)) and text != MODELS


def versions(export: pathlib.Path) -> list[int]:
    """What is in the folder OUT/ARCH of an export, the oldest first.

    Raises:
      ValueError: there is none.
    """
    found = export.iterdir() if export.is_dir() else ()
    numbers = sorted(int(m[1]) for p in found if (m := _PAIR_FILE.fullmatch(p.name)))
    if not numbers:
        raise ValueError(
            f"EXPORT must be a folder OUT/ARCH that tools/export wrote, got "
            f"{str(export)!r}: it has no pair-VERSION.json.{_hint(export)}"
        )
    return numbers


def read(export: pathlib.Path, version: int) -> Pair:
    """One version in the folder of an export.

    Raises:
      ValueError: it was changed since it was exported.
    """
    pair_file = export / f"pair-{version}.json"
    try:
        models = json.loads(pair_file.read_text(encoding="utf-8"))["models"]
        wanted = {
            kind: (models[kind]["sha256"], models[kind]["manifest_sha256"])
            for kind in manifest.KINDS
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{pair_file} is damaged: export the pair again.") from error
    halves = []
    for kind in manifest.KINDS:
        half = _exported_model(export / kind / str(version))
        if (half.sha256, half.manifest_sha256) != wanted[kind]:
            raise ValueError(
                f"{half.folder} was changed since it was exported: export it again, "
                "with --overwrite."
            )
        if (half.kind, half.version) != (kind, version):
            raise ValueError(
                f"{half.folder}: its manifest says that it is {half.name}."
            )
        halves.append(half)
    first, second = halves
    if first.arch != second.arch:
        raise ValueError(f"{pair_file} joins {first.name} and {second.name}.")
    if not is_name(first.arch):
        raise ValueError(f"{pair_file}: {first.arch!r} can't be part of a handle.")
    return Pair(export=export, halves=(first, second))


def _exported_model(folder: pathlib.Path) -> ExportedModel:
    record = manifest.read(folder)
    manifest_sha256 = manifest.manifest_hash(folder)
    if record is None or manifest_sha256 is None:
        raise ValueError(
            f"{folder} is no exported model: it has no {manifest.MANIFEST}."
        )
    return ExportedModel(
        folder=folder,
        manifest=record,
        sha256=manifest.content_hash(manifest.file_hashes(folder)),
        manifest_sha256=manifest_sha256,
    )


def _hint(export: pathlib.Path) -> str:
    """The folder that was meant, where a neighbour of `export` is one."""
    near = [*export.glob("*/pair-*.json"), *export.glob("../../pair-*.json")]
    return f" Did you mean {str(near[0].parent.resolve())!r}?" if near else ""
