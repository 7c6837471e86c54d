"""Similar vectors are found, all of them or nearly all, and duplicates are grouped."""

import json
import pathlib

import numpy as np
import pyarrow
import pytest
import tensorflow as tf

from bulk import job as jobs
from bulk import search, table, vectors
from tests.bulk import job_test
from training.data import data_sources, tfrecords


def known_of(numbers):
    unit = vectors.normalised(np.asarray(numbers, np.float32), len(numbers))
    keys = pyarrow.array([f"{n}.jpg" for n in range(len(unit))])
    return vectors.Vectors(
        record={}, keys=keys, numbers=np.arange(len(unit)), unit=unit
    )


def random_vectors(count, length=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, length))


def test_a_query_finds_the_most_similar_first():
    known = known_of(random_vectors(300))
    cosines = known.unit[:3] @ known.unit.T
    found = search.found(known, known.unit[:3], 5)
    for number, row in enumerate(found):
        expected = np.argsort(-cosines[number])[:5]
        assert [item.number for item in row] == expected.tolist()
        assert row[0].key == f"{number}.jpg"
        assert row[0].similarity == 1
        similarities = [item.similarity for item in row]
        np.testing.assert_allclose(similarities, cosines[number][expected], atol=1e-5)


def test_of_equal_ones_the_first_is_named_and_no_more_than_there_are():
    known = known_of([[1, 0], [0, 1], [2, 0], [3, 0]])
    (row,) = search.found(known, known.unit[:1], 10)
    assert [item.number for item in row] == [0, 2, 3, 1]


@pytest.mark.parametrize("exact_below", [1000, 100])
def test_the_nearest_others_are_found(monkeypatch, exact_below):
    monkeypatch.setattr(vectors, "EXACT_BELOW", exact_below)
    unit = known_of(random_vectors(600)).unit
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines, axis=1)[:, :4]
    found = vectors.neighbours(unit, 4)
    hits = np.mean(
        [np.isin(e, f).mean() for e, f in zip(expected, found.indices, strict=True)]
    )
    if exact_below == 1000:
        assert found.recall is None
        assert hits == 1
    else:
        assert 0.5 < hits < 1  # random vectors are the hardest
        assert found.recall == pytest.approx(hits, abs=0.1)
    rows = np.arange(600)
    assert not (found.indices == rows[:, np.newaxis]).any()
    np.testing.assert_allclose(
        found.similarities[:, 0], cosines[rows, found.indices[:, 0]], atol=1e-3
    )


@pytest.mark.parametrize("exact_below", [1000, 100])
def test_planted_duplicates_are_grouped(monkeypatch, exact_below):
    monkeypatch.setattr(vectors, "EXACT_BELOW", exact_below)
    numbers = random_vectors(400, length=64)
    noise = 0.01 * random_vectors(400, length=64, seed=1)
    numbers[50] = numbers[10] + noise[50]
    numbers[300:340] = numbers[20]  # more equal ones than neighbours
    numbers[60] = numbers[20] + noise[60]
    numbers[7] = 0
    numbers[8] = 0
    groups, recall = search.duplicates(known_of(numbers), 0.95)
    assert (recall is None) == (exact_below == 1000)
    assert [[item.number for item in group] for group in groups] == [
        [20, 60, *range(300, 340)],
        [10, 50],
    ]
    assert all(item.similarity >= 0.95 for group in groups for item in group)


def test_copies_have_the_similarity_1():
    numbers = random_vectors(50, length=1280)
    numbers[[20, 30]] = numbers[10]
    groups, _ = search.duplicates(known_of(numbers), 1.0)
    assert [[item.number for item in group] for group in groups] == [[10, 20, 30]]


