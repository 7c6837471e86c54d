"""Runs the checks of clauses on one SavedModel, in the process that loads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from conformance import clauses, model_under_test, report, verdict
from conformance.checks import (
    arguments,
    classification,
    copies,
    documentation,
    encoded_images,
    feature_vector,
    image_input,
    manifest_record,
    pair,
    parts,
    reusable,
    serving,
    signatures,
    strategies,
    tf1_hub,
)

# Returns a short summary of its observations; raises if the clause does not hold.
Check = Callable[[model_under_test.ModelUnderTest], str]
# Client programs check T05 and the clauses of group K, see `clients`.
CHECKS: dict[str, Check] = {
    "R01": reusable.r01_loads_alone,
    "R02": reusable.r02_root_is_callable,
    "R03": reusable.r03_takes_one_tensor,
    "R04": reusable.r04_lists_variables,
    "R05": reusable.r05_lists_trainable_variables,
    "R06": reusable.r06_regularization_losses,
    "R07": reusable.r07_training_is_a_bool,
    "R08": reusable.r08_traces_every_combination,
    "R09": arguments.r09_arguments_work_as_documented,
    "R10": reusable.r10_changes_statistics_only,
    "R11": reusable.r11_gradients_reach_variables,
    "R12": parts.r12_named_callables_are_complete,
    "R13": copies.r13_can_be_saved_again,
    "R14": reusable.r14_images_are_independent,
    "R15": strategies.r15_works_in_every_call_context,
    "I01": image_input.i01_takes_rgb_floats,
    "I02": image_input.i02_takes_any_batch,
    "I03": image_input.i03_takes_any_size,
    "I04": image_input.i04_outputs_are_finite,
    "I05": image_input.i05_rejects_other_inputs,
    "F01": feature_vector.f01_gives_one_matrix,
    "F02": feature_vector.f02_num_features_is_static,
    "F03": feature_vector.f03_has_no_dropout,
    "C01": classification.c01_gives_one_matrix,
    "C02": classification.c02_gives_logits,
    "C03": classification.c03_carries_class_index,
    "T01": tf1_hub.t01_loads_as_module,
    "T02": tf1_hub.t02_has_signatures,
    "T03": tf1_hub.t03_has_one_size,
    "T04": tf1_hub.t04_fills_collections,
    "P01": pair.p01_backbones_are_equal,
    "P02": pair.p02_head_completes_features,
    "P03": manifest_record.p03_carries_manifest,
    "D01": documentation.d01_states_ranges,
    "D02": documentation.d02_states_outputs,
    "D03": documentation.d03_states_arguments,
    "D04": documentation.d04_states_origins,
    "D05": documentation.d05_numbers_are_right,
    "S01": signatures.s01_has_serving_default,
    "S02": signatures.s02_has_named_signatures,
    "S03": signatures.s03_names_endpoints,
    "S04": encoded_images.s04_takes_encoded_images,
    "V01": serving.v01_holds_constants,
    "V02": serving.v02_has_features,
    "V03": serving.v03_names_classes,
    "V04": serving.v04_refuses_bad_requests,
    "V05": serving.v05_has_warmup_requests,
}


def judge_all(
    model: model_under_test.ModelUnderTest,
    selected: Iterable[clauses.Clause],
    results: dict[str, report.ClauseResult],
    *,
    begin: Callable[[str], None] = lambda _: None,
) -> Iterator[report.ClauseResult]:
    """Checks clauses one by one and yields their results.

    Args:
      model: the model.
      selected: the clauses; a clause comes after the clauses it needs.
      results: results of clauses that were checked before; new results are added.
      begin: called with each clause's id before its check.
    """
    for clause in selected:
        begin(clause.id)
        results[clause.id] = judge(clause, CHECKS[clause.id], model, results)
        yield results[clause.id]


def judge(
    clause: clauses.Clause,
    check: Check,
    model: model_under_test.ModelUnderTest,
    results: Mapping[str, report.ClauseResult],
) -> report.ClauseResult:
    """Runs one check and returns its result.

    An exception of the check is a failure, or a warning if the clause is a SHOULD.

    Args:
      clause: the clause.
      check: its check function.
      model: the model.
      results: results by clause id, at least those of the clauses that it needs.
    """
    start = time.perf_counter()
    prefix = ""
    try:
        # A requested kind is known even if the model does not load. Detecting the kind
        # loads the model, so it comes after the needs, which include that it loads.
        _check_kind(clause, model.requested_kind)
        model_format = format_of(model)
        verdict.check_format(clause, model_format)
        verdict.check_needs(clause, results)
        if clause.kinds != clauses.KINDS:
            _check_kind(clause, model.kind)
        if _needs_call(clause):
            _check_callable(clause, model)
            is_served = model_format == clauses.SERVING
            if clause.by_signature and not (model.is_callable or is_served):
                prefix = "by serving_default: "
        status, message = report.PASS, prefix + check(model)
    except verdict.NotApplicable as reason:
        status, message = report.NOT_APPLICABLE, str(reason)
    except Exception as error:
        is_violation = isinstance(error, verdict.Violation)
        detail = str(error) if is_violation else f"raised {verdict.one_line(error)}"
        status, message = verdict.failure(clause, model.name, prefix + detail)
    seconds = round(time.perf_counter() - start, 3)
    return report.ClauseResult(
        id=clause.id, status=status, message=message, seconds=seconds
    )


def _needs_call(clause: clauses.Clause) -> bool:
    """Returns whether the check of a clause calls the model with images."""
    return clauses.CALL in {need.id for need in clauses.all_needs(clause)}


def _check_callable(
    clause: clauses.Clause, model: model_under_test.ModelUnderTest
) -> None:
    """Raises `NotApplicable` if the model can't be called with images.

    `INPUT` is the clause on the type of the input, so it is checked for any input.
    """
    if not model.is_callable and model.fallback_signature is None:
        raise verdict.NotApplicable(
            "can't be checked: R02 fails, and serving_default does not take one Tensor "
            "with a free batch dimension"
        )
    if clause.id != clauses.INPUT and not model.takes_images:
        raise verdict.NotApplicable(
            f"can't be checked: the model does not take images, see {clauses.INPUT}"
        )


def format_of(model: model_under_test.ModelUnderTest) -> str:
    """Returns the model's format; judged by its files if it can't be parsed."""
    try:
        return model.format
    except Exception:
        is_module = (model.path / clauses.HUB_MODULE).exists()
        return clauses.TF1_HUB if is_module else clauses.SAVED_MODEL


def _check_kind(clause: clauses.Clause, kind: str) -> None:
    """Raises `NotApplicable` if the clause applies only to the other kind of model.

    Does nothing if `kind` is `auto`.
    """
    if kind in clauses.KINDS and kind not in clause.kinds:
        kinds = " or ".join(clause.kinds)
        raise verdict.NotApplicable(
            f"applies to {kinds} models; this is a {kind} model"
        )
