"""Pictures of a training, as PNG files."""

from __future__ import annotations

import io
import typing
import warnings
from collections.abc import Sequence

import numpy as np

from training import evaluation_report

_PANELS = {
    "cross-entropy": ("loss", "test_loss", "held_out_loss"),
    "share that is right": ("top1", "test_top1", "held_out_top1"),
    "mean average precision": (
        "test_mean_average_precision",
        "held_out_mean_average_precision",
    ),
    "learning rate": ("learning_rate",),
}
_MOST_NAMES = 40  # classes that have room for their names
_LONGEST_NAME = 60  # characters


def curves(epochs: Sequence[dict[str, typing.Any]], *, title: str) -> bytes:
    """Loss, accuracy and learning rate by epoch, as far as they are known."""
    pyplot = _pyplot()
    known = {name for epoch in epochs for name in epoch}
    panels = {
        label: [name for name in names if name in known]
        for label, names in _PANELS.items()
        if known & set(names)
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
    return _png(figure)


def mistakes(report: evaluation_report.Report, *, title: str) -> bytes:
    """What a classifier takes for what, as far as there is room for it.

    Of up to 40 classes every pair of them; of more, the pairs that are most often
    confused. Where images have any number of classes, the average precision of each
    class; of many, of the worst.
    """
    names = [_shown(definition.name) for definition in report.classes]
    if isinstance(report, evaluation_report.SeveralLabels):
        worst = [i for i in np.argsort(report.average_precisions) if report.counts[i]]
        bars = [
            _Bar(names[i], report.average_precisions[i], f"{report.counts[i]} images")
            for i in worst[:_MOST_NAMES]
        ]
        if len(worst) > len(bars):
            title = f"{title}: the {len(bars)} worst of {len(worst)} classes"
        return _bars(bars, title=title, label="average precision")
    assert isinstance(report, evaluation_report.OneLabel)
    if len(names) <= _MOST_NAMES:
        return _confusion(report.confusion, names, title=title)
    bars = [
        _Bar(
            f"{names[truth]} → {names[said]}",
            count / report.counts[truth],
            f"{count} of {report.counts[truth]}",
        )
        for truth, said, count in report.most_confused(_MOST_NAMES)
    ]
    pairs = len(report.confused)
    if pairs > len(bars):
        title = f"{title}: the {len(bars)} most frequent of {pairs} confusions"
    label = "share of the class's images that are taken for the other"
    return _bars(bars, title=title, label=label)


def _confusion(counts: np.ndarray, names: Sequence[str], *, title: str) -> bytes:
    """Which class was taken for which: rows are the truth, and sum up to 1."""
    pyplot = _pyplot()
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
    axis.set_xlabel("what the model says")
    axis.set_ylabel("what it is")
    axis.set_title(_shown(title))
    return _png(figure)


class _Bar(typing.NamedTuple):
    """A bar with its name, length in [0, 1], and what is written beside it."""

    name: str
    length: float
    about: str


def _bars(bars: Sequence[_Bar], *, title: str, label: str) -> bytes:
    """Bars below each other, the first on top."""
    pyplot = _pyplot()
    height = 1.5 + 0.25 * len(bars)
    figure, axis = pyplot.subplots(figsize=(10, height), layout="constrained")
    places = range(len(bars))
    drawn = axis.barh(places, [bar.length for bar in bars], color="tab:blue")
    axis.bar_label(drawn, [bar.about for bar in bars], padding=3, fontsize=8)
    axis.set_yticks(places, [bar.name for bar in bars], fontsize=8)
    axis.set_xlim(0, 1.15)  # with room for what is written beside
    axis.set_xticks(np.linspace(0, 1, 6))
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.set_title(_shown(title))
    if not bars:
        axis.text(0.5, 0, "there are none", ha="center")
    return _png(figure)


def _shown(name: str) -> str:
    """A name as it is drawn: in one line, of some length, and no mathematics."""
    name = " ".join(name.split())
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return name.replace("$", r"\$")


def _pyplot() -> typing.Any:
    try:
        import matplotlib
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup train") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def _png(figure: typing.Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font lacks a name's letters
        figure.savefig(stream, format="png", dpi=120)
    _pyplot().close(figure)
    return stream.getvalue()
