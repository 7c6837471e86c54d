"""A training from its request to its weights; it goes on where it was interrupted."""

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

from common import progress
from images import model_input
from training import (
    checkpoints,
    evaluation,
    evaluation_report,
    metrics_log,
    strategies,
    trainer,
)
from training import recipe as recipes
from training.data import data_sources, file_changes, pipeline, split
from zoo import config
from zoo import model as zoo_model

_LOG = progress.logger(__name__)

WEIGHTS = "final.safetensors"
_LOOK_EVERY = 20  # steps between two looks at the losses
_INVENTORY = "data.npz"  # the files that it is trained on
_ROOTS = (config.ROOT, recipes.ROOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Args:
      arch: a name that tools/list prints.
      recipe: a name, or the path of a gin file; see `recipe.find`.
      data: see `sources.open_splits`.
      model_dir: folder of all that the training writes.
      strategy: see `strategies.make`.
      seed: of weights, order and augmentation.
      unreadable: share of the images that may be unreadable.
      checkpoint_steps: steps between two checkpoints; there is one at the end of each
        epoch, too.
      gin_bindings: further bindings of model or recipe.
      trust_gin_imports: let gin files import any module, which runs its code.
    """

    arch: str
    recipe: str
    data: str
    model_dir: pathlib.Path
    strategy: str = "auto"
    seed: int = 0
    unreadable: float = 0.01
    checkpoint_steps: int = 1000
    gin_bindings: Sequence[str] = ()
    trust_gin_imports: bool = False


class StoppedError(Exception):
    """A signal ended the training, after a checkpoint."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}: the same command goes on from there")
        self.number = number


