"""A worker computes what tools/evaluate and hub.load compute, for every image."""

import dataclasses
import io
import json
import subprocess
import sys
import threading
import types

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import tensorflow as tf

from bulk import worker
from exporters import manifest
from reuse import predict
from tests.bulk import tasks
from tests.images import kinds
from training import evaluation

SIZE = 16
CLASSES = ("ape", "cat")
BROKEN = 7


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns a folder with ten images of each class, the broken one included."""
    root = tmp_path_factory.mktemp("data") / "animals"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            data = kinds.encoded(pixels, "PNG")
            (root / name / f"{number}.png").write_bytes(data)
    (root / CLASSES[0] / f"{BROKEN}.png").write_bytes(b"no image")
    return root


def rows_of(task, order=()):
    """Returns the rows of all shards as one table, and the results."""
    computing = worker.Worker(task, order=order)
    results = [computing.compute(shard) for shard in range(task.job.shards)]
    assert not any(result.failure for result in results), results
    tables = [pyarrow.parquet.read_table(io.BytesIO(r.data)) for r in results]
    return pyarrow.concat_tables(tables), results


def matrix(table, name):
    """Returns the column of an output where it is known."""
    return np.stack(table[name].drop_null().to_numpy(zero_copy_only=False))


def expected_images(photographs):
    """Returns the input of the model for each readable image, by key."""
    result = {}
    for path in sorted(photographs.glob("*/*.png")):
        if path.name != f"{BROKEN}.png" or path.parent.name != CLASSES[0]:
            pixels = np.asarray(
                PIL.Image.open(path).convert("RGB").crop((2, 0, 22, 20))
            )
            image = PIL.Image.fromarray(pixels).resize((SIZE, SIZE), PIL.Image.BILINEAR)
            key = path.relative_to(photographs).as_posix()
            result[key] = np.asarray(image, np.float32) / 255
    return result


def test_features_are_those_of_the_published_model(pair, photographs):
    folder = pair / "feature_vector" / "1"
    table, results = rows_of(tasks.task_of(folder, photographs, ["features"]))
    expected = expected_images(photographs)
    readable = table.filter(table["error"].is_null())
    assert {*readable["key"].to_pylist()} == {*expected}
    images = np.stack([expected[key] for key in readable["key"].to_pylist()])
    model = tf.saved_model.load(str(folder))
    np.testing.assert_allclose(
        matrix(table, "features"), model(images).numpy(), rtol=0.02, atol=0.02
    )
    assert table["number"].to_pylist() == [*range(20)]
    assert [result.errors for result in results] == [1, 0, 0]


def test_a_row_tells_its_label_and_why_it_is_missing(pair, photographs):
    folder = pair / "feature_vector" / "1"
    table, results = rows_of(tasks.task_of(folder, photographs, ["features"]))
    labels = [key.split("/")[0] for key in table["key"].to_pylist()]
    assert table["label"].to_pylist() == labels
    (row,) = table.filter(table["error"].is_valid()).to_pylist()
    assert row["key"] == f"ape/{BROKEN}.png"
    assert "is not a usable image" in row["error"]
    assert row["features"] is None
    assert results[0].remarks[0].startswith("RANDOM WEIGHTS")
    record = json.loads(table.schema.metadata[b"image_model_zoo"])
    assert record["model"] == "handle"
    assert record["preprocessing"]["height"] == SIZE
    assert set(record["versions"]) == {"tensorflow", "numpy", "pyarrow"}


@pytest.mark.ci
def test_logits_equal_those_of_the_evaluation(pair, photographs):
    folder = pair / "classification" / "1"
    task = tasks.task_of(folder, photographs, ["logits", "top5"])
    table, _ = rows_of(task)
    classifier, logits = predict.Classifier(folder), []

    def call(images):
        logits.append(classifier.logits(images))
        return logits[-1]

    evaluation.evaluate_split(
        lambda images: call(images)[:, :2],
        task.images,
        classes=task.images.classes,
        preprocessing=classifier.preprocessing,
        batch_size=task.job.batch_size,
        announce=False,
    )
    readable = [n for n in range(20) if n != BROKEN]
    np.testing.assert_array_equal(
        matrix(table, "logits"), np.concatenate(logits)[readable]
    )
    for top, row in zip(table["top5"].to_pylist(), np.concatenate(logits), strict=True):
        if top:
            best = np.argsort(-row, kind="stable")[:5]
            assert [entry["index"] for entry in top] == best.tolist()
            assert top[0]["name"] == classifier.classes[best[0]][1]
    assert table["top5"][BROKEN].as_py() is None


@pytest.mark.ci
def test_all_outputs_of_one_call_equal_those_of_single_ones(pair, photographs):
    classifier = pair / "classification" / "1"
    names = ["features", "logits", "top5", "stage_2"]
    table, _ = rows_of(tasks.task_of(classifier, photographs, names))
    for name, folder in (
        ("features", pair / "feature_vector" / "1"),
        ("features", classifier),
        ("logits", classifier),
        ("stage_2", pair / "feature_vector" / "1"),
    ):
        alone, _ = rows_of(tasks.task_of(folder, photographs, [name]))
        np.testing.assert_array_equal(matrix(alone, name), matrix(table, name))
    shape = json.loads(table.schema.field("stage_2").metadata[b"shape"])
    assert np.prod(shape) == matrix(table, "stage_2").shape[1]
    assert len(shape) == 3


@pytest.mark.ci
def test_numbers_may_be_stored_in_half_the_bytes(pair, photographs):
    folder = pair / "feature_vector" / "1"
    full, _ = rows_of(tasks.task_of(folder, photographs, ["features"]))
    half, _ = rows_of(tasks.task_of(folder, photographs, ["features"], dtype="float16"))
    expected = matrix(full, "features").astype(np.float16)
    assert matrix(half, "features").dtype == np.float16
    np.testing.assert_array_equal(matrix(half, "features"), expected)


@pytest.mark.ci
def test_the_shards_do_not_change_the_rows(pair, photographs):
    folder = pair / "feature_vector" / "1"
    first, _ = rows_of(tasks.task_of(folder, photographs, ["features"]))
    second, _ = rows_of(tasks.task_of(folder, photographs, ["features"], shard_rows=20))
    assert first.replace_schema_metadata() == second.replace_schema_metadata()
    task = tasks.task_of(folder, photographs, ["features"])
    for order in ((0, 1, 2), (0, 2)):  # read ahead; the second one is read twice
        third, results = rows_of(task, order)
        assert third == first
        assert [result.errors for result in results] == [1, 0, 0]


def test_all_batches_have_one_size(pair, photographs):
    """Small ones are filled up by their first image, be it broken."""
    task = tasks.task_of(
        pair / "feature_vector" / "1",
        photographs,
        ["features"],
        batch_size=10,
        shard_rows=BROKEN,
    )
    computing, shapes = worker.Worker(task), []
    call = computing._call

    def spy(images):
        shapes.append(tuple(images.shape))
        return call(images)

    computing._call = spy
    assert [computing.compute(shard).errors for shard in range(3)] == [0, 1, 0]
    assert shapes == [(10, SIZE, SIZE, 3)] * 3


def test_the_first_batch_of_the_job_chooses_the_precision(
    pair, photographs, monkeypatch
):
    task = tasks.task_of(
        pair / "feature_vector" / "1", photographs, ["features"], precision="auto"
    )
    begun, read = [], worker.Worker._read

    def spy(self, numbers):
        begun.append(numbers)
        return read(self, numbers)

    monkeypatch.setattr(worker.Worker, "_read", spy)
    worker.Worker(task).compute(2)
    assert begun == [range(4), range(16, 20)]


@pytest.mark.parametrize(
    ("kind", "outputs", "message"),
    [
        ("feature_vector", ["logits"], "returns feature vectors; give the classifier"),
        ("feature_vector", ["features", "top5"], "has no logits: give the classifier"),
        ("classification", ["nothing"], "has no endpoint 'nothing'; it has default, f"),
    ],
)
def test_an_output_that_the_model_lacks_is_told(
    pair, photographs, kind, outputs, message
):
    task = tasks.task_of(pair / kind / "1", photographs, outputs)
    result = worker.Worker(task).compute(0)
    assert message in result.failure
    assert not result.data


def test_a_classifier_without_feature_vector_is_refused(tmp_path, photographs):
    root = tf.train.Checkpoint()
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
    root.__call__ = tf.function(
        lambda images: tf.nn.softmax(tf.reduce_mean(images, axis=(1, 2))), [spec]
    )
    tf.saved_model.save(root, str(tmp_path))
    result = worker.Worker(tasks.task_of(tmp_path, photographs, ["features"])).compute(
        0
    )
    assert "has no feature vector: it returns scores of classes" in result.failure


def test_another_projects_feature_vectors_are_taken_with_a_remark(
    tmp_path, photographs
):
    root = tf.train.Checkpoint()
    spec = tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32)
    root.__call__ = tf.function(
        lambda images: tf.reduce_mean(images, axis=(1, 2)), [spec]
    )
    tf.saved_model.save(root, str(tmp_path))
    table, results = rows_of(tasks.task_of(tmp_path, photographs, ["features"]))
    assert any("that is taken for feature vectors" in r for r in results[0].remarks)
    assert matrix(table, "features").shape == (19, 3)


def test_a_row_of_a_list_tells_why_its_image_can_not_be_fetched(
    pair, photographs, tmp_path
):
    lines = [f"{photographs}/cat/{number}.png" for number in range(5)]
    lines += [f"{photographs}/ape/{BROKEN}.png", "none.png", "http://u:secret@h:0/?k=1"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    task = tasks.task_of(
        pair / "feature_vector" / "1", f"list:{tmp_path}/list.txt", ["features"]
    )
    assert task.first_path == lines[0]
    table, results = rows_of(task, order=[0])
    assert results[0].errors == 3
    assert table["key"].to_pylist() == [*lines[:7], "http://h:0/"]
    assert table["label"].null_count == 8
    *none, broken, missing, refused = table["error"].to_pylist()
    assert none == [None] * 5
    assert broken.startswith(f"{lines[5]} is not a usable image: ")
    assert missing == f"{tmp_path}/none.png: it is missing."
    assert refused == "http://h:0/: it is not a valid URL, or leads to none."
    assert len(matrix(table, "features")) == 5
    assert b"secret" not in results[0].data


def test_images_that_a_machine_does_not_see_are_told(pair, photographs):
    task = tasks.task_of(pair / "feature_vector" / "1", photographs, ["features"])
    moved = dataclasses.replace(task, first_path="/nowhere/0.png")
    result = worker.Worker(moved).compute(0)
    assert "/nowhere/0.png is missing on" in result.failure


INTERRUPTED = """
import threading, time
from bulk import worker
from exporters import manifest
begun = threading.Event()
def read(numbers):
    begun.set()
    time.sleep(60)
