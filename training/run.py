"""A training from its request to its weights; it goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import signal
import time
import typing
from collections.abc import Iterator, Sequence

import tensorflow as tf

from training import checkpoints, evaluation, history, plots, strategies
from training import recipe as recipes
from training import trainer as trainers
from training.data import pipeline, sources, split
from zoo import config
from zoo import model as zoo_model
from zoo import taxonomy as taxonomies
from zoo.weights import own

WEIGHTS = "final.safetensors"
HISTORY = "history.json"
CURVES = "curves.png"
_LOOK_EVERY = 20  # steps between two looks at the losses
_SAMPLES = 16  # images to show
_ROOTS = (config.ROOT, recipes.ROOT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Args:
      arch: a name that tools/list prints.
      recipe: a name, or the path of a gin file; see `recipe.find`.
      data: see `sources.open_split`.
      model_dir: folder of all that the training writes.
      strategy: see `strategies.make`.
      seed: of weights, order and augmentation.
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
    checkpoint_steps: int = 1000
    gin_bindings: Sequence[str] = ()
    trust_gin_imports: bool = False


class StoppedError(Exception):
    """A signal ended the training, after a checkpoint."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}: the same command goes on from there")
        self.number = number


class DivergedError(Exception):
    """The loss is no longer a number."""


class Watcher(typing.Protocol):
    """Whoever wants to see how it goes."""

    def say(self, line: str) -> None:
        """Takes a line."""

    def step(self, number: int, total: int, about: str) -> None:
        """Takes a finished step, the number of all, and what to show with it."""


def train(request: Request, watcher: Watcher) -> pathlib.Path:
    """Trains, or goes on training, until the recipe's end.

    Returns:
      The path of the weights, which `tools/export --weights` takes.

    Raises:
      ValueError: something of the request is not usable; the message is one line.
      OSError: the folder can't be written, or TensorFlow could not go on.
      StoppedError: SIGINT or SIGTERM came.
      DivergedError: the loss is no number.
    """
    path = recipes.find(request.recipe, request.arch)
    plan = recipes.load(
        request.arch,
        path,
        gin_bindings=request.gin_bindings,
        trust_gin_imports=request.trust_gin_imports,
    )
    strategy = strategies.make(request.strategy)
    halves = _open(request.data, plan.recipe)
    with contextlib.ExitStack() as stack:
        if strategies.is_chief(strategy):
            stack.enter_context(_sole_use(request.model_dir))
        stack.enter_context(strategy.scope())
        model = zoo_model.build(
            request.arch,
            seed=request.seed,
            gin_files=[str(path)],
            gin_bindings=[
                *_classes(halves[split.TRAIN]),
                *request.gin_bindings,
            ],
            trust_gin_imports=request.trust_gin_imports,
            roots=_ROOTS,
        )
        try:
            return _Training(request, plan, model, strategy, halves, watcher).run()
        except tf.errors.OpError as error:  # a full disk or device, a lost worker
            message = error.message.partition("}} ")[2] or error.message
            raise OSError(f"TensorFlow: {message}") from error


def _open(data: str, recipe: recipes.Recipe) -> dict[str, split.Split]:
    """The halves of a source; the test one may be missing."""
    halves = {split.TRAIN: sources.open_split(data, split.TRAIN, recipe.records)}
    with contextlib.suppress(split.NoSplitError):
        halves[split.TEST] = sources.open_split(data, split.TEST, recipe.records)
    return halves


def _classes(examples: split.Split) -> list[str]:
    """The bindings of a source's classes, where it says what they are.

    Folders that are named by the ids of a taxonomy of the zoo have its classes.
    """
    if not examples.classes:
        return []
    ids = [definition.id for definition in examples.classes]
    for name in taxonomies.names():
        if [c.id for c in taxonomies.load(name).classes] == ids:
            return [f"model.taxonomy_name = {name!r}"]
    return [
        f"model.taxonomy_name = {examples.taxonomy!r}",
        f"model.classes = {tuple(c.name for c in examples.classes)!r}",
    ]


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


@dataclasses.dataclass
class _Epoch:
    """The sums of an epoch so far."""

    steps: int = 0
    loss: float = 0.0
    top1: float = 0.0
    seconds: float = 0.0


