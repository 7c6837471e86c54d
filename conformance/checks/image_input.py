"""Group I: the image input.

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
    """Checks that the traces take a float32 [batch, height, width, 3] input.

    Every combination of the other arguments needs such a trace. Traces for other inputs
    are subject to I05. Traces can't show whether the channel order is red, green, blue.
    """
    specs_by_arguments: dict[str, list[tf.TensorSpec]] = {}
    for trace in model.general_traces:
        other_arguments = dict(trace.arguments)
        spec = other_arguments.pop(model.input_name)
        specs_by_arguments.setdefault(repr(other_arguments), []).append(spec)
    for arguments, specs in specs_by_arguments.items():
        if not any(map(model_under_test.is_image_spec, specs)):
            seen = ", ".join(f"{spec.dtype.name} {spec.shape}" for spec in specs)
            raise verdict.Violation(
                expected=f"{model.input_name}: float32 [batch, height, width, 3]",
                observed=f"{seen}, with {arguments}",
                fix="Trace with tf.TensorSpec([None, height, width, 3], tf.float32), "
                "and convert to the layers' format inside the model.",
            )
    return f"float32 {model.input_spec.shape}"


def i02_takes_any_batch(model: model_under_test.ModelUnderTest) -> str:
    """Checks several batch sizes, then batch 0.

    Batch 0 runs in this process: a crash ends the process, and the suite reports it.
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
    fix = "Read the batch size from tf.shape(images)[0]."
    with verdict.expecting(f"a batch of {batch} to work", fix=fix):
        output = model.infer(model.images(batch))
    _check_rows(output, batch)


def _check_rows(output: object, batch: int) -> None:
    for value in numeric.leaves(output):
        if value.shape[:1] != (batch,):
            raise verdict.Violation(
                expected=f"{batch} rows for a batch of {batch}",
                observed=f"an output of shape {list(value.shape)}",
                fix="Keep the batch as the first dimension, apart from all others.",
            )


def i03_takes_any_size(model: model_under_test.ModelUnderTest) -> str:
    """Checks that one image of each size in `_sizes` gives one row of output."""
    if all(model.static_size) and not any(model.documented.values()):
        height, width = model.static_size
        raise verdict.NotApplicable(f"the input is fixed at {height}x{width} pixels")
    sizes = _sizes(model)
    for height, width in sizes:
        with verdict.expecting(
            f"an image of {height}x{width} pixels to work",
            fix="Read height and width from tf.shape(images), pool over the whole "
            "feature map, and document the range that works.",
        ):
            output = model.infer(model.images(1, size=(height, width)))
        _check_rows(output, 1)
    return "sizes " + ", ".join(f"{height}x{width}" for height, width in sizes)


def _sizes(model: model_under_test.ModelUnderTest) -> list[tuple[int, int]]:
    """Returns the sizes to test as unique pairs (height, width) in pixels.

    They are a landscape size, the low ends of the two ranges, and the high ends. With
    `model.full` they also include a portrait size, odd sides, the middle of both
    ranges, and each low end with the other range's high end.
    """
    height, width = model.size
    low_height, high_height = _range(model, axis=0)
    low_width, high_width = _range(model, axis=1)
    wider, taller = min(width * 3 // 2, high_width), min(height * 3 // 2, high_height)
    sizes = [(height, wider), (low_height, low_width), (high_height, high_width)]
    if model.full:
        sizes += [
            (taller, width),
            (min(height + 1, high_height), min(width + 3, high_width)),
            ((low_height + high_height) // 2, (low_width + high_width) // 2),
            (low_height, high_width),
            (high_height, low_width),
        ]
    return list(dict.fromkeys(sizes))


def _range(model: model_under_test.ModelUnderTest, *, axis: int) -> tuple[int, int]:
    """Returns the documented range of an axis.

    An undocumented low end is `model.size`. An undocumented high end is 1.5 times that,
    or equal to it where the input's shape fixes the size.
    """
    name = ("height_range", "width_range")[axis]
    low, high = model.documented.get(name) or (None, None)
    base = model.size[axis]
    larger = base if model.static_size[axis] else base * 3 // 2
    return low or base, high or max(larger, low or base)


def i04_outputs_are_finite(model: model_under_test.ModelUnderTest) -> str:
    """Checks that the outputs for values in [0, 1] are finite.

    With `model.full` the check includes training mode. It can't show whether the model
    scales the values as its weights expect: that takes a reference prediction.
    """
    calls = {"training=False": model.infer}
    if model.full and model.has_training_trace:
        calls["training=True"] = model.train
    fills = {"zeros": 0.0, "ones": 1.0, "uniform noise": None}
    with model.variables_kept():
        for (mode, call), (content, fill) in itertools.product(
            calls.items(), fills.items()
        ):
            if not numeric.is_finite(call(model.images(2, fill=fill))):
                raise verdict.Violation(
                    expected=f"finite outputs for {content} with {mode}",
                    observed="infinite values or NaN",
                    fix="Look for NaN in the weights, normalise by constants, and "
                    "add an epsilon to divisors.",
                )
    return f"finite for {', '.join(fills)} with {', '.join(calls)}"


def i05_rejects_other_inputs(model: model_under_test.ModelUnderTest) -> str:
    """Checks that inputs of other ranks, channels and dtypes raise an exception."""
    inputs = _other_inputs(model)
    accepted = []
    with model.variables_kept():
        for description, images in inputs.items():
            try:
                model.call_eagerly(images, training=False)
            except Exception:
                continue
            accepted.append(description)
    if accepted:
        raise verdict.Violation(
            expected="a Python exception for every input except the declared one",
            observed=f"it takes {', '.join(accepted)}",
            fix="Trace __call__ for float32 [None, height, width, 3] only; callers "
            "cast and convert their images.",
        )
    return f"raises for {', '.join(inputs)}"


def _other_inputs(model: model_under_test.ModelUnderTest) -> dict[str, tf.Tensor]:
    images = model.images(1)
    channels, dtype = images.shape[-1], images.dtype
    inputs = {"rank 3": images[0], "rank 5": images[tf.newaxis]}
    for other_channels in _OTHER_CHANNELS:
        if other_channels != channels:
            inputs[f"{other_channels} channels"] = tf.repeat(
                images[..., :1], other_channels, axis=-1
            )
    for other_dtype in _OTHER_DTYPES:
        if other_dtype != dtype:
            inputs[other_dtype.name] = tf.cast(images, other_dtype)
    return inputs
