"""Joins the rooms for tools/retrain: images from training, a module from reuse."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import typing
from collections.abc import Iterator, Mapping

import tensorflow as tf

from common import atomic, progress
from conformance import graph_counts, model_under_test, suite
from exporters import export_folder, formats, manifest
from images import model_input
from retraining import fine_tuning, manifests, saved_models
from reuse import handles, keras_layer, predict
from training import evaluation, evaluation_report, plots
from training.data import augmentation, data_sources, pipeline, split, tfrecords

_LOG = progress.logger(__name__)

_HELD_OUT = 8  # every eighth image to learn from chooses among epochs instead
_LEAST_AREA = 0.5  # of an image, that a random crop keeps
_SHOWN_CLASSES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of tools/retrain; see its flags."""

    module: str
    data: str
    place: export_folder.ExportFolder
    name: str
    overwrite: bool
    plan: fine_tuning.FineTuning
    batch_size: int
    image_size: int | None
    flip: bool
    training_mode: bool
    arguments: Mapping[str, float]
    balanced: bool
    unreadable: float
    records: tfrecords.Features
    seed: int
    check: str | None


def retrain(request: Request) -> None:
    """From the images to the pair in its place.

    Raises:
      ValueError: module or data are not usable.
      formats.UnfitError: what was written does not pass the check.
    """
    halves = data_sources.open_splits(
        request.data, request.records, names=(split.TRAIN, split.TEST)
    )
    halves = data_sources.named(halves)
    with (
        handles.open_model(request.module, name="--module") as folder,
        atomic.locked(request.place.arch_folder),
    ):
        manifests.check_room(request.place, overwrite=request.overwrite)
        _Work(request, folder, halves).run()