class _Training:
    def __init__(
        self,
        request: Request,
        plan: recipes.Bound,
        model: zoo_model.ImageModel,
        strategy: tf.distribute.Strategy,
        halves: dict[str, split.Split],
        watcher: Watcher,
    ) -> None:
        self._request, self._recipe, self._model = request, plan.recipe, model
        self._strategy, self._halves, self._watcher = strategy, halves, watcher
        self._is_chief = strategies.is_chief(strategy)
        index, count = strategies.worker(strategy)
        parts = strategy.num_replicas_in_sync // count
        self._shard = pipeline.Shard(index=index, count=count, parts=parts)
        self._check_batch(halves[split.TRAIN].size)
        self._ledger = pipeline.Ledger(
            halves[split.TRAIN],
            num_classes=model.taxonomy.num_classes,
            limit=plan.recipe.unreadable_limit,
        )
        self._steps_per_epoch = halves[split.TRAIN].size // plan.recipe.batch_size
        self._total = self._steps_per_epoch * plan.recipe.epochs
        self._trainer = trainers.Trainer(
            model,
            plan.recipe,
            strategy=strategy,
            steps_per_epoch=self._steps_per_epoch,
        )
        self._folder = checkpoints.Folder(path=request.model_dir / "checkpoints")
        self._identity = {
            "arch": request.arch,
            "configuration": model.gin_config.splitlines(),
            "recipe": plan.text.splitlines(),
            "data": {key: half.fingerprint for key, half in halves.items()},
            "seed": request.seed,
        }
        self._provenance = history.provenance()
        self._epochs: list[dict[str, typing.Any]] = []
        self._resumed: list[int] = []
        self._epoch = _Epoch()
        self._pending: list[tuple[int, tf.Tensor, tf.Tensor]] = []
        self._last_saved = "none"

    def run(self) -> pathlib.Path:
        """Goes through what is left of the stages."""
        weights = self._request.model_dir / WEIGHTS
        self._resume()
        if self._trainer.steps == self._total and weights.exists():
            self._watcher.say(f"trained already: {weights}")
            return weights
        with _signals([signal.SIGINT, signal.SIGTERM]) as came:
            writer = self._writer()
            with writer.as_default():
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
            return
        before = found.record.get("identity", {})
        different = [k for k, now in self._identity.items() if before.get(k) != now]
        if different:
            raise ValueError(
                f"{self._request.model_dir} holds a training that differs in "
                f"{', '.join(different)}: give another --model_dir."
            )
        self._trainer.restore(found.values)
        self._epochs = found.record["epochs"]
        self._epoch = _Epoch(**found.record["epoch"])
        step = self._trainer.steps
        self._last_saved = str(found.path)
        self._resumed = [*found.record["resumed"]]
        if step < self._total:
            self._resumed.append(step)
            self._watcher.say(f"goes on at step {step} of {self._total}")

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
        begun = time.monotonic()
        for number, (images, labels) in enumerate(batches, start=first + 1):
            if number == first + 1:
                self._show(images)
            self._pending.append((number, *step(images, labels)))
            is_end = number % self._steps_per_epoch == 0
            is_due = number % self._request.checkpoint_steps == 0
            if is_end or is_due or came or len(self._pending) == _LOOK_EVERY:
                self._look(begun)
                begun = time.monotonic()
            if is_end:
                self._end_epoch(number // self._steps_per_epoch)
                begun = time.monotonic()
            if is_end or is_due or came:
                self._save(number, is_best=is_end and self._is_best())
            if came:
                raise StoppedError(came[0], number)

    def _look(self, begun: float) -> None:
        """Takes the losses of the last steps from the device."""
        rate = float(self._trainer.rate(self._pending[-1][0] - 1))
        for number, loss, top1 in self._pending:
            value = float(loss)
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss is {value} at step {number}, where the learning rate is "
                    f"{float(self._trainer.rate(number - 1)):.4g}; the last good "
                    f"checkpoint: {self._last_saved}"
                )
            self._epoch.loss += value
            self._epoch.top1 += float(top1)
            self._epoch.steps += 1
        seconds = time.monotonic() - begun
        self._epoch.seconds += seconds
        self._ledger.check()
        images = len(self._pending) * self._recipe.batch_size / seconds
        for name, figure in (
            ("loss", value),
            ("learning_rate", rate),
            ("images_per_second", images),
        ):
            tf.summary.scalar(f"step/{name}", figure, step=number)
        about = f"loss {value:.4f}, {images:.0f} images/s"
        self._watcher.step(number, self._total, about)
        self._pending.clear()

    def _end_epoch(self, number: int) -> None:
        """Evaluates, and writes down what the epoch came to."""
        sums, self._epoch = self._epoch, _Epoch()
        found = {
            "epoch": number,
            "step": self._trainer.steps,
            "loss": sums.loss / sums.steps,
            "top1": sums.top1 / sums.steps,
            "learning_rate": float(self._trainer.rate(self._trainer.steps - 1)),
            "seconds": round(sums.seconds, 3),
            "images_per_second": round(
                sums.steps * self._recipe.batch_size / sums.seconds, 1
            ),
        }
        if split.TEST in self._halves:
            report = self._evaluate()
            found["test_loss"], found["test_top1"] = report.loss, report.top1
        self._epochs.append(found)
        for name, value in found.items():
            if name not in ("epoch", "step"):
                tf.summary.scalar(f"epoch/{name}", value, step=number)
        told = {"loss": 4, "top1": 4, "test_top1": 4, "images_per_second": 0}
        figures = [f"{k} {found[k]:.{n}f}" for k, n in told.items() if k in found]
        self._watcher.say(f"epoch {number}/{self._recipe.epochs}  {'  '.join(figures)}")

    def _evaluate(self) -> evaluation.Report:
        half = self._halves[split.TEST]
        classes = self._model.taxonomy.classes
        ledger = pipeline.Ledger(
            half, num_classes=len(classes), limit=self._recipe.unreadable_limit
        )
        stream = self._stream(split.TEST, ledger, None)
        batches = self._strategy.distribute_datasets_from_function(
            lambda _: stream.evaluation(shard=self._shard)
        )
        with self._trainer.averaged():
            found = evaluation.evaluate(self._trainer.test_step(), batches, classes)
        ledger.check()
        return found

    def _stream(
        self, half: str, ledger: pipeline.Ledger, image_size: int | None
    ) -> pipeline.Stream:
        return pipeline.Stream(
            split=self._halves[half],
            num_classes=self._model.taxonomy.num_classes,
            image_size=image_size or self._model.spec.image_size,
            preprocessing=self._model.preprocessing,
            batch_size=self._recipe.batch_size,
            ledger=ledger,
        )

    def _is_best(self) -> bool:
        """Whether the last epoch is the best so far."""
        measure, sign = ("test_top1", 1) if split.TEST in self._halves else ("loss", -1)
        values = [sign * epoch[measure] for epoch in self._epochs]
        return values[-1] > max(values[:-1], default=-math.inf)

    def _save(self, step: int, *, is_best: bool) -> None:
        values = self._trainer.values()  # of all workers: some are kept by each
        if not self._is_chief:
            return
        record = {
            "step": step,
            "identity": self._identity,
            "epochs": self._epochs,
            "epoch": dataclasses.asdict(self._epoch),
            "resumed": self._resumed,
        }
        path = self._folder.save(step, values, record, is_best=is_best)
        self._last_saved = str(path)
        self._write_history()

    def _write_history(self) -> None:
        asked = dataclasses.asdict(self._request)
        record = {
            "arguments": {**asked, "model_dir": str(self._request.model_dir)},
            **self._identity,
            **self._provenance,
            "devices": self._strategy.num_replicas_in_sync,
            "examples": {key: half.size for key, half in self._halves.items()},
            "steps": self._trainer.steps,
            "steps_of_all": self._total,
            "resumed": self._resumed,
            "unreadable": self._ledger.unreadable,
            "epochs": self._epochs,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        own.replace(self._request.model_dir / HISTORY, text.encode())

    def _finish(self, weights: pathlib.Path) -> None:
        """Writes the weights and the pictures."""
        if not self._is_chief:
            return
        with self._trainer.averaged():
            last = self._epochs[-1]
            metrics = {k: last[k] for k in ("test_top1", "test_loss") if k in last}
            self._model.save_weights(
                weights,
                source=(
                    f"trained with this project's recipe {self._request.recipe} on "
                    f"{self._halves[split.TRAIN].taxonomy or self._request.data}"
                ),
                metrics=metrics,
            )
        title = f"{self._request.arch}, {self._request.recipe}"
        own.replace(
            self._request.model_dir / CURVES, plots.curves(self._epochs, title=title)
        )

    def _writer(self) -> tf.summary.SummaryWriter:
        if not self._is_chief:
            return tf.summary.create_noop_writer()
        return tf.summary.create_file_writer(str(self._request.model_dir / "logs"))

    def _show(self, images: typing.Any) -> None:
        """Shows the first images of a stage as the model sees them."""
        first = self._strategy.experimental_local_results(images)[0]
        step = self._trainer.steps
        tf.summary.image("augmented", first[:_SAMPLES], step, max_outputs=_SAMPLES)
