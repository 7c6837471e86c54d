"""Runs a training job from start to finish, resuming after interruptions."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import signal
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from foundation import progress
from images import model_input
from training import (
    checkpoints,
    evaluation,
    evaluation_report,
    metrics_log,
    starting_weights,
    strategies,
    trainer,
)
from training import recipe as recipes
from training.data import data_sources, file_changes, pipeline, split
from zoo import config, definition, facts
from zoo import model as zoo_model
from zoo import spec as specs
from zoo.weights import registry

_LOG = progress.logger(__name__)

WEIGHTS = "final.safetensors"
_CHECK_EVERY = 20  # steps between checks of losses, and of signals to any worker
_INVENTORY = "data.npz"  # inventory of the files of the training data
_ROOTS = (config.ROOT, recipes.ROOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of a training job; `history.json` stores the fields by name.

    Args:
      arch: a name that tools/list prints.
      recipe: a recipe name, or the path of a gin file; see `recipe.find`.
      data: the source of the data; see `data_sources.open_splits`.
      model_dir: folder for everything that the job writes.
      weights: weights to start from; see `zoo.model.build`. Their head is kept if their
        classes are those of the data.
      strategy: see `strategies.make`.
      seed: random seed for weights, order of the data and augmentation.
      unreadable: fraction of the images that may be unreadable.
      checkpoint_steps: steps between two checkpoints; a checkpoint is also saved at the
        end of each epoch.
      gin_bindings: extra bindings for the model or the recipe.
      trust_gin_imports: whether gin files may import any module, which runs its code.
    """

    arch: str
    recipe: str
    data: str
    model_dir: pathlib.Path
    weights: str = registry.RANDOM
    strategy: str = "auto"
    seed: int = 0
    unreadable: float = 0.01
    checkpoint_steps: int = 1000
    gin_bindings: Sequence[str] = ()
    trust_gin_imports: bool = False


