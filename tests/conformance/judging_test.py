"""Every clause fails on the model that breaks it, and on no other."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import types

import pytest
import tensorflow as tf

from conformance import clauses, clients, judging, numeric, report, suite, verdict
from tests.conformance import (
    documentation_test,
    hub_modules,
    in_process,
    models,
    mutants,
    serving_models,
)

JUDGED_HERE = [m for m in mutants.MUTANTS if mutants.clause(m) not in clients.BY_CLAUSE]
# Mutants of S04 that are not only in slow tests: wrong signature, colours, recovery.
KEPT = (mutants.S04NoSignature, mutants.S04BlueFirst, mutants.S04Recovers)
REPEATING = [m for m in JUDGED_HERE if mutants.clause(m) == "S04" and m not in KEPT]
# For one mutant of each clause, every test run judges all other clauses too.
FIRST = {mutants.clause(m): m for m in reversed(JUDGED_HERE) if m not in REPEATING}
NO_PAIR = "the other model of the pair was not given"
NO_MANIFEST = {"P03": "there is no assets.extra/manifest.json"}
NO_FURTHER = {"R09": "__call__ has no keyword argument other than training"}
NO_PAGE = {
    clause.id: "no documentation page was given"
    for clause in clauses.CLAUSES
    if clause.id.startswith("D")
}
NO_PARTS = {"R12": "the root has no named callables"}
NO_BYTES = {"S04"}  # a SHOULD clause, which most of these models fail
NO_ENDPOINTS = {"S03": "no image_* signature has outputs other than default"}

# Reasons why clauses do not apply to a correct model, besides clauses of the other kind
# and, where no pair is given, of the pair.
REASONS = {
    models.NothingToTrain: {
        "R05": "there are no trainable_variables",
        "R06": "there are no regularization_losses",
        "R07": "__call__ has no argument training",
        "R08": "__call__ takes no Python-valued argument",
        "R11": "there are no trainable_variables",
        **NO_FURTHER,
    },
    models.FrozenOnPurpose: {
        "R05": "there are no trainable_variables",
        "R11": "there are no trainable_variables",
    },
    models.FixedSize: {"I03": "the input is fixed at 96x64 pixels"},
}


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return types.SimpleNamespace(
        feature_vector=models.FeatureVector().save(folder),
        classification=models.Classification().save(folder),
    )


def has_bytes(model: type) -> bool:
    takers = (models.TakesEncodedImages, serving_models.FeatureVector)
    return issubclass(model, takers)


def format_of(model: type) -> str:
    is_served = issubclass(model, serving_models.FeatureVector)
    return clauses.SERVING if is_served else clauses.SAVED_MODEL


def by_id(suite_report: report.Report) -> dict[str, report.ClauseResult]:
    return {result.id: result for result in suite_report.clauses}


def reasons(suite_report: report.Report) -> dict[str, str]:
    return {
        result.id: result.message
        for result in suite_report.clauses
        if result.status == report.NOT_APPLICABLE
    }


def inapplicable_to(
    kind: str, model_format: str = clauses.SAVED_MODEL
) -> dict[str, str]:
    """Returns why clauses do not apply to any model of a kind, by clause."""
    return {
        clause.id: f"applies to {clause.kinds[0]} models; this is a {kind} model"
        for clause in clauses.CLAUSES
        if kind not in clause.kinds and model_format in clause.formats
    } | (NO_PAGE | NO_PARTS if kind == "feature_vector" else NO_PAGE)


@pytest.mark.ci_except("quick")
@pytest.mark.parametrize("level", suite.LEVELS)
def test_a_correct_pair_passes(pair, level):
    for kind, other in [
        ("feature_vector", pair.classification),
        ("classification", pair.feature_vector),
    ]:
        suite_report = in_process.check(getattr(pair, kind), pair=other, level=level)
        assert suite_report.kind == kind
        assert not suite_report.failed, suite_report.to_text()
        assert (
            reasons(suite_report) == inapplicable_to(kind) | NO_ENDPOINTS | NO_MANIFEST
        )


HUB_MODULES = [hub_modules.FeatureVector, hub_modules.Classification]


@pytest.mark.parametrize("module", HUB_MODULES, ids=lambda m: m.kind)
def test_a_correct_hub_module_passes(module, tmp_path):
    suite_report = in_process.check(module().save(tmp_path))
    assert suite_report.kind == module.kind
    assert not suite_report.failed, suite_report.to_text()
    assert reasons(suite_report) == NO_MANIFEST
    assert [r.id for r in suite_report.clauses] == ["T01", "T02", "T03", "T04", "P03"]


@pytest.fixture(scope="session")
def serving_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    return {model.kind: model().save(folder) for model in serving_models.MODELS}


SERVING_CLAUSES = ["R01", "R14", "I01", "I02", "I03", "I04", "P03", "S01", "S04"]
SERVING_CLAUSES += ["V01", "V02", "V04", "V05"]
SERVING_CLAUSES_OF = {"feature_vector": ["F01", "F02"]}
SERVING_CLAUSES_OF["classification"] = ["C01", "C02", "V03"]


@pytest.mark.parametrize("kind", clauses.KINDS)
def test_a_correct_model_for_serving_passes(serving_pair, kind):
    (other,) = {*clauses.KINDS} - {kind}
    suite_report = in_process.check(serving_pair[kind], pair=serving_pair[other])
    assert suite_report.kind == kind
    statuses = {result.id: result.status for result in suite_report.clauses}
    assert {*statuses.values()} == {report.PASS, report.NOT_APPLICABLE}
    applicable = [*SERVING_CLAUSES, *SERVING_CLAUSES_OF[kind]]
    assert [c for c in applicable if statuses[c] != report.PASS] == ["P03"]
    messages = [result.message for result in suite_report.clauses]
    assert not any("by serving_default" in message for message in messages)


def test_the_features_of_a_serving_pair_are_equal(serving_pair, tmp_path):
    class Other(serving_models.FeatureVector):
        def features(self, images):
            return 1.001 * super().features(images)

    suite_report = in_process.check(
        serving_pair["classification"], pair=Other().save(tmp_path), clauses=["V02"]
    )
    assert [result.id for result in suite_report.failed] == ["V02"]


@pytest.mark.parametrize("kind", clauses.KINDS)
def test_a_model_with_variables_and_no_call_is_not_for_serving(kind, tmp_path):
    (model,) = (m for m in serving_models.MODELS if m.kind == kind)

    class WithVariable(model):
        def root(self):
            root = super().root()
            root.held = tf.Variable(1.0)
            return root

    suite_report = in_process.check(WithVariable().save(tmp_path), clauses=["R02", "V"])
    results = by_id(suite_report)
    assert results["R02"].status == report.FAIL
    assert results["V01"].message == (
        "applies to serving SavedModels; this is a TF2 SavedModel"
    )


def test_a_hub_module_that_cannot_be_read_is_one(tmp_path):
    path = hub_modules.FeatureVector().save(tmp_path)
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-100])
    suite_report = in_process.check(path)
    assert [result.id for result in suite_report.failed] == ["T01"], (
        suite_report.to_text()
    )
    assert "a readable saved_model.pb" in by_id(suite_report)["T01"].message


@pytest.mark.ci_except("FeatureVector", "Classification")
@pytest.mark.slow_except(
    "FeatureVector",
    "Classification",
    "LabelsWithoutHeader",
    "TakesEncodedImages",
    "WithManifest",
    "HyperparameterAtCallTime",
    "NamedEndpoints",
    "FrozenOnPurpose",
    "AmplifiesRounding",
)
@pytest.mark.parametrize("variant", models.VARIANTS, ids=lambda v: v.__name__)
def test_a_correct_variant_passes(variant, tmp_path):
    path = variant().save(tmp_path)
    suite_report = in_process.check(path, arguments=variant.documented)
    assert not suite_report.failed, suite_report.to_text()
    warned = {r.id for r in suite_report.clauses if r.status == report.WARN}
    assert warned == NO_BYTES - {"S04" if has_bytes(variant) else ""}, (
        suite_report.to_text()
    )
    expected = inapplicable_to(variant.kind) | REASONS.get(variant, {})
    if variant is not models.NamedEndpoints:
        expected |= NO_ENDPOINTS
    if variant is not models.WithManifest:
        expected |= NO_MANIFEST
    assert reasons(suite_report) == expected | {"P01": NO_PAIR, "P02": NO_PAIR}


@pytest.mark.parametrize(
    "mutant",
    [
        m if m in FIRST.values() else pytest.param(m, marks=pytest.mark.slow)
        for m in JUDGED_HERE
    ],
    ids=lambda m: m.__name__,
)
def test_a_mutant_breaks_its_clause_alone(mutant, pair, tmp_path):
    assert_breaks(mutant, pair, tmp_path, clauses=None)


@pytest.mark.ci
@pytest.mark.parametrize(
    "mutant",
    [m for m in JUDGED_HERE if m not in REPEATING and m not in FIRST.values()],
    ids=lambda m: m.__name__,
)
def test_a_mutant_breaks_its_clause(mutant, pair, tmp_path):
    """Judges this clause and those that fail with it; judging all takes longer."""
    others = mutants.MUTANTS[mutant].others
    clauses = [mutants.clause(mutant), *others]
    assert_breaks(mutant, pair, tmp_path, clauses=clauses)


def assert_breaks(mutant, pair, tmp_path, *, clauses):
    """Asserts that of `clauses` (None: all), only the expected ones fail."""
    expected, violated = mutants.MUTANTS[mutant], mutants.clause(mutant)
    path = mutants.make(mutant, tmp_path)
    suite_report = in_process.check(
        path,
        clauses=clauses,
        kind=mutant.kind,
        pair=pair.feature_vector if violated.startswith("P") else None,
        level="full" if expected.full else "quick",
        documented=expected.documented,
        arguments=mutant.documented,
    )
    failed = {
        r.id for r in suite_report.clauses if r.status in (report.FAIL, report.WARN)
    }
    if not has_bytes(mutant):
        failed -= NO_BYTES
    assert failed == {violated, *expected.others}, suite_report.to_text()
    message = by_id(suite_report)[violated].message
    assert message.startswith(f"{violated} {path}: expected ")
    assert re.search(expected.message, message), message
    assert "; observed " in message
    assert ". To fix: " in message
    for clause, reason in reasons(suite_report).items():
        blocked = {f"can't be checked because {need} fails" for need in failed}
        expected_reasons = (
            inapplicable_to(mutant.kind, format_of(mutant))
            | NO_PARTS
            | NO_FURTHER
            | NO_ENDPOINTS
        )
        expected_reasons |= NO_MANIFEST
        allowed = {expected_reasons.get(clause), *blocked}
        if not violated.startswith("P"):
            allowed.add(NO_PAIR)
        if mutant is mutants.R08NoTraining:
            allowed.add("there is no trace with training=True, see R08")
        assert reason in allowed, f"{clause}: {reason}"


def test_a_model_that_would_write_files_writes_none(pair, tmp_path):
    written = pathlib.Path(mutants.R01WritesFile.path)
    for mutant in (mutants.R01WritesFile, mutants.R01PrintsToFile):
        folder = tmp_path / mutant.__name__
        folder.mkdir()
        path = mutants.make(mutant, folder)
        written.unlink(missing_ok=True)  # tracing may print
        assert in_process.check(path, clauses=["R", "I"]).failed
        suite_report = in_process.check(pair.classification, pair=path, clauses=["P"])
        assert [result.id for result in suite_report.failed] == ["P01", "P02"]
        assert not written.exists()


BY_SIGNATURE = {"R14", "I01", "I02", "I03", "I04", "C01", "C02", "C03"}


def test_without_a_call_serving_default_stands_in(tmp_path):
    class Model(mutants.C02Softmax):
        def root(self):
            root = super().root()
            del root.__call__
            return root

    suite_report = in_process.check(Model().save(tmp_path))
    assert {result.id for result in suite_report.failed} == {"R02", "C02"}
    results = by_id(suite_report)
    standing_in = {
        r.id for r in suite_report.clauses if "by serving_default: " in r.message
    }
    assert standing_in == BY_SIGNATURE
    assert results["I05"].message == "can't be checked because R02 fails"


def test_without_a_call_a_signature_of_one_image_stands_for_nothing(tmp_path):
    class Model(mutants.S01FixedBatch):
        def root(self):
            root = super().root()
            del root.__call__
            return root

    suite_report = in_process.check(Model().save(tmp_path))
    assert {result.id for result in suite_report.failed} == {"R02", "S01"}
    reason = by_id(suite_report)["I04"].message
    assert reason.endswith("does not take one Tensor with a free batch dimension")


def test_every_clause_has_a_mutant_and_a_check():
    violated = {mutants.clause(mutant) for mutant in mutants.MUTANTS}
    violated |= {name for *_, names, _ in documentation_test.WRONG for name in names}
    assert violated == set(clauses.BY_ID)
    assert sorted([*judging.CHECKS, *clients.BY_CLAUSE]) == sorted(clauses.BY_ID)
    assert all(bool(m.others) == bool(m.why) for m in mutants.MUTANTS.values())


def test_a_pair_is_of_two_kinds(pair):
    suite_report = in_process.check(
        pair.feature_vector, pair=pair.feature_vector, clauses=["P"]
    )
    assert [result.id for result in suite_report.failed] == ["P01", "P02"]
    assert "observed another feature_vector model" in by_id(suite_report)["P01"].message


class OtherHeadOnFeatureMap(models.HeadOnFeatureMap):
    def head_alone(self, feature_map, training=False):
        return self.head(2 * feature_map, training)


@pytest.mark.parametrize(
    ("classifier", "violation"),
    [
        (models.HeadOnFeatureMap, None),
        (
            OtherHeadOnFeatureMap,
            r"expected classifier.head\(feature_map\(x\)\) to equal",
        ),
    ],
)
def test_a_head_reads_the_endpoint_that_its_argument_names(
    classifier, violation, tmp_path
):
    other = models.WithFeatureMap().save(tmp_path)
    suite_report = in_process.check(
        classifier().save(tmp_path), pair=other, clauses=["P02", "C"]
    )
    assert [result.id for result in suite_report.failed] == (
        ["P02"] if violation else []
    )
    assert re.search(violation or "difference", by_id(suite_report)["P02"].message)


@pytest.mark.ci
def test_some_mutants_fail_at_the_full_level_only(tmp_path):
    for mutant, expected in mutants.MUTANTS.items():
        if expected.full:
            folder = tmp_path / mutant.__name__
            folder.mkdir()
            assert not in_process.check(mutants.make(mutant, folder)).failed


def test_sizes_stay_within_what_is_documented(pair):
    suite_report = in_process.check(
        pair.feature_vector,
        level="full",
        clauses=["I03"],
        documented={"height_range": (16, 48), "width_range": (24, 40)},
    )
    assert by_id(suite_report)["I03"].message == (
        "sizes 24x36, 16x24, 48x40, 36x24, 25x27, 32x32, 16x40, 48x24"
    )


def test_a_fixed_size_is_compared_with_the_documented_range(tmp_path):
    path = models.FixedSize().save(tmp_path)
    ranges = {"height_range": (96, 96), "width_range": (64, 128)}
    (result,) = in_process.check(path, clauses=["I03"], documented=ranges).clauses
    assert result.status == report.FAIL
    assert "expected an image of 96x96 pixels to work" in result.message


def test_a_model_keeps_its_variables(pair):
    model = in_process.model(pair.feature_vector)
    before = numeric.values(model.all_variables)
    assert model.training_step.changed
    assert not numeric.changed(
        model.all_variables, before, numeric.values(model.all_variables)
    )


def test_clauses_are_selected_with_what_they_need(pair):
    suite_report = in_process.check(pair.feature_vector, clauses=("F02", "S"))
    assert [result.id for result in suite_report.clauses] == [
        *("F02", "S01", "S02", "S03", "S04"),
    ]
    assert not suite_report.failed


def test_a_kind_that_is_given_counts(pair):
    suite_report = in_process.check(
        pair.feature_vector, kind="classification", clauses=["C", "S"]
    )
    assert [result.id for result in suite_report.failed] == ["C03", "S02"]


@pytest.mark.parametrize(
    ("signatures", "file", "kind"),
    [
        (["serving_default"], "class_index.tsv", "classification"),
        (["serving_default"], "Labels.txt", "classification"),
        (["serving_default"], "readme.txt", "feature_vector"),
        (["image_feature_vector"], "labels.txt", "feature_vector"),
        (["image_feature_vector", "image_classification"], "a", "classification"),
    ],
)
def test_the_kind_is_found(signatures, file, kind, tmp_path):
    class Model(models.Classification):
        class_index_name = file

        def signature_names(self):
            return signatures

    assert in_process.check(Model().save(tmp_path), clauses=["R01"]).kind == kind


def test_the_kind_of_what_does_not_load_is_unknown(tmp_path):
    path = mutants.make(mutants.R01Corrupt, tmp_path)
    assert in_process.check(path, clauses=["F01"]).kind == "unknown"
    assert in_process.check(path, kind="classification").kind == "classification"


def test_clauses_of_the_other_kind_say_so_whatever_fails(tmp_path):
    path = mutants.make(mutants.R01Corrupt, tmp_path)
    suite_report = in_process.check(path, kind="feature_vector", clauses=["F01", "C01"])
    assert reasons(suite_report) == {
        "F01": "can't be checked because R01 fails",
        "C01": "applies to classification models; this is a feature_vector model",
    }


def test_attributes_that_tf_keras_adds_are_no_parts(tmp_path):
    class Model(models.FeatureVector):
        def root(self):
            root = super().root()
            layer = models.Classification().head_part()
            layer.keras_api = models.Classification().head_part()
            setattr(root, "layer-1", layer)
            root.keras_api = layer
            return root

    suite_report = in_process.check(Model().save(tmp_path), clauses=["R12"])
    assert reasons(suite_report) == NO_PARTS


def test_the_message_explains_that_a_module_s_list_is_not_saved(tmp_path):
    class Model(models.NothingToTrain):
        def root(self):
            root = super().root()
            root.hidden_variables = root.variables
            del root.variables
            return root

    (result,) = in_process.check(Model().save(tmp_path), clauses=["R04"]).clauses
    assert "6 missing: stem/kernel:0" in result.message
    assert result.message.endswith("a tf.Module are a property, which is not saved.")


def test_an_unexpected_exception_fails_the_clause(pair):
    def run(model):
        raise KeyError("no\nsuch thing" + "x" * 1000)

    result = judge_with(pair, run)
    assert result.status == report.FAIL
    assert re.fullmatch(
        r"I04 \S+: raised KeyError: .no.nsuch thingx+…", result.message
    ), result.message
    assert len(result.message) < 500


def test_a_should_that_does_not_hold_warns(pair):
    def run(model):
        raise verdict.Violation(expected="this", observed="that", fix="Do this.")

    assert judge_with(pair, run).status == report.FAIL
    warning = judge_with(pair, run, level="SHOULD")
    assert warning.status == report.WARN
    assert warning.message.endswith(": expected this; observed that. To fix: Do this.")


def judge_with(pair, run, **changes):
    clause = dataclasses.replace(clauses.BY_ID["I04"], **changes)
    model = types.SimpleNamespace(
        name=pair.feature_vector,
        format=clauses.SAVED_MODEL,
        requested_kind="auto",
        is_callable=True,
        takes_images=True,
    )
    before = by_id(in_process.check(pair.feature_vector, clauses=["R01", "R02", "R03"]))
    return judging.judge(clause, run, model, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "classifier"}, "kind must be one of auto, .* mean 'classification'"),
        ({"level": "fast"}, "level must be one of quick, full, got 'fast'"),
        (
            {"clauses": ["R4"]},
            "Unknown clause 'R4'. Did you mean 'R.*Valid are R01, R02",
        ),
        ({"pair": "nowhere"}, "pair must be a SavedModel .*, got 'nowhere'"),
    ],
)
def test_wrong_usage_is_told(pair, arguments, message):
    with pytest.raises(ValueError, match=message):
        suite.check(pair.feature_vector, **arguments)


def test_a_path_without_a_model_is_told(tmp_path):
    with pytest.raises(ValueError, match="it has no saved_model.pb"):
        suite.check(tmp_path)


def test_only_the_checks_that_the_model_passes_count_for_a_copy(pair):
    """A feature vector has no named callables (R12) and no class index (C03)."""
    suite_report = in_process.check(pair.feature_vector, clauses=["R13"])
    message = by_id(suite_report)["R13"].message
    assert message.startswith(
        "a copy passes the 8 repeated checks that the model passes"
    )
