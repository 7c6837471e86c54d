"""The suite's processes: models that crash, hang or use up memory; and the clients."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import subprocess
import sys
import tarfile

import psutil
import pytest
import tensorflow as tf

from conformance import clauses, clients, process, report, runs, suite
from tests.conformance import hub_modules, in_process, models, mutants

GIB = 1 << 30


def tight(default):
    return process.Limits(seconds=15, memory=2 * GIB)


def by_id(suite_report):
    return {result.id: result for result in suite_report.clauses}


class Crashes(models.FeatureVector):
    """Aborts the process on images that are wider than high."""

    def normalise(self, images, training):
        shape = tf.shape(images)

        def crash():
            with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the end")]):
                return tf.identity(images)

        images = tf.cond(shape[2] > shape[1], crash, lambda: images)
        return super().normalise(images, training)


class Loops(models.FeatureVector):
    def normalise(self, images, training):
        shape = tf.shape(images)
        forever = tf.while_loop(
            lambda i: shape[2] > shape[1], lambda i: [i + 1], [tf.constant(0)]
        )
        with tf.control_dependencies(forever):
            return super().normalise(tf.identity(images), training)


class TakesAllMemory(models.FeatureVector):
    def normalise(self, images, training):
        shape = tf.shape(images)
        _, values = tf.while_loop(
            lambda i, _: (shape[2] > shape[1]) & (i < 40),
            lambda i, values: (i + 1, tf.concat([values, values + 1], 0)),
            (tf.constant(0), tf.ones([1 << 16])),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        )
        with tf.control_dependencies([tf.reduce_sum(values)]):
            return super().normalise(tf.identity(images), training)


@pytest.fixture(scope="module")
def judge_once(tmp_path_factory):
    """Returns a function that judges a model whose process ends, each model once."""

    @functools.cache
    def judge(model):
        path = model().save(tmp_path_factory.mktemp("ends"))
        return suite.check(path, clauses=["R02", "I02", "I03", "S"], limits=tight)

    return judge


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
@pytest.mark.parametrize(
    ("model", "observed"),
    [
        (Crashes, "the process was killed by SIGABRT; its last output: .*the end"),
        (Loops, "the process sent no message for 15 s, the time limit"),
        (TakesAllMemory, "the process used more than 2.0 GiB of memory"),
    ],
)
def test_ending_the_process_fails_one_clause(model, observed, judge_once):
    suite_report = judge_once(model)
    statuses = {result.id: result.status for result in suite_report.clauses}
    assert statuses == dict.fromkeys(("R02", "I02", "S01", "S02"), "pass") | {
        "I03": "fail",
        "S03": "not_applicable",
        "S04": "warn",
    }
    message = by_id(suite_report)["I03"].message
    expected = f"I03 {suite_report.path}: expected the check to finish; observed "
    assert message.startswith(expected)
    assert re.search(observed, message), message


@pytest.mark.ci
@pytest.mark.usefixtures("forked_clients")
def test_a_crash_ends_the_search_and_keeps_what_was_found(tmp_path):
    path = Crashes().save(tmp_path)
    suite_report = suite.check(path, clauses=["I03"])
    assert [result.id for result in suite_report.failed] == ["I03"], (
        suite_report.to_text()
    )
    message = by_id(suite_report)["I03"].message
    assert "observed the process was killed by SIGABRT" in message
    assert suite_report.measured.stopped.startswith("the process was killed by SIGABRT")
    assert suite_report.measured.batch_sizes == [1, 2, 3, 7, 32, 64]


def test_after_a_crash_another_process_judges_what_is_left(tmp_path, monkeypatch):
    """Stand-ins replace the processes; the first one ends while it judges I03."""
    path = models.FeatureVector().save(tmp_path)
    requested_clauses = []

    def worker(run, **job_changes):
        requested_clauses.append(job_changes["clauses"])
        for message in in_process.messages(run, **job_changes):
            if len(requested_clauses) == 1 and message.get("begin") == "I03":
                raise process.Stopped("was killed by SIGABRT")
            yield message

    monkeypatch.setattr(runs.Run, "_worker", worker)
    suite_report = suite.check(path, clauses=["I02", "I03", "S01"], level="quick")
    statuses = {result.id: result.status for result in suite_report.clauses}
    assert statuses == {"I02": "pass", "I03": "fail", "S01": "pass"}
    assert (
        "observed the process was killed by SIGABRT"
        in by_id(suite_report)["I03"].message
    )
    first, second = requested_clauses
    assert second == first[first.index("I03") + 1 :]


class EndsQuietly(models.FeatureVector):
    """Ends the process with status 0, as if it had finished."""

    def normalise(self, images, training):
        quietly = {"error_msg": "", "exit_without_error": True}
        with tf.control_dependencies([tf.raw_ops.Abort(**quietly)]):
            return super().normalise(tf.identity(images), training)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
def test_a_model_that_ends_the_process_as_if_all_were_done_fails(tmp_path):
    path = EndsQuietly().save(tmp_path)
    suite_report = suite.check(path, clauses=["I04"], limits=tight)
    # The failure is reported although R03 was not requested: it blocks I04.
    assert [(r.id, r.status) for r in suite_report.clauses] == [
        ("R03", "fail"),
        ("I04", "not_applicable"),
    ], suite_report.to_text()
    assert (
        "ended with status 0 before all clauses were checked"
        in suite_report.clauses[0].message
    )


class Strings(models.FeatureVector):
    input_spec = tf.TensorSpec([None], tf.string)

    def normalise(self, images, training):
        return tf.zeros([tf.shape(images)[0], 64, 64, 3])


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_an_input_that_is_no_image_fails_that_clause_alone(tmp_path):
    path = Strings().save(tmp_path)
    suite_report = suite.check(path, clauses=["R03", "I01", "K02"], level="quick")
    statuses = {result.id: result.status for result in suite_report.clauses}
    assert statuses == {"R03": "pass", "I01": "fail", "K02": "not_applicable"}


@pytest.mark.slow
def test_nothing_is_left_running_or_lying_about(tmp_path):
    path = Loops().save(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "conformance", str(path), "--clauses=I03"]
    checker = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    next(line for line in checker.stderr if line.startswith("R03"))
    children = psutil.Process(checker.pid).children(recursive=True)
    assert children
    checker.terminate()
    assert checker.wait(20) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("clause", clients.BY_CLAUSE)
def test_a_client_sees_what_no_other_clause_does(clause, request, tmp_path):
    if clause != "K01":  # K01 runs in new processes, as for users
        request.getfixturevalue("forked_clients")
    (mutant,) = (m for m in mutants.MUTANTS if mutants.clause(m) == clause)
    path = mutants.make(mutant, tmp_path)
    suite_report = suite.check(path, clauses=["F01", "T", "K"], level="quick")
    assert [result.id for result in suite_report.failed] == [clause], (
        suite_report.to_text()
    )
    message = by_id(suite_report)[clause].message
    assert message.startswith(f"{clause} {path}: expected ")
    assert re.search(mutants.MUTANTS[mutant].message, message)


@pytest.mark.slow
def test_clients_take_a_correct_model_and_its_range_is_found(tmp_path):
    path = models.Classification().save(tmp_path)
    lines = []
    suite_report = suite.check(path, progress=lines.append)
    assert not suite_report.failed, suite_report.to_text()
    assert suite_report.kind == "classification"
    assert [result.id for result in suite_report.clauses] == [
        clause.id for clause in clauses.CLAUSES if clauses.SAVED_MODEL in clause.formats
    ]
    assert {"R01 …", "K02 …"} <= set(lines)
    assert set(suite_report.versions) == {"python", "tensorflow"}
    assert suite_report.measured.batch_sizes == [1, 2, 3, 7, 32, 64]
    for sides in suite_report.measured.sides.values():
        assert (sides.smallest, sides.step) == (1, 1)
        assert sides.largest > 1000


@pytest.mark.slow
def test_a_hub_module_is_judged_by_the_clauses_of_its_format(tmp_path):
    path = hub_modules.Classification().save(tmp_path)
    lines = []
    suite_report = suite.check(path, progress=lines.append)
    assert not suite_report.failed, suite_report.to_text()
    assert (suite_report.kind, suite_report.measured) == ("classification", None)
    ids = ["T01", "T02", "T03", "T04", "T05", "P03"]
    assert [result.id for result in suite_report.clauses] == ids
    not_applicable = {line.split()[0] for line in lines if "not_applicable" in line}
    assert not_applicable == {"P03"}  # it has no manifest
    r01_report = suite.check(path, clauses=["R01"], level="quick")
    assert r01_report.clauses[0].message == (
        "applies to TF2 SavedModels and serving SavedModels; this is a TF1 Hub module"
    )


class InSteps(models.FeatureVector):
    """Takes heights that are multiples of 8, from 24 to 400, and any width."""

    def normalise(self, images, training):
        height = tf.shape(images)[1]
        tf.debugging.assert_equal(height % 8, 0)
        tf.debugging.assert_greater_equal(height, 24)
        tf.debugging.assert_less_equal(height, 400)
        return super().normalise(images, training)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_search_finds_ends_and_steps(tmp_path):
    path = InSteps().save(tmp_path)
    suite_report = suite.check(path, clauses=["I03"])
    height = suite_report.measured.sides["height"]
    assert (height.smallest, height.largest, height.step) == (24, 400, 8)
    assert "height" in height.stopped or "InvalidArgument" in height.stopped
    width = suite_report.measured.sides["width"]
    assert (width.smallest, width.step) == (1, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
def test_the_search_takes_the_signature_where_there_is_no_call(tmp_path):
    path = mutants.make(mutants.R02NoCall, tmp_path)
    suite_report = suite.check(path, clauses=["I03"])
    assert suite_report.measured.sides["square"].smallest == 1
    assert not suite_report.failed


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_documentation_in_a_model_holds(tmp_path):
    path = models.FeatureVector().save(tmp_path)
    manifest = path / "assets.extra" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text('{"input": {"height_range": [16, 48], "width_range": [8, 40]}}')
    suite_report = suite.check(path, clauses=["I03"], level="quick")
    assert suite_report.documented == {"height_range": [16, 48], "width_range": [8, 40]}
    assert "16x8, 48x40" in suite_report.clauses[0].message
    manifest.write_text('{"input": 7}')
    assert suite.check(path, clauses=["R02"], level="quick").documented == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("{", "Expecting"),
        (
            '{"input": {"height_range": [9, 2]}}',
            "9 to 2 is not a valid range of pixels",
        ),
        ('{"hyperparameters": {"rate": 3}}', "no attribute"),
        (
            '{"hyperparameters": {"rate": {"shape": 5}}}',
            "5 is not a valid shape for rate",
        ),
        ('{"input": {"heigth_range": [16, 48]}}', "it has none of them"),
    ],
)
def test_a_file_of_documentation_must_be_one(text, message, tmp_path):
    path = models.FeatureVector().save(tmp_path)
    doc = tmp_path / "doc.json"
    if text is not None:
        doc.write_text(text)
    with pytest.raises(ValueError, match=f"doc must be a JSON file .*{message}"):
        suite.check(path, doc=doc)


@pytest.mark.usefixtures("in_this_process")
def test_a_pipe_is_not_waited_for(tmp_path):
    path = models.FeatureVector().save(tmp_path)
    pipe = path / "assets.extra" / "manifest.json"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    assert suite.check(path, clauses=["R02"]).documented == {}
    with pytest.raises(ValueError, match="it is not a regular file"):
        suite.check(path, doc=pipe)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
def test_clauses_that_a_signature_can_answer_need_no_call(tmp_path):
    path = mutants.make(mutants.R02NoCall, tmp_path)
    suite_report = suite.check(path, clauses=["I01", "F"], level="quick")
    assert [result.id for result in suite_report.clauses] == [
        "I01",
        "F01",
        "F02",
        "F03",
    ]
    suite_report = suite.check(path, clauses=["I01", "R07"], level="quick")
    assert [result.id for result in suite_report.failed] == ["R02"]


class Fixed(models.FeatureVector):
    """Has a signature for one size, and a `__call__` for any size."""

    def signatures(self):
        spec = tf.TensorSpec([None, 48, 40, 3], tf.float32, "images")
        traced = tf.function(self.signature).get_concrete_function(spec)
        return {**super().signatures(), "serving_default": traced}


class WithoutCall(Fixed):
    def root(self):
        root = super().root()
        del root.__call__
        return root


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
@pytest.mark.parametrize("model", [Fixed, WithoutCall])
def test_saved_model_cli_is_fed_what_the_signature_takes(model, tmp_path):
    suite_report = suite.check(model().save(tmp_path), clauses=["K04", "R01"])
    assert not suite_report.failed, suite_report.to_text()


class SignatureOfStrings(models.FeatureVector):
    def root(self):
        root = super().root()
        del root.__call__
        return root

    def signatures(self):
        spec = tf.TensorSpec([None], tf.string, "images")
        lengths = tf.function(lambda images: {"default": tf.strings.length(images)})
        return {"serving_default": lengths.get_concrete_function(spec)}


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_signature_that_takes_no_images_fails_three_clauses(tmp_path):
    path = SignatureOfStrings().save(tmp_path)
    suite_report = suite.check(path)
    assert {r.id for r in suite_report.failed} == {"R02", "I01", "S02"}, (
        suite_report.to_text()
    )
    assert by_id(suite_report)["I04"].message == (
        "can't be checked: the model does not take images, see I01"
    )
    assert by_id(suite_report)["K04"].message == "serving_default does not take images"


class Endpoints(WithoutCall):
    def signature(self, images):
        output = self.output(images, False)
        return {"default": output, "Toy/features": output + 1}


@pytest.mark.usefixtures("in_this_process")
def test_the_default_of_a_signature_is_its_result(tmp_path):
    path = Endpoints().save(tmp_path)
    suite_report = suite.check(path, clauses=["F", "I01", "S03"], level="quick")
    assert not suite_report.failed, suite_report.to_text()


# Archives and URLs.


def archived(path, target, *, below="model"):
    with tarfile.open(target, "w:gz") as tar:
        tar.add(path, arcname=below)
    return target


@pytest.mark.usefixtures("in_this_process")
def test_an_archive_is_unpacked_and_judged(tmp_path):
    path = models.FeatureVector().save(tmp_path)
    for below in ("model", "."):
        archive = archived(path, tmp_path / "model.tar.gz", below=below)
        suite_report = suite.check(archive, clauses=["R01"], level="quick")
        assert suite_report.path == str(archive)
        assert suite_report.clauses[0].status == report.PASS


@pytest.mark.usefixtures("in_this_process")
def test_a_url_is_asked_for_its_compressed_form(tmp_path, monkeypatch):
    path = models.FeatureVector().save(tmp_path)
    data = archived(path, tmp_path / "m.tar.gz", below=".").read_bytes()
    urls = []

    def urlopen(request, timeout):
        urls.append(request.full_url)
        return io.BytesIO(data)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    url = "http://127.0.0.1/toy/1"
    suite_report = suite.check(url, clauses=["R01"], level="quick")
    assert (suite_report.path, suite_report.clauses[0].status) == (url, report.PASS)
    assert urls == [f"{url}?tf-hub-format=compressed"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_clients")
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.__name__)
def test_the_clients_see_a_mutant_alike(mutant, tmp_path):
    """A mutant breaks its own clause, and only the clients that depend on it."""
    path = mutants.make(mutant, tmp_path)
    suite_report = suite.check(
        path, kind=mutant.kind, clauses=["K", "T05"], level="quick"
    )
    failed = {result.id for result in suite_report.failed} & set(clients.BY_CLAUSE)
    expected = {mutants.clause(mutant), mutants.CLIENTS.get(mutant)}
    assert failed == expected & set(clients.BY_CLAUSE), suite_report.to_text()
