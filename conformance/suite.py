"""Runs the clauses on a SavedModel: select, load, judge each in its turn, report."""

from __future__ import annotations

import difflib
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from conformance import clauses as clauses_lib
from conformance import report, subject, verdict
from conformance.checks import (
    classification,
    feature_vector,
    image_input,
    reusable,
    signatures,
)
from conformance.checks import pair as pair_checks

LEVELS = ("quick", "full")
_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")

_Check = Callable[[subject.Subject], str]
_CHECKS: dict[str, _Check] = {
    "R01": reusable.r01_loads_alone,
    "R02": reusable.r02_root_is_callable,
    "R03": reusable.r03_takes_one_tensor,
    "R04": reusable.r04_lists_variables,
    "R05": reusable.r05_lists_trainable_variables,
    "R06": reusable.r06_regularization_losses,
    "R07": reusable.r07_training_is_a_bool,
    "R08": reusable.r08_traces_every_combination,
    "R10": reusable.r10_changes_statistics_only,
    "R11": reusable.r11_gradients_reach,
    "R14": reusable.r14_images_are_independent,
    "I01": image_input.i01_takes_rgb_floats,
    "I02": image_input.i02_takes_any_batch,
    "I03": image_input.i03_takes_any_size,
    "I04": image_input.i04_normalises_for_itself,
    "I05": image_input.i05_rejects_other_inputs,
    "F01": feature_vector.f01_gives_one_matrix,
    "F02": feature_vector.f02_num_features_is_static,
    "F03": feature_vector.f03_has_no_dropout,
    "C01": classification.c01_gives_one_matrix,
    "C02": classification.c02_gives_logits,
    "C03": classification.c03_carries_class_index,
    "P01": pair_checks.p01_backbones_are_equal,
    "P02": pair_checks.p02_head_completes_features,
    "S01": signatures.s01_has_serving_default,
    "S02": signatures.s02_has_named_signatures,
}


def check(
    path: str | os.PathLike[str],
    *,
    kind: str = "auto",
    pair: str | os.PathLike[str] | None = None,
    level: str = "quick",
    clauses: Iterable[str] | None = None,
    documented: Mapping[str, Sequence[int | None]] | None = None,
) -> report.Report:
    """Holds a SavedModel against the clauses.

    Runs in the calling process, and loads the model into it: for models that one trusts
    enough to call.

    Args:
      path: directory of the SavedModel.
      kind: feature_vector, classification, or auto, see `subject.Subject.kind`.
      pair: directory of the other half; without it the clauses of group P are not
        applicable.
      level: quick, or full for more batch sizes, image sizes and modes.
      clauses: ids and group letters, as in ("R", "F03"); None means all.
      documented: ranges (low, high) in pixels under `height_range` and `width_range`;
        an end may be None.

    Returns:
      A result for each selected clause.

    Raises:
      ValueError: for an argument that is none of these, or a path without a SavedModel.
    """
    _check_choice("kind", kind, ("auto", *clauses_lib.KINDS))
    _check_choice("level", level, LEVELS)
    model = subject.Subject(
        _saved_model("path", path),
        kind=kind,
        full=level == "full",
        pair=None if pair is None else _saved_model("pair", pair),
        documented=documented or {},
    )
    selected = clauses_lib.select(clauses)
    results: dict[str, report.ClauseResult] = {}
    for clause in clauses_lib.with_needs(selected):
        results[clause.id] = judge(clause, _CHECKS[clause.id], model, results)
    return report.Report(
        path=str(model.path),
        kind=_kind(model, results),
        clauses=tuple(results[clause.id] for clause in selected),
    )


def judge(
    clause: clauses_lib.Clause,
    run: Callable[[subject.Subject], str],
    model: subject.Subject,
    results: Mapping[str, report.ClauseResult],
) -> report.ClauseResult:
    """Runs one check, and turns whatever comes of it into a result.

    Args:
      clause: what is judged.
      run: its check.
      model: what it is judged of.
      results: of the clauses before it.
    """
    start = time.perf_counter()
    try:
        _check_judgeable(clause, model, results)
        status, message = report.PASS, run(model)
    except verdict.NotApplicable as reason:
        status, message = report.NOT_APPLICABLE, str(reason)
    except Exception as error:
        status = report.FAIL if clause.level == "MUST" else report.WARN
        is_finding = isinstance(error, verdict.Broken)
        found = str(error) if is_finding else f"raised {verdict.one_line(error)}"
        message = f"{clause.id} {model.path}: {found}"
    seconds = round(time.perf_counter() - start, 3)
    return report.ClauseResult(
        id=clause.id, status=status, message=message, seconds=seconds
    )


def _check_judgeable(
    clause: clauses_lib.Clause,
    model: subject.Subject,
    results: Mapping[str, report.ClauseResult],
) -> None:
    """Raises `NotApplicable` where there is no telling, or nothing to tell."""
    for need in clauses_lib.with_needs([clause])[:-1]:
        if results[need.id].status == report.FAIL:
            raise verdict.NotApplicable(f"can't be judged, since {need.id} fails")
    if clause.kinds != clauses_lib.KINDS and model.kind not in clause.kinds:
        kinds = " or ".join(clause.kinds)
        raise verdict.NotApplicable(f"speaks of {kinds}; the model is {model.kind}")


def _kind(model: subject.Subject, results: Mapping[str, report.ClauseResult]) -> str:
    """The model's kind; unknown where it would have to be loaded to know, but can't."""
    if model.given_kind == "auto" and results["R01"].status != report.PASS:
        return "unknown"
    return model.kind


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        nearest = difflib.get_close_matches(value, choices, n=1, cutoff=0)[0]
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}. Did you mean "
            f"{nearest!r}?"
        )


def _saved_model(name: str, path: str | os.PathLike[str]) -> pathlib.Path:
    """The directory at `path`, which must hold a SavedModel, whole or not."""
    directory = pathlib.Path(path)
    if not any((directory / file).is_file() for file in _FILES):
        raise ValueError(
            f"{name} must be the directory of a SavedModel, got {str(path)!r}: it has "
            f"no {_FILES[0]}."
        )
    return directory