def test_a_chain_is_no_group():
    """Each is similar to the next, but the last is not to the first."""
    angles = np.radians([0, 15, 30, 45])
    known = known_of(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    groups, _ = search.duplicates(known, np.cos(np.radians(16)))
    assert [[item.number for item in group] for group in groups] == [[0, 1], [2, 3]]


def folder_of(path, features, errors=()):
    count = len(features)
    columns = {
        "number": range(count),
        "key": [f"{n}.jpg" for n in range(count)],
        "label": [None] * count,
        "error": ["broken" if n in errors else None for n in range(count)],
    }
    outputs = {"features": np.asarray(features, np.float32)}
    data = table.encode(columns=columns, outputs=outputs, metadata={})
    (path / jobs.shard_name(0)).write_bytes(data)
    record = {
        **job_test.JOB.to_json(),
        "count": count,
        "shard_rows": count,
        "handle": "handle",
        "source": "photographs",
        "shards": [jobs.shard_name(0)],
        "rows": count,
        "errors": len(errors),
    }
    (path / jobs.SUCCESS_FILE).write_text(json.dumps(record))
    return record


def changed(path, drop="", **fields):
    file = path / jobs.SUCCESS_FILE
    record = {**json.loads(file.read_text()), **fields}
    record.pop(drop, None)
    file.write_text(json.dumps(record))


def test_unreadable_images_are_left_out(tmp_path):
    folder_of(tmp_path, [[3, 4], [9, 9], [0, 2]], errors=[1])
    known = vectors.read(tmp_path)
    np.testing.assert_allclose(known.unit, [[0.6, 0.8], [0, 1]], rtol=1e-6)
    assert known.keys.to_pylist() == ["0.jpg", "2.jpg"]
    assert known.numbers.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p: (p / jobs.SUCCESS_FILE).unlink(),
            "not the finished output of tools",
        ),
        (
            lambda p: (p / jobs.shard_name(0)).unlink(),
            "is missing or damaged: delete ",
        ),
        (
            lambda p: (p / jobs.shard_name(0)).write_bytes(b"PAR1"),
            "is missing or damaged: delete it, and run tools/embed again",
        ),
        (
            lambda p: changed(p, outputs=["logits"]),
            "has no column features: embed with --outputs=features",
        ),
        (lambda p: changed(p, shards=3), "not the finished output of tools/embed"),
        (lambda p: changed(p, count="1"), "not the finished output of tools/embed"),
        (lambda p: changed(p, drop="model"), "not the finished output of tools/embed"),
        (lambda p: changed(p, drop="source"), "not the finished output of tools/embed"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, damage, message):
    folder_of(tmp_path, [[1, 2]])
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        vectors.read(tmp_path)


def test_a_folder_of_unreadable_images_is_told(tmp_path):
    folder_of(tmp_path, [[1, 2]], errors=[0])
    with pytest.raises(ValueError, match="has no feature vectors"):
        vectors.read(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either images, --text or --duplicates"),
        (["x.jpg", "--duplicates"], "give either images, --text or"),
        (["--duplicates=2"], "it must be in"),
        (["--duplicates", "--plot=x.jpg"], "--plot must end in .png or .svg"),
        (["--duplicates", "--k=0"], "--k"),
    ],
)
def test_wrong_usage_is_told_in_a_line(tool, tmp_path, arguments, message):
    done = tool("search", tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_duplicates_as_json(tool, tmp_path):
    folder_of(tmp_path, [[1, 0], [0, 1], [1, 0.01]])
    done = tool("search", tmp_path, "--duplicates", "--format=json")
    assert done.returncode == 0, done.stderr
    ((first, second),) = json.loads(done.stdout)
    assert first == {"key": "0.jpg", "similarity": 1.0}
    assert second["key"] == "2.jpg"
    assert second["similarity"] == pytest.approx(0.99995, abs=1e-4)
    assert "1 group: 1 of 3 images are near-duplicates of the first" in done.stderr
    assert pathlib.Path(tmp_path, jobs.SUCCESS_FILE).exists()


def test_a_plot_reads_records_as_they_were_embedded(tool, tmp_path):
    path = tmp_path / "images.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for shade in (0, 100, 200):
            example = tf.train.Example()
            data = tf.io.encode_png(np.full((8, 8, 3), shade, np.uint8)).numpy()
            example.features.feature["picture"].bytes_list.value.append(data)
            writer.write(example.SerializeToString())
    bindings = ["tfrecord.image='picture'"]
    features = tfrecords.features_from_bindings(bindings)
    images = data_sources.open_all(f"tfrecord:{path}", features)
    folder = tmp_path / "features"
    folder.mkdir()
    folder_of(folder, [[1, 0], [0, 1], [1, 0.01]])
    changed(folder, source=images.source, images=images.fingerprint)
    arguments = ("search", folder, "--duplicates", f"--plot={tmp_path}/plot.png")
    done = tool(*arguments)
    assert done.returncode == 2
    assert "has no field 'image/encoded'" in done.stderr
    changed(folder, gin_binding=bindings)
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plot.png").stat().st_size


def test_a_file_that_was_damaged_in_the_middle_is_told(tmp_path):
    """Bytes that can't be compressed are stored as they are, so any can be read."""
    values = np.frombuffer(np.random.default_rng(0).bytes(1 << 20), np.float32)
    values = values[np.abs(values) < 1e15][: 500 * 64]
    folder_of(tmp_path, values.reshape(500, 64))
    file = tmp_path / jobs.shard_name(0)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 99] = bytes(99)
    file.write_bytes(data)
    with pytest.raises(ValueError, match="is missing or damaged: delete it"):
        vectors.read(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"), [(1e6, "too large"), (1e-9, "too small"), (None, None)]
)
def test_numbers_that_float16_can_not_hold_are_refused(value, message):
    features = np.array([[1.0, 2.0], [value or 0.0, 0.0], [1e9, 1e9]])
    columns = {
        "number": range(3),
        "key": [*"abc"],
        "label": [None] * 3,
        "error": [None, None, "broken"],
    }

    def encode():
        table.encode(
            columns=columns,
            outputs={"features": features},
            dtype="float16",
            metadata={},
        )

    if message is None:
        encode()
        return
    with pytest.raises(ValueError, match=f"features has values that are {message}"):
        encode()
