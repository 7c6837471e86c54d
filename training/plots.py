"""Plots of training curves, confusion matrices and predictions."""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from foundation import pictures
from training import evaluation_report

_PANELS = {
    "cross-entropy": ("loss", "test_loss", "held_out_loss"),
    "top-1 accuracy": ("top1", "test_top1", "held_out_top1"),
    "mean average precision": (
        "test_mean_average_precision",
        "held_out_mean_average_precision",
    ),
    "learning rate": ("learning_rate",),
}
_MAX_NAMES = 40  # class names that fit into a plot
_DPI = 120
_BAR = "#2f6f9f"


def curves(epochs: Sequence[dict[str, typing.Any]], *, title: str) -> bytes:
    """Plots loss, accuracy and learning rate by epoch, if recorded, as a PNG image."""
    pyplot = pictures.pyplot()
    recorded = {name for epoch in epochs for name in epoch}
    panels = {
        label: [name for name in names if name in recorded]
        for label, names in _PANELS.items()
        if recorded & set(names)
    }
    figure, axes = pyplot.subplots(
        1,
        len(panels) or 1,
        figsize=(1 + 4 * len(panels), 4),
        layout="constrained",
        squeeze=False,
    )
    numbers = [epoch["epoch"] for epoch in epochs]
    for axis, (label, names) in zip(axes[0], panels.items(), strict=False):
        for name in names:
            values = [epoch.get(name, np.nan) for epoch in epochs]
            axis.plot(numbers, values, marker=".", label=name.replace("_", " "))
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    return pictures.encode(figure, dpi=_DPI)


def mistakes(
    report: evaluation_report.Report, *, title: str, suffix: str = ".png"
) -> bytes:
    """Plots which classes a classifier confuses, and returns the encoded image.

    Single-label: the confusion matrix for up to 40 classes, else bars of the 40 most
    frequent confusions. Multi-label: bars of the average precision of each class, or
    of the 40 worst classes if there are more.
    """
    return pictures.encode(_mistakes(report, title), suffix, dpi=_DPI)


def _mistakes(report: evaluation_report.Report, title: str) -> typing.Any:
    names = [pictures.label(definition.name) for definition in report.classes]
    if isinstance(report, evaluation_report.SeveralLabels):
        worst = [i for i in np.argsort(report.average_precisions) if report.counts[i]]
        bars = [
            _Bar(names[i], report.average_precisions[i], f"{report.counts[i]} images")
            for i in worst[:_MAX_NAMES]
        ]
        if len(worst) > len(bars):
            title = f"{title}: the {len(bars)} worst of {len(worst)} classes"
        return _bars(bars, title=title, label="average precision")
    assert isinstance(report, evaluation_report.OneLabel)
    if len(names) <= _MAX_NAMES:
        return _confusion(report.confusion, names, title=title)
    bars = [
        _Bar(
            f"{names[truth]} → {names[predicted]}",
            count / report.counts[truth],
            f"{count} of {report.counts[truth]}",
        )
        for truth, predicted, count in report.most_confused(_MAX_NAMES)
    ]
    pairs = len(report.confusions)
    if pairs > len(bars):
        title = f"{title}: the {len(bars)} most frequent of {pairs} confusions"
    label = "share of the images of the first class that are classified as the second"
    return _bars(bars, title=title, label=label)


def _confusion(counts: np.ndarray, names: Sequence[str], *, title: str) -> typing.Any:
    """Plots a confusion matrix; each row is a true class and is scaled to sum to 1."""
    pyplot = pictures.pyplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 4 + 0.35 * len(names)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the class")
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    for i, j in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[i, j] > 0.5 else "black"
        text = f"{shares[i, j]:.2f}".removeprefix("0")
        axis.text(j, i, text, ha="center", va="center", color=color, fontsize=7)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title(pictures.label(title))
    return figure


class _Bar(typing.NamedTuple):
    """A bar: its name, its length in [0, 1], and the text next to it."""

    name: str
    length: float
    text: str


def _bars(bars: Sequence[_Bar], *, title: str, label: str) -> typing.Any:
    """Plots horizontal bars, the first at the top."""
    pyplot = pictures.pyplot()
    height = 1.5 + 0.25 * len(bars)
    figure, axis = pyplot.subplots(figsize=(10, height), layout="constrained")
    positions = range(len(bars))
    artists = axis.barh(positions, [bar.length for bar in bars], color="tab:blue")
    axis.bar_label(artists, [bar.text for bar in bars], padding=3, fontsize=8)
    axis.set_yticks(positions, [bar.name for bar in bars], fontsize=8)
    axis.set_xlim(0, 1.15)  # leaves space for the text next to the bars
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.set_title(pictures.label(title))
    if not bars:
        axis.text(0.5, 0, "none", ha="center")
    return figure


def predictions(
    shown: Sequence[tuple[str, np.ndarray, Sequence[typing.Any]]],
    *,
    title: str,
    suffix: str,
) -> bytes:
    """Plots the model's input and the predicted probabilities of each photograph.

    Args:
      shown: for each photograph its path, its pixels [H, W, 3] in [0, 1], and its
        predictions (`reuse.predict.Prediction`).
      title: title of the plot.
      suffix: `.png` or `.svg`.

    Returns:
      The encoded image.
    """
    pyplot = pictures.pyplot()
    figure, panels = pyplot.subplots(
        len(shown),
        2,
        figsize=(9, 0.6 + 2.2 * len(shown)),
        width_ratios=(1, 2),
        squeeze=False,
        layout="constrained",
    )
    for (left, right), (image, pixels, classes) in zip(panels, shown, strict=True):
        left.imshow(pixels)
        left.set_axis_off()
        right.set_title(
            pictures.label(pathlib.Path(image).name),
            loc="left",
            color=pictures.INK,
            fontsize=9,
        )
        positions = range(len(classes))
        bars = right.barh(positions, [p.probability for p in classes], color=_BAR)
        labels = [f"{p.probability:.1%}" for p in classes]
        right.bar_label(bars, labels, padding=3, color=pictures.INK, fontsize=8)
        right.set_yticks(
            positions, [pictures.label(p.name) for p in classes], fontsize=8
        )
        right.invert_yaxis()
        right.set_xlim(0, 1.12)
        right.set_xticks([])
        right.tick_params(left=False)
        right.spines[:].set_visible(False)
    figure.suptitle(
        pictures.label(title), color=pictures.INK, fontsize=10, fontweight="bold"
    )
    return pictures.encode(figure, suffix)
