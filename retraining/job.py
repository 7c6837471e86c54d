"""Runs a retraining job from images and a published module to an exported pair."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import typing
from collections.abc import Iterator, Mapping

import tensorflow as tf

from conformance import graph_counts, model_under_test, suite
from exporters import export_folder, formats, manifest
from foundation import atomic, progress
from images import model_input
from retraining import fine_tuning, manifests, saved_models
from reuse import handles, image_model, keras_layer, predict
from training import evaluation, evaluation_report, plots
from training.data import augmentation, data_sources, pipeline, split, tfrecords

_LOG = progress.logger(__name__)

_HELD_OUT = 8  # every eighth image of the train split chooses the best epoch
_MIN_AREA = 0.5  # smallest share of an image that a random crop keeps
_MAX_LOGGED_CLASSES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of tools/retrain; see its flags."""

    module: str
    data: str
    output: export_folder.ExportFolder
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
    """Retrains a module and exports the pair.

    Raises:
      ValueError: the module or the data are not usable.
      formats.ExportCheckError: the pair does not pass the conformance check.
    """
    splits = data_sources.open_splits(
        request.data, request.records, names=(split.TRAIN, split.TEST)
    )
    splits = data_sources.name_classes(splits)
    with (
        handles.open_model(request.module, name="--module") as folder,
        atomic.locked(request.output.arch_folder),
    ):
        manifests.check_replaceable(request.output, overwrite=request.overwrite)
        _Job(request, folder, splits).run()