class _Work:
    """One retraining, whose data and module have been found."""

    def __init__(
        self,
        request: Request,
        folder: pathlib.Path,
        halves: Mapping[str, split.Split],
    ) -> None:
        self._request = request
        self._manifest = manifest.read(folder)
        self._test = halves[split.TEST]
        self._taxonomy = data_sources.taxonomy_of(halves[split.TRAIN])
        if self._manifest and self._manifest.kind != saved_models.FEATURE_VECTOR:
            raise ValueError(
                f"--module {request.module!r} gives classes: give its other half, the "
                "feature vector."
            )
        if not self._test.size:
            raise ValueError(
                f"{request.data} has no images to test on: every class needs two."
            )
        self._module_hash = manifest.content_hash(manifest.file_hashes(folder))
        self._layer = self._opened(folder)
        self._preprocessing = self._input(folder)
        for line in data_sources.describe(halves[split.TRAIN], self._taxonomy):
            _LOG.info(line)
        every = _HELD_OUT if request.plan.epochs else None
        learnt, self._chosen_by = split.held_out(halves[split.TRAIN], every)
        self._learnt, self._validation = map(self._stream, (learnt, self._chosen_by))
        height, width = self._preprocessing.height, self._preprocessing.width
        _LOG.info(
            f"{learnt.size} images to learn from, {self._chosen_by.size} to choose by "
            f"and {self._test.size} to test on, at {height} × {width}"
        )

    def _opened(self, folder: pathlib.Path) -> keras_layer.KerasLayer:
        """The module as a layer, if it is one that can be trained and saved again."""
        request = self._request
        if (folder / "tfhub_module.pb").exists():
            raise ValueError(
                f"--module {request.module!r} is a TF1 Hub module; retrain takes TF2 "
                "SavedModels."
            )
        try:
            layer = keras_layer.KerasLayer(
                str(folder),
                arguments=request.arguments,
                training_mode=request.training_mode,
                name="module",
            )
        except ValueError as error:
            if "no __call__" not in str(error):
                raise
            raise ValueError(
                f"--module {request.module!r} has no __call__, and so is no Reusable "
                "SavedModel."
            ) from error
        saved_models.check(layer.resolved_object, name="--module")
        return layer

    def _input(self, folder: pathlib.Path) -> model_input.Preprocessing:
        """What the module asks for, but of one's own images nothing is cropped off."""
        wanted = predict.preprocessing(folder, self._layer.resolved_object)
        wanted = dataclasses.replace(wanted, crop_fraction=1.0)
        size = self._request.image_size
        return dataclasses.replace(wanted, height=size, width=size) if size else wanted

    def _stream(self, examples: split.Split) -> pipeline.Stream:
        return pipeline.Stream(
            split=examples,
            num_classes=self._taxonomy.num_classes,
            preprocessing=self._preprocessing,
            batch_size=min(self._request.batch_size, max(1, examples.size)),
            ledger=pipeline.UnreadableImages(
                examples,
                num_classes=self._taxonomy.num_classes,
                limit=self._request.unreadable,
                announce=True,
            ),
        )

    def run(self) -> None:
        """Head, all of it, pair."""
        tf.get_logger().setLevel("ERROR")  # it warns of what is traced for each size
        request = self._request
        examples = fine_tuning.Examples(
            once=_Checked(self._learnt),
            validation=_Checked(self._validation),
            epoch=self._epoch,
            steps=self._learnt.steps_per_epoch,
        )
        work = fine_tuning.ClassifierTraining(
            self._layer,
            num_classes=self._taxonomy.num_classes,
            scores=self._taxonomy.scores,
            image_size=(self._preprocessing.height, self._preprocessing.width),
            balanced=request.balanced,
            seed=request.seed,
        )
        best = work.fit_head(examples)
        frozen = self._tested(work.logits, announce=True)
        self._tell(fine_tuning.FROZEN, frozen)
        state = request.place.arch_folder / manifests.STATE.format(self._digest())
        if request.plan.epochs and not self._chosen_by.size:
            _LOG.info("too few images to hold any out: the head alone is trained")
        elif request.plan.epochs:
            best = work.fine_tune(examples, request.plan, state)
        if best["phase"] == fine_tuning.FROZEN and self._chosen_by.size:
            work.refit_head()
        with atomic.staging_folder(request.place.arch_folder) as staged:
            _LOG.info("write the pair")
            folders = saved_models.save(
                self._layer.resolved_object,
                work.head,
                self._taxonomy.to_tsv(),
                staged,
                preprocessing=self._preprocessing,
            )
            written = predict.Classifier(folders[saved_models.CLASSIFICATION])
            found = self._tested(written.logits)
            self._tell(best["phase"], found)
            self._tell_classes(found)
            identity = self._describe(folders, best, found)
            if request.check:
                _LOG.info("check the pair")
                if failures := suite.failures_of_pair(folders, level=request.check):
                    raise formats.UnfitError("\n".join(failures))
            self._place(folders, identity)
        self._report(work.history, best, frozen, found)
        for leftover in request.place.arch_folder.glob(manifests.STATE.format("*")):
            leftover.unlink()

    def _tell(self, phase: str, found: evaluation_report.Report) -> None:
        """Says how good a classifier is on the test images."""
        figures = {name.replace("_", " "): v for name, v in found.measures.items()}
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        _LOG.info(f"{phase}, of {found.examples} test images: {told}")

    def _tell_classes(self, found: evaluation_report.Report) -> None:
        """Says which classes are recognised least."""
        entries = [e for e in found.to_json()["per_class"] if e["examples"]]
        entries.sort(key=lambda entry: entry[found.of_class])
        if len(entries) > _SHOWN_CLASSES:
            _LOG.info(f"the {_SHOWN_CLASSES} classes that are recognised least:")
        for entry in entries[:_SHOWN_CLASSES]:
            share = entry[found.of_class]
            _LOG.info(f"  {share:.4f} of {entry['examples']} {entry['name']}")
        if found.never_recognised:
            _LOG.info(
                "NEVER RECOGNISED among the test images: "
                f"{', '.join(found.never_recognised)}; --class_weight=balanced or more "
                "images of them may help"
            )

    def _epoch(self, number: int) -> typing.Any:
        steps = self._learnt.steps_per_epoch
        return self._learnt.training(
            first=number * steps,
            last=(number + 1) * steps,
            seed=self._request.seed,
            augment=augmentation.Augmentation(
                crop="inception", area=(_LEAST_AREA, 1.0), flip=self._request.flip
            ),
        )

    def _tested(
        self,
        call: typing.Callable,
        announce: bool = False,
    ) -> evaluation_report.Report:
        return evaluation.of_split(
            call,
            self._test,
            classes=self._taxonomy.classes,
            scores=self._taxonomy.scores,
            preprocessing=self._preprocessing,
            batch_size=min(self._request.batch_size, self._test.size),
            unreadable=self._request.unreadable,
            announce=announce,
        )

    def _digest(self) -> str:
        """Of all that decides on the training: another one does not go on from it."""
        request = self._request
        asked = [
            *(self._module_hash, dataclasses.asdict(request.plan), request.batch_size),
            *(dataclasses.asdict(self._preprocessing), request.balanced),
            *(request.flip, request.training_mode),
            *(dict(request.arguments), request.seed),
            self._learnt.split.fingerprint,
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    def _describe(
        self,
        folders: Mapping[str, pathlib.Path],
        best: fine_tuning.Epoch,
        found: evaluation_report.Report,
    ) -> manifest.JsonObject:
        """Writes manifests, where the module had one; what the pair's file says."""
        request = self._request
        if self._manifest is None:
            return {}
        is_url = request.module.startswith(handles.SCHEMES)
        known = self._manifest
        handle = f"{known.arch}/{known.kind}/{known.version}"
        origin = manifests.RetrainedPair(
            name=request.name,
            version=request.place.version,
            module=known,
            handle=request.module if is_url else handle,
            data=self._taxonomy.name,
            is_fine_tuned=best["phase"] == fine_tuning.FINE_TUNED,
            image_size=self._preprocessing.height,
            crop_fraction=self._preprocessing.crop_fraction,
            taxonomy=self._taxonomy.name,
            scores=self._taxonomy.scores,
            num_classes=self._taxonomy.num_classes,
            counted={kind: self._counted(folder) for kind, folder in folders.items()},
            metrics={
                f"test_{name}": found.measures[name]
                for name in dict.fromkeys([found.main, "loss", "calibration_error"])
            },
        )
        manifest.write_pair(
            folders,
            lambda kind: manifests.about(origin, kind),
            manifest.packages(),
        )
        return {
            "arch": request.name,
            "version": request.place.version,
            "module": origin.handle,
            "data": self._learnt.split.fingerprint,
            "seed": request.seed,
        }

    def _counted(self, folder: pathlib.Path) -> manifest.JsonObject:
        """What a manifest says of one image, of a model that was written."""
        model = model_under_test.ModelUnderTest(
            folder, kind=folder.name, full=False, pair=None, documented={}
        )
        found = graph_counts.endpoints(model, side=self._preprocessing.height)
        found.pop("default", None)
        assert self._manifest
        known = [name for name in self._manifest.endpoints if name in found]
        return {
            "multiply_adds": graph_counts.multiply_adds(
                model, side=self._preprocessing.height
            ),
            "endpoints": {n: found[n] for n in dict.fromkeys([*known, *found])},
        }

    def _place(
        self, folders: Mapping[str, pathlib.Path], identity: manifest.JsonObject
    ) -> None:
        """Moves the pair into place, its file last; a foreign module's has none."""
        place = self._request.place
        place.pair_file.unlink(missing_ok=True)
        for kind, target in place.targets.items():
            atomic.move_into_place(folders[kind], target)
        if identity:
            text = manifest.to_json(place.pair_record(identity))
            atomic.write_file(place.pair_file, text.encode())

    def _report(
        self,
        history: list[fine_tuning.Epoch],
        best: fine_tuning.Epoch,
        frozen: evaluation_report.Report,
        found: evaluation_report.Report,
    ) -> None:
        """What was found on the way, beside the pair: figures and two pictures."""
        place, name = self._request.place, self._request.name
        record = {
            "module": self._request.module,
            "data": self._request.data,
            "class_weight": "balanced" if self._request.balanced else "none",
            "unreadable": [
                *self._learnt.ledger.unreadable,
                *self._validation.ledger.unreadable,
                *found.unreadable,
            ],
            "frozen": frozen.to_json(),
            "kept": {"phase": best["phase"], "epoch": best["epoch"], **found.to_json()},
            "epochs": history,
        }
        measure = found.main.replace("_", " ")
        value = found.measures[found.main]
        title = f"{name}: {measure} {value:.1%}, {found.examples} test images"
        for file, data in (
            ("confusion-{}.png", plots.mistakes(found, title=title)),
            ("curves-{}.png", plots.curves(history, title=name)),
            (manifests.REPORT, manifest.to_json(record).encode()),
        ):
            atomic.write_file(place.arch_folder / file.format(place.version), data)


class _Checked:
    """All batches of a stream in order, as often as they are asked for.

    Raises:
      ValueError: too many images can't be read; after the last batch.
    """

    def __init__(self, stream: pipeline.Stream) -> None:
        self._batches, self._ledger = stream.evaluation(), stream.ledger

    def __iter__(self) -> Iterator[tuple[typing.Any, typing.Any]]:
        yield from self._batches
        self._ledger.check()