ahead = worker._ReadAhead(read)
threading.Thread(target=lambda: ahead.take(range(1), [range(1), range(1, 2)]),
                 daemon=True).start()
begun.wait()
ahead.close()
print("closed", flush=True)
"""


def test_closing_and_the_end_of_the_process_do_not_wait_for_a_batch():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, timeout=20
    )
    assert done.stdout == b"closed\n"
    assert done.returncode == 0


def test_closing_ends_the_thread_and_what_is_queued():
    begun, release, read = threading.Event(), threading.Event(), []

    def read_slowly(numbers):
        read.append(numbers)
        begun.set()
        assert release.wait(10)
        return numbers

    ahead = worker._ReadAhead(read_slowly)
    batches = [range(n, n + 1) for n in range(3)]
    taking = threading.Thread(target=ahead.take, args=(batches[0], batches))
    taking.start()
    assert begun.wait(10)
    ahead.close()
    release.set()
    taking.join(10)
    (thread,) = ahead._thread.threads
    thread.join(10)
    assert not thread.is_alive()
    assert read == batches[:1]


def test_another_machine_gets_the_model_of_the_job(tmp_path, monkeypatch):
    """What lies there under the same path may be another model."""
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    here, data = tmp_path / "model", {"a/b.pb": b"new"}
    (here / "a").mkdir(parents=True)
    (here / "a" / "b.pb").write_bytes(b"new")
    model = manifest.content_hash(manifest.file_hashes(here))

    class Task:
        job = types.SimpleNamespace(model=model)
        folder, files = here, data

    assert worker._model_folder(Task) == here
    (here / "a" / "b.pb").write_bytes(b"old")
    sent = worker._model_folder(Task)
    assert sent == tmp_path / "tmp" / f"image_model_zoo-{model}"
    assert (sent / "a" / "b.pb").read_bytes() == b"new"
    assert worker._model_folder(Task) == sent
    (sent / "a" / "b.pb").write_bytes(b"evil")
    own = worker._model_folder(Task)
    assert own not in (here, sent)
    assert (own / "a" / "b.pb").read_bytes() == b"new"
    Task.files = None
    assert worker._model_folder(Task) == here
