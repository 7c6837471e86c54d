"""Data model of the pages: everything known about an arch or an exported model.

The data come only from facts, manifests, the weights registry and reports of the
conformance suite. Values that need a build are stored in `RECORDS`, as manifests have
them.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from conformance import report as reports
from documentation import manifest_summary
from exporters import manifest
from foundation import source_hash
from zoo import config, facts, taxonomy
from zoo.weights import registry

PUBLISHER = "image-model-zoo"
ROOT = config.ZOO.parent
RECORDS = ROOT / "docs" / "records"
SPEEDS = ROOT / "docs" / "speeds.json"  # of one run on one machine
# Where a word starts in the name of a class: `V2` and `RS`, but not `Net`, `NeXt`, the
# `T3` of DeiT3 or the `LIP` of SigLIP; and after an acronym: the `Mixer` of MLPMixer,
# the `V1` of MobileViTV1.
_WORD_START = re.compile(
    r"(?<=[a-z\d])(?=(?!Net|TV?\d|LIP)[A-Z](?:[A-Z\d]|[a-z]{2}))|(?<=Net)(?=[A-Z]$)"
    r"|(?<=[A-Z]{3})(?=(?!Net)[A-Z][a-z]{2})|(?<=ViT)(?=V\d)"
)
# Files that determine the values of a record, besides the arch's own files.
_RECORD_SOURCES = (
    *(
        f"zoo/{name}.py"
        for name in ("facts", "head", "inputs", "model", "multiply_adds", "spec")
    ),
    *("zoo/taxonomy.py", "exporters/describe.py", "exporters/hyperparameters.py"),
    *("exporters/output_names.py", "documentation/manifest_summary.py"),
)
# Files that determine which image sizes an export accepts, besides the arch's own.
_MEASUREMENT_SOURCES = (
    *("zoo/head.py", "zoo/inputs.py", "zoo/model.py", "zoo/spec.py"),
    *("exporters/fused.py", "exporters/reusable.py", "exporters/hyperparameters.py"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Results of the conformance suite for one exported model.

    Args:
      measured: the image and batch sizes that work; None if they were not measured.
      counts: number of clauses by status.
      versions: of Python and the packages that the suite ran with.
      sizes: known file sizes in bytes, by path.
    """

    measured: reports.MeasuredSizes | None
    counts: Mapping[str, int]
    versions: Mapping[str, str]
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns a dictionary of plain values for `suite_result_from_json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelData:
    """One model of a pair.

    Args:
      manifest: its manifest, shortened by `manifest_summary.summarize`.
      suite_result: None if the conformance suite was not run on an export.
    """

    manifest: Mapping[str, Any]
    suite_result: SuiteResult | None = None

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def version(self) -> int:
        return self.manifest["version"]

    @property
    def handle(self) -> str:
        """ARCH/KIND/VERSION, the handle without the publisher."""
        return f"{self.manifest['arch']}/{self.kind}/{self.version}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageData:
    """An arch with both of its models, or one exported model.

    Args:
      arch: its name.
      models: one or both models, the feature-vector model first.
      facts: the arch's facts; empty for an exported model, which may differ from them.
      weights: registry entries of the arch's weights, by name.
      speed: `images_per_second` of the classifier for batches of `batch` images of the
        default size, on `cores` cores of a `processor`; empty if it was not timed.
      publisher: the first part of the handles.
    """

    arch: str
    models: tuple[ModelData, ...]
    facts: facts.Facts = dataclasses.field(default_factory=dict)
    weights: Mapping[str, registry.Entry] = dataclasses.field(default_factory=dict)
    speed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    publisher: str = PUBLISHER

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The last model's manifest, for the values that both models share."""
        return self.models[-1].manifest

    @property
    def only_size(self) -> int | None:
        """Height and width of the images that the models accept; None if any works."""
        return self.manifest["input"]["shape"][1]

    @property
    def is_random(self) -> bool:
        return self.manifest["weights"]["name"] == registry.RANDOM

    @property
    def taxonomy(self) -> str:
        """Name of the class-index definition; empty for a lone feature vector."""
        return (self.manifest["class_index"] or {}).get("taxonomy", "")

    @property
    def data(self) -> str:
        """Title of the data set that the weights were trained on."""
        if self.is_random:
            return "none"
        name = self.manifest["weights"].get("taxonomy")
        return dataset_title(name) if name else "unknown"

    def handle(self, model: ModelData) -> str:
        """Returns a model's handle: PUBLISHER/ARCH/KIND/VERSION."""
        return f"{self.publisher}/{model.handle}"

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of each endpoint, by its name without the architecture.

        The blocks of a network without stages have one shape, `BLOCKS`.
        """
        has_stages = manifest_summary.BLOCKS not in self.manifest["blocks"]
        shapes = {}
        for name, shape in self.manifest["endpoints"].items():
            short = name.split("/")[-1]
            is_block = short.startswith("block_") and not has_stages
            shapes[manifest_summary.BLOCKS if is_block else short] = shape
        return shapes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture with its archs.

    Args:
      name: as in manifests, such as `MobileNetV2`.
      variants: its archs, the smallest first.
    """

    name: str
    variants: tuple[PageData, ...]

    @property
    def page_name(self) -> str:
        """File name of its page, without a suffix: `mobilenet_v2`."""
        return _WORD_START.sub("_", self.name).lower()

    @property
    def default(self) -> PageData:
        """The arch that is named like the page, or else the smallest arch.

        The name of the smallest begins like the page's, if that of any arch does.
        """
        named = [page for page in self.variants if page.arch == self.page_name]
        alike = [p for p in self.variants if p.arch.startswith(f"{self.page_name}_")]
        return next(iter([*named, *alike, *self.variants]))

    def link(self, arch: str) -> str:
        """Returns the address of an arch's row, relative to the folder of the pages."""
        return f"{self.page_name}.md#{arch}"


def architectures(pages: Iterable[PageData]) -> list[Architecture]:
    """Groups archs by architecture, in alphabetical order."""
    groups: dict[str, list[PageData]] = {}
    for page in sorted(pages, key=_size):
        groups.setdefault(page.manifest["architecture"], []).append(page)
    return [
        Architecture(name=name, variants=tuple(groups[name])) for name in sorted(groups)
    ]


def _size(page: PageData) -> tuple[int, int, str]:
    manifest = page.manifest
    return manifest["params"]["all"], manifest["multiply_adds"], page.arch


def for_arch(arch: str) -> PageData:
    """Reads the data of an arch with random weights from its records.

    Raises:
      ValueError: its record is missing or unreadable.
    """
    path = record_file(arch)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        models, results = record["models"], suite_results(arch)
        return PageData(
            arch=arch,
            models=tuple(
                ModelData(manifest=models[kind], suite_result=results.get(kind))
                for kind in manifest.KINDS
            ),
            facts=facts.load(arch),
            weights=registry.records(arch),
            speed=speeds().get(arch, {}),
        )
    except (OSError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is not a valid record: {error!r}. Run tools/docs."
        ) from error


def for_export(
    folder: pathlib.Path, report: Mapping[str, Any], *, publisher: str = PUBLISHER
) -> PageData:
    """Collects the data of one exported model.

    Args:
      folder: of the SavedModel.
      report: the output of `tools/check --format=json` for it.
      publisher: the first part of its handle.

    Raises:
      ValueError: the folder has no manifest of this project, or `report` is not a
        conformance report.
    """
    exported = manifest.read(folder)
    if exported is None:
        raise ValueError(
            f"{folder} has no {manifest.MANIFEST}: it was not written by tools/export."
        )
    model = ModelData(
        manifest=manifest_summary.summarize(dataclasses.asdict(exported)),
        suite_result=suite_result(report, folder),
    )
    return PageData(
        arch=exported.arch,
        models=(model,),
        publisher=publisher,
    )


def suite_result(report: Mapping[str, Any], folder: pathlib.Path) -> SuiteResult:
    """Extracts a `SuiteResult` from the report on the SavedModel in `folder`.

    Raises:
      ValueError: `report` is not a conformance report.
    """
    try:
        parsed = reports.from_json(report)
    except (LookupError, TypeError) as error:
        raise ValueError(f"not a report of tools/check: {error!r}") from error
    return SuiteResult(
        measured=parsed.measured,
        counts=parsed.counts,
        versions=parsed.versions,
        sizes=sizes(folder),
    )


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the sizes in bytes of a SavedModel's files, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths}


def suite_result_from_json(values: Mapping[str, Any]) -> SuiteResult:
    """Returns the result that `SuiteResult.to_json` wrote."""
    measured = values["measured"]
    parsed = reports.measured_from_json(measured) if measured else None
    return SuiteResult(**{**values, "measured": parsed})


def suite_results(arch: str) -> dict[str, SuiteResult]:
    """Reads an arch's recorded suite results by kind; most archs have none."""
    models = _measurement(arch).get("models", {})
    return {kind: suite_result_from_json(values) for kind, values in models.items()}


def measured_export_hashes(arch: str) -> dict[str, str]:
    """Returns the content hash of each export of an arch that was measured, by kind."""
    return _measurement(arch).get("exports", {})


def _measurement(arch: str) -> dict[str, Any]:
    path = measured_file(arch)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def speeds() -> dict[str, dict[str, Any]]:
    """Reads the speeds of the archs that were timed, by arch; see `PageData.speed`."""
    if not SPEEDS.is_file():
        return {}
    common_values = json.loads(SPEEDS.read_text(encoding="utf-8"))
    timed = common_values.pop("images_per_second")
    return {
        arch: {**common_values, "images_per_second": n} for arch, n in timed.items()
    }


def record_file(arch: str) -> pathlib.Path:
    """Returns the path of an arch's record: the shortened manifests of a build."""
    return RECORDS / f"{arch}.json"


def measured_file(arch: str) -> pathlib.Path:
    """Returns the path of the suite's results for an export of an arch."""
    return RECORDS / f"{arch}.measured.json"


def is_current(arch: str) -> bool:
    """Checks that an arch has a record, made from the current sources."""
    return _recorded_hash(record_file(arch)) == sources_hash(arch)


def is_measurement_current(arch: str) -> bool:
    """Checks that an arch's suite results, if any, are from the current sources."""
    path = measured_file(arch)
    return not path.is_file() or _recorded_hash(path) == measurement_sources_hash(arch)


def _recorded_hash(path: pathlib.Path) -> str | None:
    """Reads the hash of the sources that a file was made from; None if it has none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record.get("sources") if isinstance(record, dict) else None


def sources_hash(arch: str) -> str:
    """Returns the SHA-256 of all sources that determine the record of an arch."""
    facts_file = config.config_file(arch).with_suffix(".facts.json")
    more_files = [*(config.ZOO / "taxonomies").iterdir(), facts_file]
    return _hash(arch, _RECORD_SOURCES, more_files)


def measurement_sources_hash(arch: str) -> str:
    """Returns the SHA-256 of all sources that determine an arch's suite results."""
    return _hash(arch, _MEASUREMENT_SOURCES, [])


def _hash(arch: str, names: Iterable[str], more_files: Iterable[pathlib.Path]) -> str:
    """Hashes named files, more files, and the files that build an arch."""
    family = config.config_file(arch).parent.parent
    paths = [
        *(ROOT / name for name in names),
        *(config.ZOO / "layers").glob("*.py"),
        *family.glob("*.py"),
        *more_files,
    ]
    return source_hash.hash_files(paths, root=ROOT, gin_texts=config.gin_texts(arch))


def taxonomy_info(name: str) -> dict[str, str]:
    """Reads title, description and source of the class-index definition `name`."""
    path = taxonomy.FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def dataset_title(name: str) -> str:
    """Returns the title of a data set; a data set without a definition keeps `name`."""
    return taxonomy_info(name)["title"] if name in taxonomy.names() else name
