"""How a training goes: figures of its steps and epochs, and who is told of them."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
import typing
from collections.abc import Callable

import tensorflow as tf

from common import atomic, progress
from training import evaluation_report, plots, provenance

_LOG = progress.logger(__name__)

HISTORY = "history.json"
CURVES = "curves.png"
_SAMPLES = 16  # images to show
# What says how good a model is, the first that there is.
_MAIN = tuple(
    f"test_{kind.main}"
    for kind in (evaluation_report.SeveralLabels, evaluation_report.OneLabel)
)

JsonObject = dict[str, typing.Any]


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclasses.dataclass
class _Sums:
    """Of the epoch so far."""

    steps: int = 0
    loss: float = 0.0
    top1: float = 0.0
    seconds: float = 0.0


class MetricsLog:
    """Logs the metrics of a training to the console, TensorBoard and `history.json`.

    Args:
      folder: to write into; None is nowhere, for a worker that is not the chief.
      facts: of `history.json`: what does not change from epoch to epoch.
      rate: the learning rate by step.
      batch_size: images in a step.
      steps_per_epoch: steps in an epoch.
      epochs: of all.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        *,
        facts: JsonObject,
        rate: Callable[[int], typing.Any],
        batch_size: int,
        steps_per_epoch: int,
        epochs: int,
    ) -> None:
        self._folder = folder
        self._facts = facts | provenance.provenance()
        self._rate, self._batch_size = rate, batch_size
        self._steps_per_epoch, self._number_of_epochs = steps_per_epoch, epochs
        self._epochs: list[JsonObject] = []
        self._resumed: list[int] = []
        self._sums = _Sums()
        self._pending: list[tuple[int, typing.Any, typing.Any]] = []
        self._since = time.monotonic()
        self._saved = "none"
        self.writer = (
            tf.summary.create_file_writer(str(folder / "logs"))
            if folder
            else tf.summary.create_noop_writer()
        )

    @property
    def total(self) -> int:
        """How many steps there are."""
        return self._steps_per_epoch * self._number_of_epochs

    def record(self) -> JsonObject:
        """What a checkpoint keeps of it."""
        return {
            "epochs": self._epochs,
            "epoch": dataclasses.asdict(self._sums),
            "resumed": self._resumed,
        }

    def resume(self, record: JsonObject, *, step: int, path: pathlib.Path) -> None:
        """Goes on from a checkpoint's record."""
        self._epochs = record["epochs"]
        self._sums = _Sums(**record["epoch"])
        self._resumed = [*record["resumed"]]
        self._saved = str(path)
        if step < self.total:
            self._resumed.append(step)
            _LOG.info(f"goes on at step {step} of {self.total}")

    def show(self, images: tf.Tensor, step: int) -> None:
        """Shows the first of some images [B, S, S, 3], as the model sees them."""
        tf.summary.image("augmented", images[:_SAMPLES], step, max_outputs=_SAMPLES)

    def start(self) -> None:
        """Begins to count the seconds of the steps that come."""
        self._since = time.monotonic()

    def take(self, step: int, loss: typing.Any, top1: typing.Any) -> int:
        """Takes what a step computes, which may be still at it.

        Returns:
          How many steps have not been looked at.
        """
        self._pending.append((step, loss, top1))
        return len(self._pending)

    def look(self) -> None:
        """Waits for the steps that were taken, and looks at their losses.

        Raises:
          DivergedError: one is no number.
        """
        for step, loss, top1 in self._pending:
            value = float(loss)
            if not math.isfinite(value):
                raise self.diverged(f"the loss is {value}", step)
            self._sums.loss += value
            self._sums.top1 += float(top1)
            self._sums.steps += 1
        seconds = time.monotonic() - self._since
        self._sums.seconds += seconds
        speed = len(self._pending) * self._batch_size / seconds
        for name, figure in (
            ("loss", value),
            ("learning_rate", float(self._rate(step - 1))),
            ("images_per_second", speed),
        ):
            tf.summary.scalar(f"step/{name}", figure, step=step)
        about = f"loss {value:.4f}, {speed:.0f} images/s"
        progress.step(_LOG, step, self.total, about)
        self._pending.clear()
        self.start()

    def diverged(self, what: str, step: int) -> DivergedError:
        """The error of a step after which there are no numbers any more."""
        return DivergedError(
            f"{what} at step {step}, where the learning rate is "
            f"{float(self._rate(step - 1)):.4g}; the last good checkpoint: "
            f"{self._saved}"
        )

    def end_epoch(self, step: int, report: evaluation_report.Report | None) -> None:
        """Takes down what the epoch that ended with a step came to."""
        sums, self._sums = self._sums, _Sums()
        number = step // self._steps_per_epoch
        found = {
            "epoch": number,
            "step": step,
            "loss": sums.loss / sums.steps,
            "top1": sums.top1 / sums.steps,
            "learning_rate": float(self._rate(step - 1)),
            "seconds": round(sums.seconds, 3),
            "images_per_second": round(sums.steps * self._batch_size / sums.seconds, 1),
        }
        if report:
            found |= {
                f"test_{name}": report.measures[name]
                for name in dict.fromkeys(["loss", "top1", report.main])
            }
        self._epochs.append(found)
        for name, value in found.items():
            if name not in ("epoch", "step"):
                tf.summary.scalar(f"epoch/{name}", value, step=number)
        told = {"loss": 4, "top1": 4, **dict.fromkeys(_MAIN, 4), "images_per_second": 0}
        figures = [f"{k} {found[k]:.{n}f}" for k, n in told.items() if k in found]
        _LOG.info(f"epoch {number}/{self._number_of_epochs}  {'  '.join(figures)}")

    def is_best(self) -> bool:
        """Whether the last epoch is the best so far."""
        tested = [name for name in _MAIN if name in self._epochs[-1]]
        measure, sign = (tested[0], 1) if tested else ("loss", -1)
        values = [sign * epoch[measure] for epoch in self._epochs]
        return values[-1] > max(values[:-1], default=-math.inf)

    def saved(self, path: pathlib.Path, *, step: int, unreadable: list[str]) -> None:
        """Takes down that there is a checkpoint, and writes `history.json`."""
        self._saved = str(path)
        record = {
            **self._facts,
            "steps": step,
            "steps_of_all": self.total,
            "resumed": self._resumed,
            "unreadable": unreadable,
            "epochs": self._epochs,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        if self._folder:
            atomic.write_file(self._folder / HISTORY, text.encode())

    def metrics(self) -> JsonObject:
        """What was measured on the test split in the end."""
        last = self._epochs[-1]
        main = [name for name in _MAIN if name in last][:1]
        return {key: last[key] for key in (*main, "test_loss") if key in last}

    def draw(self, title: str) -> None:
        """Writes the curves."""
        if self._folder:
            atomic.write_file(
                self._folder / CURVES, plots.curves(self._epochs, title=title)
            )
