"""Group I: what goes in.

Source: https://www.tensorflow.org/hub/common_saved_model_apis/images
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from conformance import model_under_test, numeric, verdict

_BATCHES = (1, 2, 3, 7)
_LARGE_BATCH = 32
_OTHER_DTYPES = (tf.bfloat16, tf.float16, tf.float64, tf.uint8, tf.float32)
_OTHER_CHANNELS = (1, 4, 3)


def i01_takes_rgb_floats(model: model_under_test.ModelUnderTest) -> str:
    """Looks for a float32 [batch, height, width, 3] input in the traces.

    There must be one for every combination of the other arguments.

    A trace for another input beside it is the business of I05. That the channels are
    red, green and blue in this order no trace can tell.
    """
    rest: dict[str, list[tf.TensorSpec]] = {}
    for trace in model.general_traces:
        others = dict(trace.arguments)
        spec = others.pop(model.input_name)
        rest.setdefault(repr(others), []).append(spec)
    for arguments, specs in rest.items():
        if not any(map(model_under_test.is_image_spec, specs)):
            seen = ", ".join(f"{spec.dtype.name} {spec.shape}" for spec in specs)
            raise verdict.Violation(
                expected=f"{model.input_name}: float32 [batch, height, width, 3]",
                observed=f"{seen}, with {arguments}",
                mend="Trace with tf.TensorSpec([None, height, width, 3], tf.float32), "
                "and leave what the layers want instead to the model itself.",
            )
    return f"float32 {model.input_spec.shape}"


def i02_takes_any_batch(model: model_under_test.ModelUnderTest) -> str:
    """Calls with several batch sizes, then with none.

    Batch 0 runs in this very process: a crash there ends the run, and is seen as such.
    """
    batches = (*_BATCHES, _LARGE_BATCH) if model.full else _BATCHES
    for batch in batches:
        _check_batch(model, batch)
    try:
        output = model.infer(model.images(0))
    except Exception as error:
        return f"batches {batches}; batch 0 raises {type(error).__name__}"
    _check_rows(output, 0)
    return f"batches {batches}; batch 0 gives an empty output"


def _check_batch(model: model_under_test.ModelUnderTest, batch: int) -> None:
    mend = "Take the batch size from tf.shape(images)[0], wherever it is needed."
    with verdict.expecting(f"a batch of {batch} to work", mend=mend):
        output = model.infer(model.images(batch))
    _check_rows(output, batch)


def _check_rows(output: object, batch: int) -> None:
    for value in numeric.leaves(output):
        if value.shape[:1] != (batch,):
            raise verdict.Violation(
                expected=f"{batch} rows for a batch of {batch}",
                observed=f"an output of shape {list(value.shape)}",
                mend="Keep the batch dimension first, and apart from all others.",
            )


def i03_takes_any_size(model: model_under_test.ModelUnderTest) -> str:
    """Calls with one image of each size that is to be tried.

    These are: one that is wider than high; the low ends, then the high ends of the
    ranges of heights and widths; and where all is tried, also one that is higher than
    wide, odd sides, the middle of the ranges, and a low end with a high one. A range
    is the documented one, or else a small one.
    """
    if all(model.static_size) and not any(model.documented.values()):
        height, width = model.static_size
        raise verdict.NotApplicable(f"the input is fixed at {height}x{width} pixels")
    sizes = _sizes(model)
    for height, width in sizes:
        with verdict.expecting(
            f"an image of {height}x{width} pixels to work",
            mend="Take height and width from tf.shape(images), pool over the whole "
            "map, and document the range that works.",
        ):
            output = model.infer(model.images(1, size=(height, width)))
        _check_rows(output, 1)
    return "sizes " + ", ".join(f"{height}x{width}" for height, width in sizes)


def _sizes(model: model_under_test.ModelUnderTest) -> list[tuple[int, int]]:
    """Pairs of height and width, each once."""
    height, width = model.size
    low_height, high_height = _range(model, axis=0)
    low_width, high_width = _range(model, axis=1)
    wider, higher = min(width * 3 // 2, high_width), min(height * 3 // 2, high_height)
    sizes = [(height, wider), (low_height, low_width), (high_height, high_width)]
    if model.full:
        sizes += [
            (higher, width),
            (min(height + 1, high_height), min(width + 3, high_width)),
            ((low_height + high_height) // 2, (low_width + high_width) // 2),
            (low_height, high_width),
            (high_height, low_width),
        ]
    return list(dict.fromkeys(sizes))


def _range(model: model_under_test.ModelUnderTest, *, axis: int) -> tuple[int, int]:
    """The documented ends; of an end without documentation, one that is near."""
    name = ("height_range", "width_range")[axis]
    low, high = model.documented.get(name) or (None, None)
    near = model.size[axis]
    far = near if model.static_size[axis] else near * 3 // 2
    return low or near, high or max(far, low or near)


def i04_normalises_for_itself(model: model_under_test.ModelUnderTest) -> str:
    """Looks for infinities and NaN in the outputs for values from 0 to 1.

    Where all is tried, in training mode too. Whether the values are scaled as the
    weights expect only a reference prediction can tell.
    """
    calls = {"training=False": model.infer}
    if model.full and model.takes_training_true:
        calls["training=True"] = model.train
    fills = {"zeros": 0.0, "ones": 1.0, "uniform noise": None}
    with model.variables_kept():
        for (mode, call), (what, fill) in itertools.product(
            calls.items(), fills.items()
        ):
            if not numeric.is_finite(call(model.images(2, fill=fill))):
                raise verdict.Violation(
                    expected=f"finite outputs for {what} with {mode}",
                    observed="infinite values or NaN",
                    mend="Look for NaN in the weights, normalise by constants, and "
                    "add an epsilon to what is divided by.",
                )
    return f"finite for {', '.join(fills)} with {', '.join(calls)}"


def i05_rejects_other_inputs(model: model_under_test.ModelUnderTest) -> str:
    """Calls with inputs that differ from the declared one in one respect each."""
    inputs = _other_inputs(model)
    accepted = []
    with model.variables_kept():
        for what, images in inputs.items():
            try:
                model.call_eagerly(images, training=False)
            except Exception:
                continue
            accepted.append(what)
    if accepted:
        raise verdict.Violation(
            expected="a Python exception for every input but the declared one",
            observed=f"it takes {', '.join(accepted)}",
            mend="Trace __call__ for float32 [None, height, width, 3] only; callers "
            "cast and convert.",
        )
    return f"raises for {', '.join(inputs)}"


def _other_inputs(model: model_under_test.ModelUnderTest) -> dict[str, tf.Tensor]:
    images = model.images(1)
    channels, dtype = images.shape[-1], images.dtype
    inputs = {"rank 3": images[0], "rank 5": images[tf.newaxis]}
    for other in _OTHER_CHANNELS:
        if other != channels:
            wider = tf.repeat(images[..., :1], other, axis=-1)
            inputs[f"{other} channels"] = wider
    for other in _OTHER_DTYPES:
        if other != dtype:
            inputs[other.name] = tf.cast(images, other)
    return inputs
