"""Searches by trial for the image sizes and batch sizes that a model works with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from conformance import model_under_test, numeric, report, verdict

_BATCHES = (1, 2, 3, 7, 32, 64)
_STEPS = (1, 2, 4, 8, 16, 32, 64)
_LARGEST = 2048  # pixels; larger sizes are not tried

_SizeOf = Callable[[int], tuple[int, int]]  # the (height, width) for a side


def search(
    model: model_under_test.ModelUnderTest, *, seconds: float
) -> Iterator[report.Measured]:
    """Tries batch sizes, heights, widths and square sizes; yields interim results.

    A size works if one image of uniform noise gives one row of finite numbers. If two
    sizes work, the sizes between them in the measured steps are assumed to work too.

    Args:
      model: a model that can be called with images.
      seconds: time after which no new trial starts.
    """
    deadline = time.monotonic() + seconds
    height, width = model.size
    batches = [n for n in _BATCHES if not _failure(model, n, (height, width))]
    sides_by_axis: dict[str, report.Sides] = {}

    def measured() -> report.Measured:
        return report.Measured(
            base=(height, width), sides=dict(sides_by_axis), batch_sizes=batches
        )

    yield measured()
    fixed_height, fixed_width = model.static_size
    axes: dict[str, tuple[int, _SizeOf]] = {}
    if not fixed_height:
        axes["height"] = height, lambda side: (side, width)
    if not fixed_width:
        axes["width"] = width, lambda side: (height, side)
    if not fixed_height and not fixed_width and height == width:
        axes["square"] = height, lambda side: (side, side)
    for number, (name, (base, size_of)) in enumerate(axes.items()):
        share = (deadline - time.monotonic()) / (len(axes) - number)
        for sides in _search_axis(model, base, size_of, seconds=share):
            sides_by_axis[name] = sides
            yield measured()


def _search_axis(
    model: model_under_test.ModelUnderTest,
    base: int,
    size_of: _SizeOf,
    *,
    seconds: float,
) -> Iterator[report.Sides]:
    """Yields the range of sides that work, starting at `base`, as it grows."""
    deadline = time.monotonic() + seconds

    def failure(side: int) -> str:
        return _failure(model, 1, size_of(side))

    step = next((step for step in _STEPS if not failure(base + step)), 0)
    if not step:
        reason = f"{base + 1} px: {failure(base + 1)}"
        yield report.Sides(smallest=base, largest=base, step=1, stopped=reason)
        return
    below = _largest_working((base - 1) // step, lambda n: base - step * n, failure)
    sides = report.Sides(
        smallest=base - step * below,
        largest=base + step,
        step=step,
        stopped="not tried",
    )
    trial_seconds = 0.0
    while True:
        yield sides
        next_side = base + (2 * sides.largest - base) // step * step
        if next_side > _LARGEST or time.monotonic() + 6 * trial_seconds > deadline:
            return
        start = time.monotonic()
        problem = failure(next_side)
        trial_seconds = time.monotonic() - start
        if problem:
            break
        sides = dataclasses.replace(sides, largest=next_side)
    low = sides.largest
    more = _largest_working(
        (next_side - low) // step, lambda n: low + step * n, failure
    )
    yield dataclasses.replace(
        sides, largest=low + step * more, stopped=f"{next_side} px: {problem}"
    )


def _largest_working(
    limit: int, side: Callable[[int], int], failure: Callable[[int], str]
) -> int:
    """Returns the largest n up to `limit` for which `side(n)` works, by bisection.

    `side(0)` is assumed to work, and so is every n below one that works.
    """
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
    """Calls the model with images; returns the problem, or an empty string."""
    try:
        output = model.infer(model.images(batch, size=size))
        rows = {value.shape[:1] for value in numeric.leaves(output)}
        if rows != {(batch,)}:
            return "the output has the wrong number of rows"
        return "" if numeric.is_finite(output) else "infinite values or NaN"
    except Exception as error:
        return verdict.one_line(error)
