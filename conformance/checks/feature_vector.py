"""Group F: the output of an image feature-vector model.

Source: https://www.tensorflow.org/hub/common_saved_model_apis/images
"""

from __future__ import annotations

from conformance import (
    clauses,
    graphs,
    model_under_test,
    numeric,
    output_checks,
    verdict,
)


def f01_gives_one_matrix(model: model_under_test.ModelUnderTest) -> str:
    """Checks the output for two images."""
    columns = output_checks.check_matrix(model, dimension="num_features")
    return f"float32 [batch, {columns}]"


def f02_num_features_is_static(model: model_under_test.ModelUnderTest) -> str:
    """Checks the output shapes of all traces."""
    columns = output_checks.check_static_columns(model, dimension="num_features")
    return f"num_features is {columns} in {len(model.all_traces)} traces"


def f03_has_no_dropout(model: model_under_test.ModelUnderTest) -> str:
    """Checks that no random mask on the output changes it between calls.

    Dropout and drop path inside the model are allowed: a convolution, a matrix product,
    the pooling or the sum of a residual connection separates their random ops from the
    output. A random mask on the
    output with rate 0 is allowed too, since it does not change the output.
    """
    modes = (False, True) if model.has_training_trace else (False,)
    for training in modes:
        call = model.traced(training=training)
        random_ops = graphs.random_ops_on_output(call)
        if not random_ops:
            continue
        images = model.images(2)
        with model.variables_kept():
            difference = numeric.relative_difference(call(images), call(images))
        if difference > clauses.TOLERANCE:
            raise verdict.Violation(
                expected=f"no dropout on the output with training={training}",
                observed=f"a relative difference of {difference:.1e} between calls "
                f"and {', '.join(sorted(random_ops))} on the output",
                fix="Move dropout to the head: users of features add their own.",
            )
    return f"no dropout with training={' and '.join(map(str, modes))}"
