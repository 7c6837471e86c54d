"""Logs training metrics to the console, TensorBoard and history.json."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
import typing
from collections.abc import Callable

import tensorflow as tf

from foundation import atomic, progress
from training import evaluation_report, plots, provenance

_LOG = progress.logger(__name__)

HISTORY = "history.json"
CURVES = "curves.png"
_SAMPLES = 16  # images shown in TensorBoard
# Measures that rank models; the first one that was measured is used.
_MAIN_MEASURES = tuple(
    f"test_{kind.main_measure}"
    for kind in (evaluation_report.SeveralLabels, evaluation_report.OneLabel)
)

JsonObject = dict[str, typing.Any]


class DivergedError(Exception):
    """The loss, or a logit, is infinite or NaN."""


@dataclasses.dataclass
class _EpochSums:
    """Sums over the steps of the current epoch; field names are checkpoint keys."""

    steps: int = 0
    loss: float = 0.0
    top1: float = 0.0
    seconds: float = 0.0


class MetricsLog:
    """Logs the metrics of a training run.

    Args:
      folder: output folder; None to write no files (workers other than the chief).
      facts: entries of `history.json` that do not change from epoch to epoch.
      rate: function from a step to its learning rate.
      batch_size: number of images in a step.
      steps_per_epoch: number of steps in an epoch.
      epochs: number of epochs of the run.
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
        self._steps_per_epoch, self._total_epochs = steps_per_epoch, epochs
        self._epochs: list[JsonObject] = []
        self._resumed: list[int] = []
        self._sums = _EpochSums()
        self._pending: list[tuple[int, typing.Any, typing.Any]] = []
        self._timer_start = time.monotonic()
        self._last_checkpoint = "none"
        self.writer = (
            tf.summary.create_file_writer(str(folder / "logs"))
            if folder
            else tf.summary.create_noop_writer()
        )

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        return self._steps_per_epoch * self._total_epochs

    def checkpoint_record(self) -> JsonObject:
        """Returns the state that a checkpoint stores, for `resume`."""
        return {
            "epochs": self._epochs,
            "epoch": dataclasses.asdict(self._sums),
            "resumed": self._resumed,
        }

    def resume(self, record: JsonObject, *, step: int, path: pathlib.Path) -> None:
        """Restores the state from the record of the checkpoint in `path`."""
        self._epochs = record["epochs"]
        self._sums = _EpochSums(**record["epoch"])
        self._resumed = [*record["resumed"]]
        self._last_checkpoint = str(path)
        if step < self.total_steps:
            self._resumed.append(step)
            _LOG.info(f"resuming at step {step} of {self.total_steps}")

    def log_images(self, images: tf.Tensor, step: int) -> None:
        """Writes the first augmented images of a batch [B, S, S, 3] to TensorBoard."""
        tf.summary.image("augmented", images[:_SAMPLES], step, max_outputs=_SAMPLES)

    def start_timer(self) -> None:
        """Starts to measure the time of the following steps."""
        self._timer_start = time.monotonic()

    def add_step(self, step: int, loss: typing.Any, top1: typing.Any) -> int:
        """Adds the results of a step, which may still be being computed.

        Returns:
          The number of steps whose losses have not been checked yet.
        """
        self._pending.append((step, loss, top1))
        return len(self._pending)

    def check_losses(self) -> None:
        """Waits for the added steps, checks their losses and logs their metrics.

        Raises:
          DivergedError: a loss is infinite or NaN.
        """
        for step, loss, top1 in self._pending:
            value = float(loss)
            if not math.isfinite(value):
                raise self.diverged_error(f"the loss is {value}", step)
            self._sums.loss += value
            self._sums.top1 += float(top1)
            self._sums.steps += 1
        seconds = time.monotonic() - self._timer_start
        self._sums.seconds += seconds
        speed = len(self._pending) * self._batch_size / seconds
        for name, metric in (
            ("loss", value),
            ("learning_rate", float(self._rate(step - 1))),
            ("images_per_second", speed),
        ):
            tf.summary.scalar(f"step/{name}", metric, step=step)
        summary = f"loss {value:.4f}, {speed:.0f} images/s"
        progress.step(_LOG, step, self.total_steps, summary)
        self._pending.clear()
        self.start_timer()

    def diverged_error(self, problem: str, step: int) -> DivergedError:
        """Returns the error for a run that diverged at a step."""
        return DivergedError(
            f"{problem} at step {step}, where the learning rate is "
            f"{float(self._rate(step - 1)):.4g}; last good checkpoint: "
            f"{self._last_checkpoint}"
        )

    def end_epoch(self, step: int, report: evaluation_report.Report | None) -> None:
        """Logs the metrics of the epoch that ended with a step."""
        sums, self._sums = self._sums, _EpochSums()
        number = step // self._steps_per_epoch
        metrics = {
            "epoch": number,
            "step": step,
            "loss": sums.loss / sums.steps,
            "top1": sums.top1 / sums.steps,
            "learning_rate": float(self._rate(step - 1)),
            "seconds": round(sums.seconds, 3),
            "images_per_second": round(sums.steps * self._batch_size / sums.seconds, 1),
        }
        if report:
            metrics |= {
                f"test_{name}": report.measures[name]
                for name in dict.fromkeys(["loss", "top1", report.main_measure])
            }
        self._epochs.append(metrics)
        for name, value in metrics.items():
            if name not in ("epoch", "step"):
                tf.summary.scalar(f"epoch/{name}", value, step=number)
        decimals = {
            "loss": 4,
            "top1": 4,
            **dict.fromkeys(_MAIN_MEASURES, 4),
            "images_per_second": 0,
        }
        parts = [f"{k} {metrics[k]:.{n}f}" for k, n in decimals.items() if k in metrics]
        _LOG.info(f"epoch {number}/{self._total_epochs}  {'  '.join(parts)}")

    def is_best(self) -> bool:
        """Returns whether the last epoch is the best so far.

        Without test images, the best epoch is the one with the lowest training loss.
        """
        tested = [name for name in _MAIN_MEASURES if name in self._epochs[-1]]
        measure, sign = (tested[0], 1) if tested else ("loss", -1)
        values = [sign * epoch[measure] for epoch in self._epochs]
        return values[-1] > max(values[:-1], default=-math.inf)

    def log_checkpoint(
        self, path: pathlib.Path, *, step: int, unreadable: list[str]
    ) -> None:
        """Records that a checkpoint was saved, and writes `history.json`."""
        self._last_checkpoint = str(path)
        record = {
            **self._facts,
            "steps": step,
            "steps_of_all": self.total_steps,
            "resumed": self._resumed,
            "unreadable": unreadable,
            "epochs": self._epochs,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        if self._folder:
            atomic.write_file(self._folder / HISTORY, text.encode())

    def metrics(self) -> JsonObject:
        """Returns the main measure and the loss of the last epoch's test, if any."""
        last = self._epochs[-1]
        main = [name for name in _MAIN_MEASURES if name in last][:1]
        return {key: last[key] for key in (*main, "test_loss") if key in last}

    def write_curves(self, title: str) -> None:
        """Plots the training curves and writes them to `curves.png`."""
        if self._folder:
            atomic.write_file(
                self._folder / CURVES, plots.curves(self._epochs, title=title)
            )
