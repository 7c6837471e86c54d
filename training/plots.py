"""Pictures of a training, as PNG files."""

from __future__ import annotations

import io
import typing
import warnings
from collections.abc import Sequence

import numpy as np

_PANELS = {
    "cross-entropy": ("loss", "test_loss", "held_out_loss"),
    "share that is right": ("top1", "test_top1", "held_out_top1"),
    "learning rate": ("learning_rate",),
}
_MOST_NAMES = 40  # classes that have room for their names


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


def confusion(counts: np.ndarray, names: Sequence[str], *, title: str) -> bytes:
    """Which class was taken for which: rows are the truth, and sum up to 1."""
    pyplot = _pyplot()
    names = [name.replace("$", r"\$") for name in names]  # no mathematics
    title = title.replace("$", r"\$")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    has_room = len(names) <= _MOST_NAMES
    side = 4 + 0.35 * len(names) if has_room else 10
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the class")
    if has_room:
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        for i, j in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[i, j] > 0.5 else "black"
            text = f"{shares[i, j]:.2f}".removeprefix("0")
            axis.text(j, i, text, ha="center", va="center", color=color, fontsize=7)
    axis.set_xlabel("what the model says")
    axis.set_ylabel("what it is")
    axis.set_title(title)
    return _png(figure)


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
