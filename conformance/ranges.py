"""Searches for the sizes and batches that a model really works with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from conformance import model_under_test, numeric, report, verdict

_BATCHES = (1, 2, 3, 7, 32, 64)
_STEPS = (1, 2, 4, 8, 16, 32, 64)
_LARGEST = 2048  # pixels; nothing larger is tried

_Fit = Callable[[int], tuple[int, int]]


def search(
    model: model_under_test.ModelUnderTest, *, seconds: float
) -> Iterator[report.Measured]:
    """Tries batches, then heights, widths and squares; yields what it knows so far.

    A size works if one image of uniform noise gives one row of finite numbers. What
    works is taken to go on working between a size that does and a larger one that does,
    in the steps that were found.

    Args:
      model: that can be called with images.
      seconds: after which nothing new is begun.
    """
    deadline = time.monotonic() + seconds
    height, width = model.size
    batches = [n for n in _BATCHES if not _failure(model, n, (height, width))]
    found: dict[str, report.Sides] = {}

    def known() -> report.Measured:
        return report.Measured(
            base=(height, width), sides=dict(found), batch_sizes=batches
        )

    yield known()
    fixed_height, fixed_width = model.static_size
    axes: dict[str, tuple[int, _Fit]] = {}
    if not fixed_height:
        axes["height"] = height, lambda side: (side, width)
    if not fixed_width:
        axes["width"] = width, lambda side: (height, side)
    if not fixed_height and not fixed_width and height == width:
        axes["square"] = height, lambda side: (side, side)
    for number, (name, (base, fit)) in enumerate(axes.items()):
        left = (deadline - time.monotonic()) / (len(axes) - number)
        for sides in _sides(model, base, fit, seconds=left):
            found[name] = sides
            yield known()


def _sides(
    model: model_under_test.ModelUnderTest, base: int, fit: _Fit, *, seconds: float
) -> Iterator[report.Sides]:
    """One side's range, from `base`, which works."""
    deadline = time.monotonic() + seconds

    def failure(side: int) -> str:
        return _failure(model, 1, fit(side))

    step = next((step for step in _STEPS if not failure(base + step)), 0)
    if not step:
        why = f"{base + 1} px: {failure(base + 1)}"
        yield report.Sides(smallest=base, largest=base, step=1, stopped=why)
        return
    below = _most((base - 1) // step, lambda n: base - step * n, failure)
    known = report.Sides(
        smallest=base - step * below,
        largest=base + step,
        step=step,
        stopped="not tried",
    )
    spent = 0.0
    while True:
        yield known
        wanted = base + (2 * known.largest - base) // step * step
        if wanted > _LARGEST or time.monotonic() + 6 * spent > deadline:
            return
        start = time.monotonic()
        trouble = failure(wanted)
        spent = time.monotonic() - start
        if trouble:
            break
        known = dataclasses.replace(known, largest=wanted)
    low = known.largest
    more = _most((wanted - low) // step, lambda n: low + step * n, failure)
    yield dataclasses.replace(
        known, largest=low + step * more, stopped=f"{wanted} px: {trouble}"
    )


def _most(limit: int, side: Callable[[int], int], failure: Callable[[int], str]) -> int:
    """The largest n up to `limit` whose side works, if all smaller ones do; 0 does."""
    if limit > 0 and not failure(side(limit)):
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if failure(side(middle)):
            high = middle
        else:
            low = middle
    return low


def _failure(
    model: model_under_test.ModelUnderTest, batch: int, size: tuple[int, int]
) -> str:
    """What goes wrong with such images; nothing if all is well."""
    try:
        output = model.infer(model.images(batch, size=size))
        rows = {value.shape[:1] for value in numeric.leaves(output)}
        if rows != {(batch,)}:
            return "another number of rows"
        return "" if numeric.is_finite(output) else "infinite values or NaN"
    except Exception as error:
        return verdict.one_line(error)
