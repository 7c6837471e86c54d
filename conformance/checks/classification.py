"""Group C: what comes out of an image classifier.

Source: https://www.tensorflow.org/hub/common_saved_model_apis/images
"""

from __future__ import annotations

import contextlib
import pathlib
import re

import numpy as np

from conformance import model_under_test, output_checks, verdict
from reuse import graphs

_OUR_FILE = "class_index.tsv"
_OUR_HEADER = ["index", "id", "name"]
_HEADER_WORD = re.compile(
    r"(class|label|synset|display|category)?[ _]?(index|idx|ids?|names?|class(es)?"
    r"|labels?|synset|wnid|description|text|category|categories)"
)
# So many columns that a classifier sorts them all the same way by chance only once in
# 8! models; its rows are too much alike to count.
_ENOUGH = 8
_HALF_PRECISION = 2e-3  # that probabilities in float16 sum to 1 by


def c01_gives_one_matrix(model: model_under_test.ModelUnderTest) -> str:
    """Looks at the output for two images, and reads the shapes of the traces."""
    columns = output_checks.check_matrix(model, columns="num_classes")
    output_checks.check_static_columns(model, columns="num_classes")
    return f"float32 [batch, {columns}]"


def c02_gives_logits(model: model_under_test.ModelUnderTest) -> str:
    """Looks at the op that gives the outputs, and at outputs for several images.

    A softmax or a sigmoid at the end gives none, for any number of classes. Where
    probabilities are computed otherwise, values tell: those of a softmax are not
    negative and sum to 1, or to 100, in each row. Those of a sigmoid are all from 0 to
    1. Top-k values fall from column to column. The latter two are judged only where
    there are enough columns for that to be no chance.
    """
    mend = "Give back what the last dense layer gives, without softmax, sigmoid or "
    mend += "sorting; tell in the documentation which of them it is meant for."
    last = ""
    with contextlib.suppress(LookupError, ValueError):  # a graph may hold anything
        last = graphs.final_op(model.traced(training=False))
    if last in (graphs.SOFTMAX, graphs.SIGMOID):
        raise verdict.Violation(
            expected="logits",
            observed=f"what a final op {last} gives: probabilities",
            mend=mend,
        )
    batches = [model.images(2, fill=fill) for fill in (0.0, 0.5, 1.0)]
    batches += [model.images(2, seed=seed) for seed in range(3)]
    rows = np.concatenate([model.infer(images) for images in batches])
    if not np.isfinite(rows).all():
        raise verdict.NotApplicable("the outputs are not finite, see I04")
    for total in (1, 100):
        sums = np.abs(rows.sum(axis=1) / total - 1).max()
        if rows.min() >= 0 and rows.shape[1] > 1 and sums <= _HALF_PRECISION:
            raise verdict.Violation(
                expected="logits",
                observed=f"values that sum to {total} in each row: probabilities",
                mend=mend,
            )
    if rows.min() >= 0 and rows.max() <= 1 and rows.shape[1] >= _ENOUGH and rows.any():
        raise verdict.Violation(
            expected="logits",
            observed=f"{rows.size} values all between 0 and 1: probabilities",
            mend=mend,
        )
    if rows.shape[1] >= _ENOUGH and (np.diff(rows, axis=1) < 0).all():
        raise verdict.Violation(
            expected="one logit for each class, in the order of the classes",
            observed=f"{rows.shape[1]} falling values in each of {len(rows)} rows: "
            "top-k",
            mend=mend,
        )
    return f"values from {rows.min():.3g} to {rows.max():.3g}"


def c03_carries_class_index(model: model_under_test.ModelUnderTest) -> str:
    """Reads the text assets that the SavedModel names.

    A first line more than there are classes is a header if all its fields are words
    such as `index` or `label`, or if it is the only line that does not begin with an
    integer.
    """
    columns = output_checks.check_matrix(model, columns="num_classes")
    found = []
    for path in model.assets:
        lines = _text_lines(path)
        if lines is None:
            found.append(f"{path.name}, which is no list of lines")
            continue
        # A class may be called "text": there is a header only where there is room.
        count = len(lines)
        if count != columns or path.name == _OUR_FILE:
            count -= _has_header(lines)
        if count == columns:
            _check_names(path.name, lines)
            if path.name == _OUR_FILE:
                _check_our_file(lines)
            return f"{path.name}: {count} classes"
        found.append(f"{path.name} with {count} of them")
    raise verdict.Violation(
        expected=f"a text asset with one line for each of {columns} classes",
        observed=", ".join(found) or "no assets",
        mend="Write one line for each class, and hang the file on the root as a "
        "tf.saved_model.Asset: one beside the SavedModel is lost in copies.",
    )


def _check_names(name: str, lines: list[str]) -> None:
    """Some classes share a name, in ImageNet too; most do not."""
    empty = sum(not line.strip() for line in lines)
    if empty or 2 * len(set(lines)) < len(lines):
        observed = f"{empty} empty lines" if empty else f"{len(set(lines))} names"
        raise verdict.Violation(
            expected=f"{name} to name {len(lines)} classes",
            observed=observed,
            mend="Write each class's own name on its line.",
        )


def _text_lines(path: pathlib.Path) -> list[str] | None:
    if path.suffix == ".json":
        return None  # its lines are no classes
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


def _check_our_file(lines: list[str]) -> None:
    header, *rows = (line.split("\t") for line in lines)
    indices = [row[0] for row in rows]
    named = [row for row in rows if row[-1].lower() == "background"]
    if header != _OUR_HEADER:
        observed = f"the header {', '.join(header)}"
    elif any(len(row) != len(_OUR_HEADER) for row in rows):
        observed = "lines of another number of fields"
    elif indices != [str(index) for index in range(len(rows))]:
        observed = "an index that does not count from 0"
    elif any(row[1].lower() != "background" for row in named):
        observed = f"a background class with the id {named[0][1]}"
    else:
        return
    raise verdict.Violation(
        expected=f"{_OUR_FILE} with the tab-separated columns index, id, name, where "
        "the index counts from 0 and a background class has the id background",
        observed=observed,
        mend="Write the file in this form, or give it another name.",
    )
