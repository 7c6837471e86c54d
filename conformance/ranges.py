"""Searches by trial for the image sizes and batch sizes that a model works with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from conformance import model_under_test, numeric, report, verdict

_BATCHES = (1, 2, 3, 7, 32, 64)
_STEPS = (1, 2, 4, 8, 16, 32, 64)
_LARGEST = 2048  # pixels; larger sizes are not tried
# Twice the side is up to 4 times the pixels. The margin is for the other trials.
_TIME_OF_NEXT_TRIAL = 6  # as a multiple of the time of the last trial

_SizeOf = Callable[[int], tuple[int, int]]  # the (height, width) for a side


def search(
    model: model_under_test.ModelUnderTest, *, seconds: float
) -> Iterator[report.MeasuredSizes]:
    """Tries batch sizes, heights, widths and square sizes; yields interim results.

    A size works if one image of uniform noise gives one row of finite numbers. If two
    sizes work, the sizes between them in the measured steps are assumed to work too.

    Args:
      model: a model that can be called with images.
      seconds: time for the search. It limits only how far each range is extended to
        larger sizes: the other trials always run, so the search can take longer.
    """
    deadline = time.monotonic() + seconds
    height, width = model.size
    batches = [n for n in _BATCHES if not _failure(model, n, (height, width))]
    sides_by_axis: dict[str, report.SizeRange] = {}

    def measured() -> report.MeasuredSizes:
        return report.MeasuredSizes(
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
) -> Iterator[report.SizeRange]:
    """Yields the range of sides that work along one axis, each time that it grows.

    Finds the smallest step between working sides, then the smallest side by bisection.
    Then doubles the largest side until a trial fails, `_LARGEST` is exceeded or the
    time is over. After a failure, finds the largest side by bisection.

    Args:
      model: the model.
      base: a side that works, in pixels.
      size_of: returns the (height, width) of a trial for a side.
      seconds: time after which the largest side is not doubled again.
    """
    deadline = time.monotonic() + seconds

    def failure(side: int) -> str:
        return _failure(model, 1, size_of(side))

    step = next((step for step in _STEPS if not failure(base + step)), 0)
    if not step:
        reason = f"{base + 1} px: {failure(base + 1)}"
        yield report.SizeRange(smallest=base, largest=base, step=1, stopped=reason)
        return
    below = _count_steps((base - 1) // step, lambda n: base - step * n, failure)
    sides = report.SizeRange(
        smallest=base - step * below,
        largest=base + step,
        step=step,
        stopped="not tried",
    )
    trial_seconds = 0.0
    while True:
        yield sides
        # Twice the largest side, rounded down to a whole number of steps from `base`.
        next_side = base + (2 * sides.largest - base) // step * step
        expected_end = time.monotonic() + _TIME_OF_NEXT_TRIAL * trial_seconds
        if next_side > _LARGEST or expected_end > deadline:
            return
        start = time.monotonic()
        problem = failure(next_side)
        trial_seconds = time.monotonic() - start
        if problem:
            break
        sides = dataclasses.replace(sides, largest=next_side)
    low = sides.largest
    more = _count_steps((next_side - low) // step, lambda n: low + step * n, failure)
    yield dataclasses.replace(
        sides, largest=low + step * more, stopped=f"{next_side} px: {problem}"
    )


def _count_steps(
    limit: int, side: Callable[[int], int], failure: Callable[[int], str]
) -> int:
    """Returns the largest number of steps with a side that works, by bisection.

    Assumes that no steps work, and any number of steps below one that works.

    Args:
      limit: the largest number of steps.
      side: returns the side after a number of steps, in pixels.
      failure: returns why a side does not work, or an empty string.
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
