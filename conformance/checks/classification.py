"""Group C: the output and the class index of an image classifier.

Source: https://www.tensorflow.org/hub/common_saved_model_apis/images
"""

from __future__ import annotations

import contextlib
import pathlib
import re

import numpy as np

from conformance import model_under_test, output_checks, verdict
from reuse import graphs

_CLASS_INDEX = "class_index.tsv"
_CLASS_INDEX_COLUMNS = ["index", "id", "name"]
_HEADER_WORD = re.compile(
    r"(class|label|synset|display|category)?[ _]?(index|idx|ids?|names?|class(es)?"
    r"|labels?|synset|wnid|description|text|category|categories)"
)
# Logits in fewer columns may look like scores by chance: a few logits may all lie in
# [0, 1], and n random values are in descending order with a probability of 1 / n!. More
# test images do not help, since a model's outputs for them are similar.
_MIN_COLUMNS = 8
_FLOAT16_SUM_TOLERANCE = 2e-3  # float16 probabilities sum to 1 within this tolerance


def c01_gives_one_matrix(model: model_under_test.ModelUnderTest) -> str:
    """Checks the output for two images and the output shapes of all traces."""
    columns = output_checks.check_matrix(model, dimension="num_classes")
    output_checks.check_static_columns(model, dimension="num_classes")
    return f"float32 [batch, {columns}]"


def c02_gives_logits(model: model_under_test.ModelUnderTest) -> str:
    """Checks the final op of the graph, then the output values for several images.

    A final softmax or sigmoid op fails the clause for any number of classes. Scores
    from other ops are recognised by their values: softmax values are not negative and
    each row sums to 1, or to 100 for percentages; sigmoid values are all in [0, 1];
    top-k values decrease from column to column. The check for sigmoid or top-k values
    needs at least `_MIN_COLUMNS` columns, since logits may look the same by chance.
    Small outputs of a final ReLU, as SqueezeNet has it, are not taken for sigmoids'.
    """
    fix = "Return the output of the last dense layer, without softmax, sigmoid or "
    fix += "sorting; document whether its scores are for softmax or for sigmoid."
    last_op = ""
    with contextlib.suppress(LookupError, ValueError):  # final_op can't read all graphs
        last_op = graphs.final_op(model.traced(training=False))
    if last_op in (graphs.SOFTMAX, graphs.SIGMOID):
        raise verdict.Violation(
            expected="logits",
            observed=f"the output of a final {last_op} op: probabilities",
            fix=fix,
        )
    batches = [model.images(2, fill=fill) for fill in (0.0, 0.5, 1.0)]
    batches += [model.images(2, seed=seed) for seed in range(3)]
    rows = np.concatenate([model.infer(images) for images in batches])
    if not np.isfinite(rows).all():
        raise verdict.NotApplicable("the outputs are not finite, see I04")
    for total in (1, 100):
        deviation = np.abs(rows.sum(axis=1) / total - 1).max()
        sums_to_total = rows.shape[1] > 1 and deviation <= _FLOAT16_SUM_TOLERANCE
        if rows.min() >= 0 and sums_to_total:
            raise verdict.Violation(
                expected="logits",
                observed=f"values that sum to {total} in each row: probabilities",
                fix=fix,
            )
    is_wide = rows.shape[1] >= _MIN_COLUMNS
    # If all values are 0, they are logits of a head whose weights are 0.
    is_in_range = rows.min() >= 0 and rows.max() <= 1 and rows.any()
    if is_wide and is_in_range and last_op != graphs.RELU:
        raise verdict.Violation(
            expected="logits",
            observed=f"{rows.size} values all between 0 and 1: probabilities",
            fix=fix,
        )
    if is_wide and (np.diff(rows, axis=1) < 0).all():
        raise verdict.Violation(
            expected="one logit for each class, in the order of the classes",
            observed=f"{rows.shape[1]} decreasing values in each of {len(rows)} rows: "
            "top-k scores",
            fix=fix,
        )
    return f"values from {rows.min():.3g} to {rows.max():.3g}"


def c03_carries_class_index(model: model_under_test.ModelUnderTest) -> str:
    """Checks that a text asset of the SavedModel has one line per class.

    If a file has one line more than there are classes, its first line is a header if
    all fields are words such as `index` or `label`, or if it is the only line that does
    not begin with an integer.
    """
    columns = output_checks.check_matrix(model, dimension="num_classes")
    descriptions = []
    for path in model.assets:
        lines = _text_lines(path)
        if lines is None:
            descriptions.append(
                f"{path.name}, which is not a text file with one line per class"
            )
            continue
        # A class may have a name such as "text", so the first line is not taken as a
        # header if the file has one line per class. class_index.tsv needs a header.
        count = len(lines)
        if count != columns or path.name == _CLASS_INDEX:
            count -= _has_header(lines)
        if count == columns:
            _check_names(path.name, lines)
            if path.name == _CLASS_INDEX:
                _check_class_index(lines)
            return f"{path.name}: {count} classes"
        descriptions.append(f"{path.name} with {count} classes")
    raise verdict.Violation(
        expected=f"a text asset with one line for each of {columns} classes",
        observed=", ".join(descriptions) or "no assets",
        fix="Write one line for each class, and attach the file to the root as a "
        "tf.saved_model.Asset: copies of the model lose a file that is not an asset.",
    )


def _check_names(name: str, lines: list[str]) -> None:
    """Checks that no line is empty and that at least half of the lines are distinct.

    A few classes may share a name: some do in ImageNet.
    """
    empty = sum(not line.strip() for line in lines)
    distinct = len(set(lines))
    if empty or 2 * distinct < len(lines):
        repetition = f"{distinct} distinct among {len(lines)} lines"
        raise verdict.Violation(
            expected=f"the name of a class on each line of {name}",
            observed=f"{empty} empty lines" if empty else repetition,
            fix="Write the name of one class on each line.",
        )


def _text_lines(path: pathlib.Path) -> list[str] | None:
    """Returns the lines of a file; None for JSON and for files that are not UTF-8."""
    if path.suffix == ".json":
        return None
    try:
        text = path.read_text("utf-8").rstrip("\n")
    except UnicodeDecodeError:
        return None
    return text.split("\n") if text else []


def _has_header(lines: list[str]) -> bool:
    fields = [_fields(line) for line in lines]
    if not fields:
        return False
    if all(_HEADER_WORD.fullmatch(field.lower()) for field in fields[0]):
        return True
    numbered = [row[0].isdigit() for row in fields]
    return len(lines) > 1 and not numbered[0] and all(numbered[1:])


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.replace("\t", ",").split(",")]


def _check_class_index(lines: list[str]) -> None:
    header, *rows = (line.split("\t") for line in lines)
    indices = [row[0] for row in rows]
    background = [row for row in rows if row[-1].lower() == "background"]
    if header != _CLASS_INDEX_COLUMNS:
        observed = f"the header {', '.join(header)}"
    elif any(len(row) != len(_CLASS_INDEX_COLUMNS) for row in rows):
        observed = "lines that do not have 3 fields"
    elif indices != [str(index) for index in range(len(rows))]:
        observed = "an index that does not count from 0"
    elif any(row[1].lower() != "background" for row in background):
        observed = f"a background class with the id {background[0][1]}"
    else:
        return
    raise verdict.Violation(
        expected=f"{_CLASS_INDEX} with tab-separated columns index, id and name, an "
        "index that counts from 0, and the id background for any background class",
        observed=observed,
        fix="Write the file in this format, or rename it.",
    )
