"""What a job computes, how it is divided, and the folder that it writes.

A job is divided into shards of consecutive images before it begins, so that any process
may compute any shard, at any time, with the same result. The folder has a Parquet file
for each finished shard, `_JOB.json` from the start, and `_SUCCESS.json` at the end.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing
from collections.abc import Iterable, Mapping

from bulk import table
from foundation import atomic, progress
from reuse import output_names

JOB_FILE, SUCCESS_FILE = "_JOB.json", "_SUCCESS.json"

_LOG = progress.logger(__name__)
_FORMAT = 1
# Images in a shard: few enough that workers share them, enough to be worth a start, and
# no more than an interruption may cost and memory may hold, which the output decides.
_LEAST_SHARDS = 16
_LEAST_ROWS = 1024
_MAX_ROWS = {output_names.FEATURES: 4096, table.TOP5: 4096, output_names.LOGITS: 1024}
_MAX_ENDPOINT_ROWS = 256
_DIFFERENCES = {
    "model": "another model",
    "images": "other images",
    "outputs": "other --outputs",
    "dtype": "another --dtype",
    "precision": "another --precision",
    "batch_size": "another --batch_size",
    "input_range": "another --input_range",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a job computes. Two jobs that are equal write the same rows.

    Attributes:
      model: SHA-256 of the model's files.
      images: fingerprint of the images.
      count: number of images.
      outputs: names of the outputs.
      dtype: type of stored numbers, `float32` or `float16`.
      precision: precision of the computation, of `reuse.precision_names.ALL`.
      batch_size: images in a batch.
      input_range: range of pixel values, if the user gave one.
      shard_rows: images in a shard; the last may have fewer.
    """

    model: str
    images: str
    count: int
    outputs: tuple[str, ...]
    dtype: str
    precision: str
    batch_size: int
    input_range: str | None
    shard_rows: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_rows)

    def numbers(self, shard: int) -> range:
        """Returns the numbers of a shard's images."""
        return range(
            shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.count)
        )

    def batches(self, shard: int) -> list[range]:
        """Returns the numbers of the images of each of a shard's batches."""
        numbers, size = self.numbers(shard), self.batch_size
        return [numbers[i : i + size] for i in range(0, len(numbers), size)]

    def to_json(self) -> dict[str, typing.Any]:
        record = dataclasses.asdict(self)
        return {"format": _FORMAT, **record, "outputs": [*self.outputs]}

    @classmethod
    def from_json(cls, record: Mapping[str, typing.Any]) -> Job:
        """Returns the job of a record, which may have more fields.

        Raises:
          ValueError, TypeError, LookupError: it is not a valid one.
        """
        fields = {field.name: record[field.name] for field in dataclasses.fields(cls)}
        job = cls(**{**fields, "outputs": tuple(record["outputs"])})
        sizes = (job.count, job.batch_size, job.shard_rows)
        are_counts = all(type(size) is int and size > 0 for size in sizes)
        if record["format"] != _FORMAT or not are_counts:
            raise ValueError
        return job


def rows_per_shard(count: int, *, batch_size: int, outputs: Iterable[str]) -> int:
    """Returns how many images a shard has: a multiple of the batch size.

    Args:
      count: number of images.
      batch_size: images in a batch.
      outputs: names of the outputs; those that may be long make shards of fewer images.
    """
    most = min(_MAX_ROWS.get(name, _MAX_ENDPOINT_ROWS) for name in outputs)
    rows = min(most, max(_LEAST_ROWS, -(-count // _LEAST_SHARDS)))
    return max(1, -(-rows // batch_size)) * batch_size


class Folder:
    """The output folder of a job, locked by this process.

    Args:
      path: the folder; it may be missing.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def read_job(self) -> Job | None:
        """Returns the job that was begun here; None if the folder is empty.

        Raises:
          ValueError: the folder holds something else.
        """
        names = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
        if not names:
            return None
        try:
            record = json.loads((self.path / JOB_FILE).read_text(encoding="utf-8"))
            job = Job.from_json(record)
        except FileNotFoundError:
            raise ValueError(
                f"--output: {self.path} holds something else, such as {min(names)}: "
                "give an empty or a new folder."
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                f"{self.path / JOB_FILE} is damaged, or of another version: give "
                "another --output."
            ) from None
        known = {JOB_FILE, SUCCESS_FILE, *map(shard_name, range(job.shards))}
        if others := sorted(set(names) - known):
            raise ValueError(
                f"--output: {self.path} also holds {others[0]}, which is not of this "
                "job: move it away, since it would be read with the results."
            )
        return job

    def begin(self, job: Job) -> None:
        """Records the job, or checks that it is the one that was begun here.

        Raises:
          ValueError: another job was begun here.
        """
        begun = self.read_job()
        if begun is None or not any(self.path.glob("part-*")):  # nothing would be lost
            text = json.dumps(job.to_json(), indent=2)
            atomic.write_file(self.path / JOB_FILE, text)
            return
        for name, difference in _DIFFERENCES.items():
            if getattr(begun, name) != getattr(job, name):
                raise ValueError(
                    f"--output: {self.path} was begun with {difference}: give the "
                    "same, or another --output."
                )

    def finished_shards(self, job: Job) -> dict[int, int]:
        """Returns the shards that are there and whole, with their numbers of errors.

        Removes damaged ones, and the unfinished files of a process that was killed.
        """
        for name in (JOB_FILE, SUCCESS_FILE, "part"):
            for path in self.path.glob(f".{name}*"):
                path.unlink()
        finished = {}
        for shard in range(job.shards):
            path = self.path / shard_name(shard)
            if not path.exists():
                continue
            summary = table.summarize(path)
            numbers = job.numbers(shard)
            if (
                summary
                and (summary.rows, summary.first) == (len(numbers), numbers[0])
                and summary.job == job.to_json()
            ):
                finished[shard] = summary.errors
            else:
                _LOG.warning(
                    f"{path} is damaged, or of another job: its images are computed "
                    "again"
                )
                path.unlink()
        return finished

    def write_shard(self, shard: int, data: bytes) -> None:
        """Writes a finished shard.

        Raises:
          OSError: it can't be written.
        """
        atomic.write_file(self.path / shard_name(shard), data)

    def finish(self, record: Mapping[str, typing.Any]) -> None:
        """Marks the job as complete."""
        text = json.dumps(record, indent=2, ensure_ascii=False)
        atomic.write_file(self.path / SUCCESS_FILE, text)

    @property
    def success(self) -> dict[str, typing.Any]:
        """What `finish` has written; empty if that is missing or damaged."""
        try:
            record = json.loads((self.path / SUCCESS_FILE).read_text(encoding="utf-8"))
            job = Job.from_json(record)
            is_whole = (
                isinstance(record["handle"], str)
                and isinstance(record["source"], str)
                and record["shards"] == [*map(shard_name, range(job.shards))]
                and record["rows"] == job.count
                and 0 <= record["errors"] <= job.count
            )
        except (OSError, ValueError, TypeError, LookupError):
            return {}
        return record if is_whole else {}

    def abandon(self) -> None:
        """Removes the record of a job that has no results yet."""
        if not any(self.path.glob("part-*")):
            (self.path / JOB_FILE).unlink(missing_ok=True)

    def remove_success(self) -> None:
        """Removes the mark of a complete job, because shards are missing."""
        (self.path / SUCCESS_FILE).unlink(missing_ok=True)


def shard_name(shard: int) -> str:
    """Returns the file name of a shard."""
    return f"part-{shard:05}.parquet"