class StoppedError(Exception):
    """A signal stopped the training, and a checkpoint was saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"stopped at step {step}: run the same command again to resume"
        )
        self.number = number


def train(request: Request) -> pathlib.Path:
    """Trains a model, or resumes its training, until the recipe ends.

    Returns:
      The path of the weights file, for `tools/export --weights`.

    Raises:
      ValueError: the request is invalid; the message is one line.
      OSError: the folder can't be written, or TensorFlow failed.
      StoppedError: SIGINT or SIGTERM was received.
      metrics_log.DivergedError: the loss or the logits are infinite or NaN.
    """
    path = recipes.find(request.recipe, request.arch)
    resolved = definition.resolve(
        request.arch,
        weights=request.weights,
        gin_files=[str(path)],
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    with contextlib.ExitStack() as stack:
        with starting_weights.bind(resolved, roots=_ROOTS) as start:
            recipe, recipe_text = recipes.bound(), start.builder.bindings.text()
            strategy = strategies.make(request.strategy)
            splits = data_sources.open_splits(request.data, recipe.records)
            if strategies.is_chief(strategy):
                stack.enter_context(_locked(request.model_dir))
            stack.enter_context(strategy.scope())
            model = start.build(
                seed=request.seed,
                taxonomy=(
                    data_sources.taxonomy_of(splits[split.TRAIN])
                    if splits[split.TRAIN].classes
                    else None
                ),
            )
        _check_image_sizes(request.arch, model.spec, resolved.facts, recipe)
        if strategies.is_chief(strategy):
            for line in data_sources.describe(splits[split.TRAIN], model.taxonomy):
                _LOG.info(line)
            if split.TEST not in splits:
                _LOG.info("the data has no test split: accuracy is not measured")
        try:
            job = _Training(request, recipe, recipe_text, model, strategy, splits)
            return job.run()
        except tf.errors.OpError as error:  # a full disk or device, a lost worker
            message = error.message.partition("}} ")[2] or error.message
            raise OSError(f"TensorFlow: {message}") from error


def _check_image_sizes(
    arch: str, spec: specs.BackboneSpec, arch_facts: facts.Facts, recipe: recipes.Recipe
) -> None:
    """Raises ValueError unless the network accepts all images of the training."""
    accepted = facts.ranges(arch_facts, only_size=spec.only_size)
    facts.check_image_size(accepted, arch, spec.image_size)
    for size in recipe.progression.image_size if recipe.progression else ():
        name = "training.Progression.image_size"
        facts.check_image_size(accepted, arch, size, name=name)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Creates the folder, and locks it against other training jobs.

    After an exception, a new folder is removed again if nothing has been written.

    Raises:
      ValueError: another training job holds the lock.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another training job is using {folder}: wait until it ends, "
                "or choose another --model_dir."
            ) from None
        yield
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _signals(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Collects signals, so the job can save a checkpoint before it stops.

    Yields:
      The list of the signals received so far.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)

    old_handlers = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


class _Training:
    """A training job: trains, evaluates, and saves checkpoints and weights."""

    def __init__(
        self,
        request: Request,
        recipe: recipes.Recipe,
        recipe_text: str,
        model: zoo_model.ImageModel,
        strategy: tf.distribute.Strategy,
        splits: dict[str, split.Split],
    ) -> None:
        self._request, self._recipe, self._model = request, recipe, model
        self._strategy, self._splits = strategy, splits
        self._is_chief = strategies.is_chief(strategy)
        index, count = strategies.worker(strategy)
        parts = strategy.num_replicas_in_sync // count
        self._shard = pipeline.Shard(index=index, count=count, parts=parts)
        self._check_batch_size(splits[split.TRAIN].size)
        self._unreadable, self._unreadable_in_test = (
            pipeline.UnreadableImages(
                splits.get(name, splits[split.TRAIN]),
                num_classes=model.taxonomy.num_classes,
                limit=request.unreadable,
                announce=self._is_chief,
            )
            for name in (split.TRAIN, split.TEST)
        )
        self._steps_per_epoch = splits[split.TRAIN].size // recipe.batch_size
        self._trainer = _trainer(model, recipe, strategy, self._steps_per_epoch)
        self._checkpoints = checkpoints.Folder(path=request.model_dir / "checkpoints")
        self._inventory = request.model_dir / _INVENTORY
        self._identity = {
            "arch": request.arch,
            "backend": keras.backend.backend(),
            "configuration": model.gin_config.splitlines(),
            "recipe": recipe_text.splitlines(),
            "data": {key: examples.fingerprint for key, examples in splits.items()},
            "seed": request.seed,
            "weights": model.weights.get("sha256"),
        }
        arguments = dataclasses.asdict(request) | {"model_dir": str(request.model_dir)}
        self._metrics_log = metrics_log.MetricsLog(
            request.model_dir if self._is_chief else None,
            facts={
                "arguments": arguments,
                **self._identity,
                "devices": strategy.num_replicas_in_sync,
                "examples": {key: examples.size for key, examples in splits.items()},
            },
            rate=self._trainer.learning_rate,
            batch_size=recipe.batch_size,
            steps_per_epoch=self._steps_per_epoch,
            epochs=recipe.epochs,
        )

    def run(self) -> pathlib.Path:
        """Trains the remaining stages, and returns the path of the weights file."""
        weights = self._request.model_dir / WEIGHTS
        self._resume()
        if self._trainer.steps == self._metrics_log.total_steps and weights.exists():
            _LOG.info(f"training is already complete: {weights}")
        with (
            _signals([signal.SIGINT, signal.SIGTERM]) as received,
            self._metrics_log.writer.as_default(),
        ):
            for stage in self._recipe.stages():
                self._run_stage(stage, received)
        self._finish(weights)
        return weights

    def _check_batch_size(self, num_examples: int) -> None:
        batch_size = self._recipe.batch_size
        replicas = self._strategy.num_replicas_in_sync
        parts = replicas * self._recipe.accumulate
        if batch_size % parts:
            raise ValueError(
                f"{recipes.ROOT}.batch_size must be a multiple of {parts} ({replicas} "
                f"devices, {self._recipe.accumulate} parts each), not {batch_size}."
            )
        if num_examples < batch_size:
            raise ValueError(
                f"{recipes.ROOT}.batch_size is {batch_size}, but there are only "
                f"{num_examples} examples to train on: choose a smaller batch size."
            )

    def _resume(self) -> None:
        """Restores the last checkpoint, if there is one.

        Raises:
          ValueError: the checkpoint belongs to another configuration or other data.
        """
        checkpoint = self._checkpoints.last()
        if checkpoint is None:
            if self._is_chief:
                file_changes.save(self._inventory, self._splits)
            return
        saved = checkpoint.record.get("identity", {})
        different = [k for k, v in self._identity.items() if saved.get(k) != v]
        if different:
            changes = file_changes.explain(self._inventory, self._splits)
            detail = f" ({changes})" if "data" in different and changes else ""
            raise ValueError(
                f"{self._request.model_dir} holds a training job that differs in "
                f"{', '.join(different)}{detail}: choose another --model_dir."
            )
        self._trainer.restore(checkpoint.values)
        self._unreadable.restore(checkpoint.record["unreadable"])
        self._unreadable_in_test.restore(checkpoint.record["unreadable_in_test"])
        self._metrics_log.resume(
            checkpoint.record, step=self._trainer.steps, path=checkpoint.path
        )

    def _run_stage(self, stage: recipes.Stage, received: list[int]) -> None:
        """Trains the remaining steps of a stage.

        Args:
          stage: the stage.
          received: list of the received signals, which grows while the stage runs.

        Raises:
          StoppedError: a signal was received.
        """
        first = max(self._trainer.steps, stage.first * self._steps_per_epoch)
        last = stage.last * self._steps_per_epoch
        if first >= last:
            return
        if stage.dropout_rate is not None:
            self._trainer.set_dropout(stage.dropout_rate)
        stream = self._stream(split.TRAIN, self._unreadable, stage.image_size)
        batches = self._strategy.distribute_datasets_from_function(
            lambda _: stream.training(
                first=first,
                last=last,
                seed=self._request.seed,
                augment=stage.augmentation,
                shard=self._shard,
            )
        )
        step = self._trainer.train_step()
        self._metrics_log.start_timer()
        for number, (images, labels) in enumerate(batches, start=first + 1):
            if number == first + 1:
                local_images = self._strategy.experimental_local_results(images)
                self._metrics_log.log_images(local_images[0], first)
            unchecked = self._metrics_log.add_step(number, *step(images, labels))
            is_end = number % self._steps_per_epoch == 0
            is_due = number % self._request.checkpoint_steps == 0
            stop = self._stop_signal(received, number)
            if is_end or is_due or stop or unchecked == _CHECK_EVERY:
                self._metrics_log.check_losses()
                self._unreadable.check()
            if is_end:
                self._metrics_log.end_epoch(number, self._evaluate(number))
            if is_end or is_due or stop:
                self._save(number, is_best=is_end and self._metrics_log.is_best())
                self._metrics_log.start_timer()
            if stop:
                raise StoppedError(stop, number)

    def _stop_signal(self, received: list[int], step: int) -> int:
        """Returns the signal to stop for after a step, or 0 to continue.

        All workers must stop after the same step, so every `_CHECK_EVERY` steps they
        check together whether any of them received a signal.
        """
        if self._shard.count == 1:
            return received[0] if received else 0
        if step % _CHECK_EVERY:
            return 0
        flags = self._strategy.run(lambda: tf.constant(float(bool(received))))
        if not self._strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None):
            return 0
        return received[0] if received else signal.SIGTERM

    def _evaluate(self, step: int) -> evaluation_report.Report | None:
        """Evaluates the model on the test split; returns None if there is none."""
        if split.TEST not in self._splits:
            return None
        taxonomy = self._model.taxonomy
        stream = self._stream(split.TEST, self._unreadable_in_test, None)
        batches = self._strategy.distribute_datasets_from_function(
            lambda _: stream.evaluation(shard=self._shard)
        )
        try:
            with self._trainer.averaged():
                report = evaluation.evaluate(
                    self._trainer.test_step(),
                    batches,
                    taxonomy.classes,
                    scores=taxonomy.scores,
                )
        except evaluation.NonFiniteLogitsError as error:
            raise self._metrics_log.diverged_error(str(error), step) from error
        self._unreadable_in_test.check()
        return report

    def _stream(
        self,
        name: str,
        unreadable_images: pipeline.UnreadableImages,
        image_size: int | None,
    ) -> pipeline.Stream:
        """Returns the stream of a split; `image_size` None is the spec's size."""
        size = image_size or self._model.spec.image_size
        return pipeline.Stream(
            split=self._splits[name],
            num_classes=self._model.taxonomy.num_classes,
            preprocessing=model_input.Preprocessing(
                height=size, width=size, **dataclasses.asdict(self._model.preprocessing)
            ),
            batch_size=self._recipe.batch_size,
            unreadable_images=unreadable_images,
        )

    def _save(self, step: int, *, is_best: bool) -> None:
        # All workers must call this: some values are distributed over the workers.
        values = self._trainer.values()
        if not self._is_chief:
            return
        record = {
            "identity": self._identity,
            "unreadable": self._unreadable.numbers,
            "unreadable_in_test": self._unreadable_in_test.numbers,
            **self._metrics_log.checkpoint_record(),
        }
        path = self._checkpoints.save(step, values, record, is_best=is_best)
        unreadable = [
            *self._unreadable.descriptions,
            *self._unreadable_in_test.descriptions,
        ]
        self._metrics_log.log_checkpoint(path, step=step, unreadable=unreadable)

    def _finish(self, weights: pathlib.Path) -> None:
        """Writes the final weights and the training curves."""
        if not self._is_chief:
            return
        start = self._model.weights["name"]
        origin = "" if start == registry.RANDOM else f", from weights {start!r},"
        with self._trainer.averaged():
            self._model.save_weights(
                weights,
                source=(
                    f"trained{origin} with this project's recipe "
                    f"{self._request.recipe} on "
                    f"{self._splits[split.TRAIN].taxonomy or self._request.data}"
                ),
                metrics=self._metrics_log.metrics(),
            )
        self._metrics_log.write_curves(f"{self._request.arch}, {self._request.recipe}")


def _trainer(
    model: zoo_model.ImageModel,
    recipe: recipes.Recipe,
    strategy: tf.distribute.Strategy,
    steps_per_epoch: int,
) -> trainer.Trainer:
    """Creates the trainer for the current Keras backend."""
    if keras.backend.backend() == "jax":
        from training import jax_backend

        return jax_backend.Trainer(model, recipe, steps_per_epoch=steps_per_epoch)
    from training import tensorflow_backend

    return tensorflow_backend.Trainer(
        model, recipe, strategy=strategy, steps_per_epoch=steps_per_epoch
    )
