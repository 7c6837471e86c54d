"""Draws the ratios of a benchmark, and what a classifier says of photographs."""

import importlib.util
import io
import math
import pathlib
import textwrap

import _cli

from common import files

_HIGHER_IS_BETTER = "images/s"
_LONGEST = 60  # characters of a name
_INK, _BETTER, _WORSE = "#1f2933", "#2f6f9f", "#b0413e"


def require(path: pathlib.Path) -> None:
    """Refuses what can't be drawn before anything is measured.

    Raises:
      ValueError: the name does not end in .png or .svg.
      ImportError: matplotlib is missing.
    """
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"--plot must end in .png or .svg, not {path.name!r}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: run tools/setup plot")


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """A panel for each arch, a bar for each measure: to the right is better for us."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    archs = list(dict.fromkeys(row["arch"] for row in rows))
    tallest = max(sum(row["arch"] == arch for row in rows) for arch in archs)
    figure, panels = pyplot.subplots(
        1,
        len(archs),
        figsize=(1.6 + 3.4 * len(archs), 1.2 + 0.32 * tallest),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, arch in zip(panels[0], archs, strict=True):
        own = [row for row in rows if row["arch"] == arch]
        names = [row["measure"] for row in own]
        gains = [
            row["ratio"] if row["unit"] == _HIGHER_IS_BETTER else 1 / row["ratio"]
            for row in own
        ]
        colours = [_BETTER if gain >= 1 else _WORSE for gain in gains]
        bars = panel.barh(names, [math.log2(gain) for gain in gains], color=colours)
        labels = [f"{gain:.2f}×" for gain in gains]
        panel.bar_label(bars, labels, padding=3, color=_INK, fontsize=8)
        panel.axvline(0, color=_INK, linewidth=0.8)
        panel.invert_yaxis()
        panel.margins(x=0.25)
        panel.set_title(arch, loc="left", color=_INK, fontsize=10, fontweight="bold")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(left=False, labelsize=8)
        panel.xaxis.set_major_locator(ticker.MultipleLocator(1))
        panel.xaxis.set_major_formatter(lambda value, _: f"{2**value:g}×")
    figure.supxlabel("times better than theirs", color=_INK, fontsize=9)
    _save(figure, path)


def draw_predictions(shown: list, path: pathlib.Path, *, title: str) -> None:
    """A row for each photograph: what the model saw of it, and a bar for each class.

    Args:
      shown: for each, its name, its pixels [H, W, 3] in [0, 1], its predictions.
      path: to write.
      title: above all.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        len(shown),
        2,
        figsize=(9, 0.6 + 2.2 * len(shown)),
        width_ratios=(1, 2),
        squeeze=False,
        layout="constrained",
    )
    for (left, right), (image, pixels, predictions) in zip(panels, shown, strict=True):
        left.imshow(pixels)
        left.set_axis_off()
        right.set_title(
            _plain(pathlib.Path(image).name), loc="left", color=_INK, fontsize=9
        )
        places = range(len(predictions))
        bars = right.barh(places, [p.probability for p in predictions], color=_BETTER)
        labels = [f"{p.probability:.1%}" for p in predictions]
        right.bar_label(bars, labels, padding=3, color=_INK, fontsize=8)
        right.set_yticks(places, [_plain(p.name) for p in predictions], fontsize=8)
        right.invert_yaxis()
        right.set_xlim(0, 1.12)
        right.set_xticks([])
        right.tick_params(left=False)
        right.spines[:].set_visible(False)
    figure.suptitle(_plain(title), color=_INK, fontsize=10, fontweight="bold")
    _save(figure, path)


def _plain(text: str) -> str:
    """A line without matplotlib's mathematics, cut where it would be too long."""
    line = textwrap.shorten(_cli.printable(text), _LONGEST, placeholder="…")
    return line.replace("$", r"\$")


def _save(figure, path: pathlib.Path) -> None:
    from matplotlib import pyplot

    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=150)
    pyplot.close(figure)
    files.write(path, picture.getvalue())