class _Job:
    """One retraining, with its module and splits opened.

    Args:
      request: the arguments of tools/retrain.
      folder: the module's SavedModel.
      splits: the train split and the test split, by name.
    """

    def __init__(
        self,
        request: Request,
        folder: pathlib.Path,
        splits: Mapping[str, split.Split],
    ) -> None:
        self._request = request
        self._manifest = manifest.read(folder)
        self._test = splits[split.TEST]
        self._taxonomy = data_sources.taxonomy_of(splits[split.TRAIN])
        if self._manifest and self._manifest.kind != saved_models.FEATURE_VECTOR:
            raise ValueError(
                f"--module {request.module!r} is a classifier: give the feature-vector "
                "model of the pair."
            )
        if not self._test.size:
            raise ValueError(
                f"{request.data} has no images to test on: every class needs two."
            )
        self._module_hash = manifest.content_hash(manifest.file_hashes(folder))
        self._layer = self._open_module(folder)
        self._preprocessing = self._module_preprocessing(folder)
        for line in data_sources.describe(splits[split.TRAIN], self._taxonomy):
            _LOG.info(line)
        every = _HELD_OUT if request.plan.epochs else None
        train, self._held_out = split.held_out(splits[split.TRAIN], every)
        self._train, self._validation = map(self._stream, (train, self._held_out))
        height, width = self._preprocessing.height, self._preprocessing.width
        _LOG.info(
            f"{train.size} images to train on, {self._held_out.size} held out to "
            f"choose the best epoch, {self._test.size} to test on, at "
            f"{height} × {width}"
        )

    def _open_module(self, folder: pathlib.Path) -> keras_layer.KerasLayer:
        """Returns the module as a layer; raises ValueError if it can't be retrained."""
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
                f"--module {request.module!r} is not a Reusable SavedModel: it has no "
                "__call__."
            ) from error
        saved_models.check(layer.resolved_object, name="--module")
        request.plan.check(layer.resolved_object)
        return layer

    def _module_preprocessing(self, folder: pathlib.Path) -> model_input.Preprocessing:
        """Returns the module's preprocessing, uncropped, at the requested size."""
        result = image_model.preprocessing(folder, self._layer.resolved_object)
        result = dataclasses.replace(result, crop_fraction=1.0)
        size = self._request.image_size
        if not size:
            return result
        if record := manifest.read(folder):
            _check_image_size(record, size)
        return dataclasses.replace(result, height=size, width=size)

    def _stream(self, examples: split.Split) -> pipeline.Stream:
        return pipeline.Stream(
            split=examples,
            num_classes=self._taxonomy.num_classes,
            preprocessing=self._preprocessing,
            batch_size=min(self._request.batch_size, max(1, examples.size)),
            unreadable_images=pipeline.UnreadableImages(
                examples,
                num_classes=self._taxonomy.num_classes,
                limit=self._request.unreadable,
                announce=True,
            ),
        )

    def run(self) -> None:
        """Trains the head and then all layers, and exports and reports the pair."""
        tf.get_logger().setLevel("ERROR")  # no warnings about a trace for each size
        request = self._request
        examples = fine_tuning.Examples(
            once=_CheckedBatches(self._train),
            validation=_CheckedBatches(self._validation),
            epochs=self._epochs,
            steps=self._train.steps_per_epoch,
        )
        training = fine_tuning.ClassifierTraining(
            self._layer,
            num_classes=self._taxonomy.num_classes,
            scores=self._taxonomy.scores,
            image_size=(self._preprocessing.height, self._preprocessing.width),
            balanced=request.balanced,
            seed=request.seed,
        )
        best = training.fit_head(examples)
        frozen = self._evaluate(training.logits, announce=True)
        self._log_metrics(fine_tuning.FROZEN, frozen)
        state = request.output.arch_folder / manifests.STATE.format(self._digest())
        if request.plan.epochs and not self._held_out.size:
            _LOG.info("too few images to hold out any: only the head is trained")
        elif request.plan.epochs:
            best = training.fine_tune(examples, request.plan, state)
        if best["phase"] == fine_tuning.FROZEN and self._held_out.size:
            training.refit_head()
        with atomic.staging_folder(request.output.arch_folder) as staged:
            _LOG.info("write the pair")
            folders = saved_models.save(
                self._layer.resolved_object,
                training.head,
                self._taxonomy.to_tsv(),
                staged,
                preprocessing=self._preprocessing,
            )
            written = predict.Classifier(folders[saved_models.CLASSIFICATION])
            report = self._evaluate(written.logits)
            self._log_metrics(best["phase"], report)
            self._log_worst_classes(report)
            identity = self._write_manifests(folders, best, report)
            if request.check:
                _LOG.info("check the pair")
                if failures := suite.failures_of_pair(folders, level=request.check):
                    raise formats.ExportCheckError("\n".join(failures))
            self._move_into_place(folders, identity)
        self._write_report(training.history, best, frozen, report)
        for leftover in request.output.arch_folder.glob(manifests.STATE.format("*")):
            leftover.unlink()

    def _log_metrics(self, phase: str, report: evaluation_report.Report) -> None:
        """Logs the metrics of a classifier on the test images."""
        metrics = {name.replace("_", " "): v for name, v in report.measures.items()}
        text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        _LOG.info(f"{phase}, on {report.examples} test images: {text}")

    def _log_worst_classes(self, report: evaluation_report.Report) -> None:
        """Logs the classes with the lowest accuracy or average precision."""
        entries = [e for e in report.to_json()["per_class"] if e["examples"]]
        entries.sort(key=lambda entry: entry[report.class_measure])
        if len(entries) > _MAX_LOGGED_CLASSES:
            _LOG.info(f"the {_MAX_LOGGED_CLASSES} worst classes:")
        for entry in entries[:_MAX_LOGGED_CLASSES]:
            value = entry[report.class_measure]
            _LOG.info(f"  {value:.4f} of {entry['examples']} {entry['name']}")
        if report.never_recognised:
            _LOG.info(
                "NEVER RECOGNISED among the test images: "
                f"{', '.join(report.never_recognised)}; --class_weight=balanced or "
                "more images of these classes may help"
            )

    def _epochs(self, first: int, last: int) -> typing.Any:
        """Returns the augmented batches of epochs, as `Examples.epochs` requires."""
        steps = self._train.steps_per_epoch
        return self._train.training(
            first=first * steps,
            last=last * steps,
            seed=self._request.seed,
            augment=augmentation.Augmentation(
                crop="inception", area=(_MIN_AREA, 1.0), flip=self._request.flip
            ),
        )

    def _evaluate(
        self,
        call: typing.Callable,
        announce: bool = False,
    ) -> evaluation_report.Report:
        return evaluation.evaluate_split(
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
        """Returns a hash of everything that determines the training.

        A training resumes only from a state file whose name has the same hash.
        """
        request = self._request
        inputs = [
            *(self._module_hash, dataclasses.asdict(request.plan), request.batch_size),
            *(dataclasses.asdict(self._preprocessing), request.balanced),
            *(request.flip, request.training_mode),
            *(dict(request.arguments), request.seed),
            self._train.split.fingerprint,
        ]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]

    def _write_manifests(
        self,
        folders: Mapping[str, pathlib.Path],
        best: fine_tuning.Epoch,
        report: evaluation_report.Report,
    ) -> manifest.JsonObject:
        """Writes the manifests of both models, and returns the identity of the pair.

        If the module has no manifest, writes nothing and returns an empty identity.
        """
        request = self._request
        if self._manifest is None:
            return {}
        is_url = request.module.startswith(handles.SCHEMES)
        module = self._manifest
        handle = f"{module.arch}/{module.kind}/{module.version}"
        origin = manifests.RetrainedPair(
            name=request.name,
            version=request.output.version,
            module=module,
            handle=request.module if is_url else handle,
            data=self._taxonomy.name,
            is_fine_tuned=best["phase"] == fine_tuning.FINE_TUNED,
            image_size=self._preprocessing.height,
            crop_fraction=self._preprocessing.crop_fraction,
            taxonomy=self._taxonomy.name,
            scores=self._taxonomy.scores,
            num_classes=self._taxonomy.num_classes,
            graph_facts={k: self._graph_facts(folder) for k, folder in folders.items()},
            metrics={
                f"test_{name}": report.measures[name]
                for name in dict.fromkeys(
                    [report.main_measure, "loss", "calibration_error"]
                )
            },
        )
        manifest.write_pair(
            folders,
            lambda kind: manifests.manifest_fields(origin, kind),
            manifest.packages(),
        )
        return {
            "arch": request.name,
            "version": request.output.version,
            "module": origin.handle,
            "data": self._train.split.fingerprint,
            "seed": request.seed,
        }

    def _graph_facts(self, folder: pathlib.Path) -> manifest.JsonObject:
        """Returns `multiply_adds` and `endpoints` for the manifest of a model."""
        model = model_under_test.ModelUnderTest(
            folder, kind=folder.name, full=False, pair=None, documented={}
        )
        endpoints = graph_counts.endpoints(model, side=self._preprocessing.height)
        endpoints.pop("default", None)
        assert self._manifest
        # The order of the module's manifest, then new endpoints.
        names = [name for name in self._manifest.endpoints if name in endpoints]
        return {
            "multiply_adds": graph_counts.multiply_adds(
                model, side=self._preprocessing.height
            ),
            "endpoints": {n: endpoints[n] for n in dict.fromkeys([*names, *endpoints])},
        }

    def _move_into_place(
        self, folders: Mapping[str, pathlib.Path], identity: manifest.JsonObject
    ) -> None:
        """Moves both models to the output folder and then writes the pair file.

        Writes no pair file without an identity.
        """
        output = self._request.output
        output.pair_file.unlink(missing_ok=True)
        for kind, target in output.targets.items():
            atomic.move_into_place(folders[kind], target)
        if identity:
            text = manifest.to_json(output.pair_record(identity))
            atomic.write_file(output.pair_file, text.encode())

    def _write_report(
        self,
        history: list[fine_tuning.Epoch],
        best: fine_tuning.Epoch,
        frozen: evaluation_report.Report,
        report: evaluation_report.Report,
    ) -> None:
        """Writes metrics of the training and two plots to the output folder."""
        output, name = self._request.output, self._request.name
        record = {
            "module": self._request.module,
            "data": self._request.data,
            "class_weight": "balanced" if self._request.balanced else "none",
            "fine_tuning": dataclasses.asdict(self._request.plan),
            "unreadable": [
                *self._train.unreadable_images.descriptions,
                *self._validation.unreadable_images.descriptions,
                *report.unreadable,
            ],
            "frozen": frozen.to_json(),
            "kept": {
                "phase": best["phase"],
                "epoch": best["epoch"],
                **report.to_json(),
            },
            "epochs": history,
        }
        metric = report.main_measure.replace("_", " ")
        value = report.measures[report.main_measure]
        title = f"{name}: {metric} {value:.1%}, {report.examples} test images"
        for file, data in (
            ("confusion-{}.png", plots.mistakes(report, title=title)),
            ("curves-{}.png", plots.curves(history, title=name)),
            (manifests.REPORT, manifest.to_json(record).encode()),
        ):
            atomic.write_file(output.arch_folder / file.format(output.version), data)


class _CheckedBatches:
    """All batches of a stream in order; may be iterated any number of times.

    Raises:
      ValueError: too many images can't be read; raised after the last batch.
    """

    def __init__(self, stream: pipeline.Stream) -> None:
        self._batches = stream.evaluation()
        self._unreadable_images = stream.unreadable_images

    def __iter__(self) -> Iterator[tuple[typing.Any, typing.Any]]:
        yield from self._batches
        self._unreadable_images.check()


def _check_image_size(record: manifest.Manifest, size: int) -> None:
    """Raises ValueError unless the ranges in a module's manifest have an image size."""
    for name in ("height_range", "width_range"):
        try:
            low, high = record.input[name]
            fits = low <= size <= high
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"The module has an invalid manifest: {name}.") from error
        if not fits:
            raise ValueError(
                f"--image_size must be in the {name} of the module, {low} to {high}, "
                f"not {size}."
            )
