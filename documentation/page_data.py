"""What is known of an arch, or of one exported model: all that pages are made of.

It comes from facts, manifests, the registry of weights and reports of the conformance
suite alone. Numbers that need a build are kept, as manifests say them, in `RECORDS`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from common import source_hash
from conformance import report as reports
from documentation import manifest_summary
from exporters import manifest
from zoo import config, facts, taxonomy
from zoo.weights import registry

PUBLISHER = "image-model-zoo"
ROOT = config.ZOO.parent
RECORDS = ROOT / "docs" / "records"
SPEEDS = ROOT / "docs" / "speeds.json"  # of one run on one machine
# What the values of a record are computed by, beside the arch's own files.
_SOURCES = (
    *(
        f"zoo/{name}.py"
        for name in ("head", "inputs", "model", "multiply_adds", "spec")
    ),
    *("zoo/taxonomy.py", "exporters/describe.py", "exporters/hyperparameters.py"),
    *("exporters/output_names.py", "documentation/manifest_summary.py"),
)
# What decides on the sizes that an export takes, likewise.
_TRACED = (
    *("zoo/head.py", "zoo/inputs.py", "zoo/model.py", "exporters/fused.py"),
    *("exporters/reusable.py", "exporters/hyperparameters.py"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What the conformance suite found of one exported model.

    Args:
      measured: the images that work; None where that was not asked for.
      counts: of clauses, by status.
      versions: of what it was judged with.
      sizes: bytes of its files by path, as far as they are known.
    """

    measured: reports.Measured | None
    counts: Mapping[str, int]
    versions: Mapping[str, str]
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `trial_from_json` reads it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelData:
    """One model of a pair.

    Args:
      about: what its manifest says, condensed: see `condensing`.
      trial: None where it was not exported and judged.
    """

    about: Mapping[str, Any]
    suite_result: SuiteResult | None = None

    @property
    def kind(self) -> str:
        return self.about["kind"]

    @property
    def version(self) -> int:
        return self.about["version"]

    @property
    def handle(self) -> str:
        """Relative to a hub: arch, kind and version behind the publisher's name."""
        return f"{self.about['arch']}/{self.kind}/{self.version}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageData:
    """An arch with both models, or one exported model.

    Args:
      arch: its name.
      models: one or both, the feature vector first.
      known: the arch's facts; none of an exported model, of which they need not hold.
      weights: what the registry offers for the arch, by name.
      speed: `images_per_second` of the classifier in batches of `batch` images of its
        size, on `cores` of a `processor`; nothing where it was not timed.
      publisher: whose handles they are.
    """

    arch: str
    models: tuple[ModelData, ...]
    known: facts.Facts = dataclasses.field(default_factory=dict)
    weights: Mapping[str, registry.Entry] = dataclasses.field(default_factory=dict)
    speed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    publisher: str = PUBLISHER

    @property
    def about(self) -> Mapping[str, Any]:
        """What holds for both models, as the last one's manifest says it."""
        return self.models[-1].about

    @property
    def is_random(self) -> bool:
        return self.about["weights"]["name"] == registry.RANDOM

    @property
    def taxonomy(self) -> str:
        """The name of the class-index definition; empty of a feature vector alone."""
        return (self.about["class_index"] or {}).get("taxonomy", "")

    @property
    def data(self) -> str:
        """What the weights were trained on, by the name of its classes."""
        if self.is_random:
            return "none"
        name = self.about["weights"].get("taxonomy")
        return data_title(name) if name else "unknown"

    def handle(self, model: ModelData) -> str:
        """As a hub names it: PUBLISHER/ARCH/KIND/VERSION."""
        return f"{self.publisher}/{model.handle}"


