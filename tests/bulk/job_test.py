"""A job is divided into shards once, and its folder holds nothing else."""

import dataclasses
import json

import pytest

from bulk import job as jobs
from bulk import table

JOB = jobs.Job(
    model="m",
    images="i",
    count=10,
    outputs=("features",),
    dtype="float32",
    precision="float32",
    batch_size=4,
    input_range=None,
    shard_rows=4,
)


@pytest.mark.parametrize(
    ("count", "batch_size", "outputs", "rows"),
    [
        (1, 64, ["features"], 1024),
        (600, 100, ["features"], 1100),
        (30_000, 64, ["features"], 1920),
        (10**6, 64, ["features", "top5"], 4096),
        (10**6, 100, ["features"], 4100),
        (10**6, 64, ["features", "logits"], 1024),
        (10**6, 64, ["feature_map"], 256),
    ],
)
def test_a_shard_is_whole_batches(count, batch_size, outputs, rows):
    assert rows == jobs.rows_per_shard(count, batch_size=batch_size, outputs=outputs)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 10])
def test_each_image_is_in_one_shard(count):
    job = dataclasses.replace(JOB, count=count)
    numbers = [n for shard in range(job.shards) for n in job.numbers(shard)]
    assert numbers == [*range(count)]


def shard_of(job, shard):
    numbers = job.numbers(shard)
    columns = {
        "number": numbers,
        "key": [f"{n}.jpg" for n in numbers],
        "label": [None] * len(numbers),
        "error": ["no image" if n == 2 else None for n in numbers],
    }
    return table.encode(columns=columns, outputs={}, metadata={"job": job.to_json()})


def test_whole_shards_are_kept_and_damaged_ones_removed(tmp_path, caplog):
    folder = jobs.Folder(tmp_path)
    folder.begin(JOB)
    for shard in range(JOB.shards):
        folder.write_shard(shard, shard_of(JOB, shard))
    (tmp_path / ".part-00001.parquet-abc").write_bytes(b"half")
    assert folder.finished_shards(JOB) == {0: 1, 1: 0, 2: 0}
    cut = tmp_path / jobs.shard_name(0)
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / jobs.shard_name(2)).write_bytes(shard_of(JOB, 1))  # of other length
    with caplog.at_level("WARNING"):
        assert folder.finished_shards(JOB) == {1: 0}
    assert "part-00000.parquet is damaged, or of another job" in caplog.text
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        jobs.JOB_FILE,
        jobs.shard_name(1),
    ]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("model", "other", "another model"),
        ("images", "other", "other images"),
        ("outputs", ("logits",), "other --outputs"),
        ("dtype", "float16", "another --dtype"),
        ("precision", "auto", "another --precision"),
        ("batch_size", 2, "another --batch_size"),
        ("input_range", "0,255", "another --input_range"),
    ],
)
def test_another_job_is_refused(tmp_path, field, value, named):
    folder = jobs.Folder(tmp_path)
    other = dataclasses.replace(JOB, **{field: value})
    folder.begin(other)
    folder.begin(JOB)  # there are no results yet
    folder.write_shard(0, shard_of(JOB, 0))
    folder.begin(JOB)
    with pytest.raises(ValueError, match=f"was begun with {named}: give the same, or"):
        folder.begin(other)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "mine", "holds something else, such as notes.txt"),
        (jobs.JOB_FILE, "{", "_JOB.json is damaged"),
        (jobs.JOB_FILE, "[]", "_JOB.json is damaged"),
        (jobs.JOB_FILE, json.dumps({"format": 99}), "_JOB.json is damaged"),
        (jobs.JOB_FILE, json.dumps({"format": 1}), "_JOB.json is damaged"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        jobs.Folder(tmp_path).begin(JOB)
    assert (tmp_path / name).read_text() == text


def test_files_that_readers_would_read_too_are_refused(tmp_path):
    folder = jobs.Folder(tmp_path)
    folder.begin(JOB)
    (tmp_path / jobs.shard_name(3)).write_bytes(b"")  # there are three shards
    with pytest.raises(
        ValueError, match=r"also holds part-00003.parquet, which is not"
    ):
        folder.begin(JOB)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_mark_counts_as_none(tmp_path, text):
    (tmp_path / jobs.SUCCESS_FILE).write_text(text)
    assert jobs.Folder(tmp_path).success == {}


@pytest.mark.parametrize("field", ["images", "model", "batch_size"])
def test_a_shard_of_another_job_is_computed_again(tmp_path, field):
    folder = jobs.Folder(tmp_path)
    folder.begin(JOB)
    other = dataclasses.replace(JOB, **{field: 2 if field == "batch_size" else "x"})
    folder.write_shard(0, shard_of(other, 0))
    folder.write_shard(1, shard_of(JOB, 0))  # at the place of another one
    assert folder.finished_shards(JOB) == {}
    assert not list(tmp_path.glob("part-*"))


@pytest.mark.parametrize(
    "change", [{"shard_rows": 0}, {"shard_rows": "a"}, {"count": True}, {"format": 9}]
)
def test_an_impossible_job_is_damaged(tmp_path, change):
    folder = jobs.Folder(tmp_path)
    record = {**JOB.to_json(), **change}
    (tmp_path / jobs.JOB_FILE).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="_JOB.json is damaged"):
        folder.begin(JOB)


@pytest.mark.parametrize(
    "change",
    [
        *({"errors": -3}, {"errors": 11}, {"rows": 7}, {"count": 7}, {"handle": 1}),
        *({"shards": [5]}, {"shards": []}, {"source": None}, {"format": 9}),
    ],
)
def test_an_impossible_success_is_none(tmp_path, change):
    folder = jobs.Folder(tmp_path)
    shards = [jobs.shard_name(n) for n in range(JOB.shards)]
    record = {"handle": "h", "source": "s", "rows": 10, "errors": 0, "shards": shards}
    record = {**JOB.to_json(), **record}
    folder.finish(record)
    assert folder.success == record
    folder.finish({**record, **change})
    assert folder.success == {}