def train(request: Request) -> pathlib.Path:
    """Trains, or goes on training, until the recipe's end.

    Returns:
      The path of the weights, which `tools/export --weights` takes.

    Raises:
      ValueError: something of the request is not usable; the message is one line.
      OSError: the folder can't be written, or TensorFlow could not go on.
      StoppedError: SIGINT or SIGTERM came.
      journal.DivergedError: the loss is no number.
    """
    path = recipes.find(request.recipe, request.arch)
    plan = recipes.load(
        request.arch,
        path,
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    strategy = strategies.make(request.strategy)
    halves = data_sources.open_splits(request.data, plan.recipe.records)
    with contextlib.ExitStack() as stack:
        if strategies.is_chief(strategy):
            stack.enter_context(_sole_use(request.model_dir))
        stack.enter_context(strategy.scope())
        model = zoo_model.build(
            request.arch,
            seed=request.seed,
            taxonomy=(
                data_sources.taxonomy_of(halves[split.TRAIN])
                if halves[split.TRAIN].classes
                else None
            ),
            gin_files=[str(path)],
            gin_bindings=request.gin_bindings,
            trust_gin_imports=request.trust_gin_imports,
            roots=_ROOTS,
        )
        if strategies.is_chief(strategy):
            for line in data_sources.describe(halves[split.TRAIN], model.taxonomy):
                _LOG.info(line)
            if split.TEST not in halves:
                _LOG.info("there are no images to test on: accuracy is not measured")
        try:
            return _Training(request, plan, model, strategy, halves).run()
        except tf.errors.OpError as error:  # a full disk or device, a lost worker
            message = error.message.partition("}} ")[2] or error.message
            raise OSError(f"TensorFlow: {message}") from error


@contextlib.contextmanager
def _sole_use(folder: pathlib.Path) -> Iterator[None]:
    """Makes the folder, and keeps other trainings out of it.

    Raises:
      ValueError: another one is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another training is at work in {folder}.") from None
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _signals(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Collects signals, so that work can be put in order first."""
    came: list[int] = []

    def take(number: int, _: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Training:
    def __init__(
        self,
        request: Request,
        plan: recipes.Bound,
        model: zoo_model.ImageModel,
        strategy: tf.distribute.Strategy,
        halves: dict[str, split.Split],
    ) -> None:
        self._request, self._recipe, self._model = request, plan.recipe, model
        self._strategy, self._halves = strategy, halves
        self._is_chief = strategies.is_chief(strategy)
        index, count = strategies.worker(strategy)
        parts = strategy.num_replicas_in_sync // count
        self._shard = pipeline.Shard(index=index, count=count, parts=parts)
        self._check_batch(halves[split.TRAIN].size)
        self._ledger, self._test_ledger = (
            pipeline.UnreadableImages(
                halves.get(name, halves[split.TRAIN]),
                num_classes=model.taxonomy.num_classes,
                limit=request.unreadable,
                announce=self._is_chief,
            )
            for name in (split.TRAIN, split.TEST)
        )
        self._steps_per_epoch = halves[split.TRAIN].size // plan.recipe.batch_size
        self._trainer = _trainer(model, plan.recipe, strategy, self._steps_per_epoch)
        self._folder = checkpoints.Folder(path=request.model_dir / "checkpoints")
        self._inventory = request.model_dir / _INVENTORY
        self._identity = {
            "arch": request.arch,
            "backend": keras.backend.backend(),
            "configuration": model.gin_config.splitlines(),
            "recipe": plan.text.splitlines(),
            "data": {key: half.fingerprint for key, half in halves.items()},
            "seed": request.seed,
        }
        asked = dataclasses.asdict(request) | {"model_dir": str(request.model_dir)}
        self._journal = metrics_log.MetricsLog(
            request.model_dir if self._is_chief else None,
            facts={
                "arguments": asked,
                **self._identity,
                "devices": strategy.num_replicas_in_sync,
                "examples": {key: half.size for key, half in halves.items()},
            },
            rate=self._trainer.rate,
            batch_size=plan.recipe.batch_size,
            steps_per_epoch=self._steps_per_epoch,
            epochs=plan.recipe.epochs,
        )

    def run(self) -> pathlib.Path:
        """Goes through what is left of the stages."""
        weights = self._request.model_dir / WEIGHTS
        self._resume()
        if self._trainer.steps == self._journal.total and weights.exists():
            _LOG.info(f"trained already: {weights}")
        with (
            _signals([signal.SIGINT, signal.SIGTERM]) as came,
            self._journal.writer.as_default(),
        ):
            for stage in self._recipe.stages():
                self._run_stage(stage, came)
        self._finish(weights)
        return weights

    def _check_batch(self, examples: int) -> None:
        batch = self._recipe.batch_size
        replicas = self._strategy.num_replicas_in_sync
        parts = replicas * self._recipe.accumulate
        if batch % parts:
            raise ValueError(
                f"{recipes.ROOT}.batch_size must be a multiple of {parts} ({replicas} "
                f"devices, {self._recipe.accumulate} parts each), not {batch}."
            )
        if examples < batch:
            raise ValueError(
                f"{recipes.ROOT}.batch_size is {batch}, and there are {examples} "
                "examples to train on."
            )

    def _resume(self) -> None:
        """Goes back to the last checkpoint, if there is one."""
        found = self._folder.last()
        if found is None:
            if self._is_chief:
                file_changes.save(self._inventory, self._halves)
            return
        before = found.record.get("identity", {})
        different = [k for k, now in self._identity.items() if before.get(k) != now]
        if different:
            changes = file_changes.explain(self._inventory, self._halves)
            detail = f" ({changes})" if "data" in different and changes else ""
            raise ValueError(
                f"{self._request.model_dir} holds a training that differs in "
                f"{', '.join(different)}{detail}: give another --model_dir."
            )
        self._trainer.restore(found.values)
        self._ledger.restore(found.record["unreadable"])
        self._test_ledger.restore(found.record["unreadable_in_test"])
        self._journal.resume(found.record, step=self._trainer.steps, path=found.path)

    def _run_stage(self, stage: recipes.Stage, came: list[int]) -> None:
        first = max(self._trainer.steps, stage.first * self._steps_per_epoch)
        last = stage.last * self._steps_per_epoch
        if first >= last:
            return
        if stage.dropout_rate is not None:
            self._trainer.set_dropout(stage.dropout_rate)
        stream = self._stream(split.TRAIN, self._ledger, stage.image_size)
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
        self._journal.start()
        for number, (images, labels) in enumerate(batches, start=first + 1):
            if number == first + 1:
                mine = self._strategy.experimental_local_results(images)
                self._journal.show(mine[0], first)
            waiting = self._journal.take(number, *step(images, labels))
            is_end = number % self._steps_per_epoch == 0
            is_due = number % self._request.checkpoint_steps == 0
            stop = self._stop(came, number)
            if is_end or is_due or stop or waiting == _LOOK_EVERY:
                self._journal.look()
                self._ledger.check()
            if is_end:
                self._journal.end_epoch(number, self._evaluate(number))
            if is_end or is_due or stop:
                self._save(number, is_best=is_end and self._journal.is_best())
                self._journal.start()
            if stop:
                raise StoppedError(stop, number)

    def _stop(self, came: list[int], step: int) -> int:
        """The signal to stop for after a step, or 0.

        Workers have to stop after the same one: from time to time they tell each other.
        """
        if self._shard.count == 1:
            return came[0] if came else 0
        if step % _LOOK_EVERY:
            return 0
        flags = self._strategy.run(lambda: tf.constant(float(bool(came))))
        if not self._strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None):
            return 0
        return came[0] if came else signal.SIGTERM

    def _evaluate(self, step: int) -> evaluation_report.Report | None:
        """Of the test split, if there is one."""
        if split.TEST not in self._halves:
            return None
        taxonomy = self._model.taxonomy
        stream = self._stream(split.TEST, self._test_ledger, None)
        batches = self._strategy.distribute_datasets_from_function(
            lambda _: stream.evaluation(shard=self._shard)
        )
        try:
            with self._trainer.averaged():
                found = evaluation.evaluate(
                    self._trainer.test_step(),
                    batches,
                    taxonomy.classes,
                    scores=taxonomy.scores,
                )
        except evaluation.NoNumbersError as error:
            raise self._journal.diverged(str(error), step) from error
        self._test_ledger.check()
        return found

    def _stream(
        self, half: str, ledger: pipeline.UnreadableImages, image_size: int | None
    ) -> pipeline.Stream:
        size = image_size or self._model.spec.image_size
        return pipeline.Stream(
            split=self._halves[half],
            num_classes=self._model.taxonomy.num_classes,
            preprocessing=model_input.Preprocessing(
                height=size, width=size, **dataclasses.asdict(self._model.preprocessing)
            ),
            batch_size=self._recipe.batch_size,
            ledger=ledger,
        )

    def _save(self, step: int, *, is_best: bool) -> None:
        values = self._trainer.values()  # of all workers: some are kept by each
        if not self._is_chief:
            return
        record = {
            "step": step,
            "identity": self._identity,
            "unreadable": self._ledger.numbers,
            "unreadable_in_test": self._test_ledger.numbers,
            **self._journal.record(),
        }
        path = self._folder.save(step, values, record, is_best=is_best)
        unreadable = [*self._ledger.unreadable, *self._test_ledger.unreadable]
        self._journal.saved(path, step=step, unreadable=unreadable)

    def _finish(self, weights: pathlib.Path) -> None:
        """Writes the weights and the pictures."""
        if not self._is_chief:
            return
        with self._trainer.averaged():
            self._model.save_weights(
                weights,
                source=(
                    f"trained with this project's recipe {self._request.recipe} on "
                    f"{self._halves[split.TRAIN].taxonomy or self._request.data}"
                ),
                metrics=self._journal.metrics(),
            )
        self._journal.draw(f"{self._request.arch}, {self._request.recipe}")


def _trainer(
    model: zoo_model.ImageModel,
    recipe: recipes.Recipe,
    strategy: tf.distribute.Strategy,
    steps_per_epoch: int,
) -> trainer.Trainer:
    """That of the backend which Keras has."""
    if keras.backend.backend() == "jax":
        from training import jax_backend

        return jax_backend.Trainer(model, recipe, steps_per_epoch=steps_per_epoch)
    from training import tensorflow_backend

    return tensorflow_backend.Trainer(
        model, recipe, strategy=strategy, steps_per_epoch=steps_per_epoch
    )