def for_arch(arch: str) -> PageData:
    """What is kept of an arch: with random weights, as all archs can be exported.

    Raises:
      ValueError: there is no record of it that can be read.
    """
    path = record_file(arch)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        models, trials = kept["models"], suite_results(arch)
        return PageData(
            arch=arch,
            models=tuple(
                ModelData(about=models[kind], suite_result=trials.get(kind))
                for kind in manifest.KINDS
            ),
            known=facts.load(arch),
            weights=registry.records(arch),
            speed=speeds().get(arch, {}),
        )
    except (OSError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is no record: {error!r}; run tools/docs.") from error


def for_export(
    folder: pathlib.Path, report: Mapping[str, Any], *, publisher: str = PUBLISHER
) -> PageData:
    """What is known of one exported model.

    Args:
      folder: of the SavedModel.
      report: what `tools/check --format=json` printed of it.
      publisher: who releases it.

    Raises:
      ValueError: the folder holds no manifest of ours, or the report is none.
    """
    about = manifest.read(folder)
    if about is None:
        raise ValueError(f"{folder} has no {manifest.MANIFEST} of ours.")
    model = ModelData(
        about=manifest_summary.summarize(dataclasses.asdict(about)),
        suite_result=suite_result(report, folder),
    )
    return PageData(
        arch=about.arch,
        models=(model,),
        publisher=publisher,
    )


def suite_result(report: Mapping[str, Any], folder: pathlib.Path) -> SuiteResult:
    """What is kept of a report, and the sizes of what it was made of.

    Raises:
      ValueError: it is no report of the suite.
    """
    try:
        found = reports.from_json(report)
    except (LookupError, TypeError) as error:
        raise ValueError(f"that is no report of tools/check: {error!r}") from error
    return SuiteResult(
        measured=found.measured,
        counts=found.counts,
        versions=found.versions,
        sizes=sizes(folder),
    )


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Bytes of the files of a SavedModel, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths}


def suite_result_from_json(kept: Mapping[str, Any]) -> SuiteResult:
    """The trial that `Trial.to_json` gave."""
    measured = kept["measured"]
    read = reports.measured_from_json(measured) if measured else None
    return SuiteResult(**{**kept, "measured": read})


def suite_results(arch: str) -> dict[str, SuiteResult]:
    """What was measured of an arch's export, by kind; of most archs nothing was."""
    kept = _measured(arch).get("models", {})
    return {kind: suite_result_from_json(values) for kind, values in kept.items()}


def measured_exports(arch: str) -> dict[str, str]:
    """A hash of each export that was measured of an arch, by kind."""
    return _measured(arch).get("exports", {})


def _measured(arch: str) -> dict[str, Any]:
    path = measured_file(arch)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def speeds() -> dict[str, dict[str, Any]]:
    """How fast archs are, by name; of some, nothing is known."""
    if not SPEEDS.is_file():
        return {}
    kept = json.loads(SPEEDS.read_text(encoding="utf-8"))
    timed = kept.pop("images_per_second")
    return {arch: {**kept, "images_per_second": n} for arch, n in timed.items()}


def record_file(arch: str) -> pathlib.Path:
    """What a build says of an arch."""
    return RECORDS / f"{arch}.json"


def measured_file(arch: str) -> pathlib.Path:
    """What an export, judged by the whole suite, says of an arch."""
    return RECORDS / f"{arch}.measured.json"


def is_current(arch: str) -> bool:
    """Whether the record of an arch is there, and of the sources that are there."""
    return _sources_of(record_file(arch)) == sources(arch)


def is_measure_current(arch: str) -> bool:
    """Whether what was measured of an arch, if it was, is of the sources there are."""
    path = measured_file(arch)
    return not path.is_file() or _sources_of(path) == measured_sources(arch)


def _sources_of(path: pathlib.Path) -> str | None:
    """The hash that a file says it comes from; None where it says nothing."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept.get("sources") if isinstance(kept, dict) else None


def sources(arch: str) -> str:
    """SHA-256 over all that decides on the record of an arch."""
    facts_file = config.config_file(arch).with_suffix(".facts.json")
    return _hash(arch, _SOURCES, [*(config.ZOO / "taxonomies").iterdir(), facts_file])


def measured_sources(arch: str) -> str:
    """SHA-256 over all that decides on what is measured of an arch."""
    return _hash(arch, _TRACED, [])


def _hash(arch: str, names: Iterable[str], further: Iterable[pathlib.Path]) -> str:
    """Of files by name, of further ones, and of those that build an arch."""
    family = config.config_file(arch).parent.parent
    paths = [
        *(ROOT / name for name in names),
        *(config.ZOO / "layers").glob("*.py"),
        *family.glob("*.py"),
        *further,
    ]
    return source_hash.of_files(paths, root=ROOT, gin_texts=config.texts(arch))


def about_taxonomy(name: str) -> dict[str, str]:
    """Title, description and source of the class-index definition `name`."""
    path = taxonomy.FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def data_title(name: str) -> str:
    """What a data set is called by people; that of one's own, as it was named."""
    return about_taxonomy(name)["title"] if name in taxonomy.names() else name
