"""Runs a model over all images of a source, and writes its outputs as Parquet files."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import typing

from bulk import engine, places, worker
from bulk import job as jobs
from exporters import manifest
from foundation import atomic, progress

if typing.TYPE_CHECKING:
    from training.data import split

_LOG = progress.logger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What to compute, of which images, and where.

    Attributes:
      folder: the model's folder.
      handle: name of the model, to be recorded.
      images: the images.
      source: where they are from, to be recorded.
      bindings: how TFRecord examples among them are read, to be recorded.
      output: the output folder.
      outputs: `features`, `logits`, `top5` and endpoints.
      dtype: `float32` or `float16`, the type of stored numbers.
      precision: of the computation, of `reuse.precision_names.ALL`.
      batch_size: images in a batch.
      input_range: range of pixel values, for models that do not declare it.
      place: where workers run.
      retry: whether to compute shards with unreadable images again.
    """

    folder: pathlib.Path
    handle: str
    images: split.Split
    source: str
    bindings: tuple[str, ...] = ()
    output: pathlib.Path
    outputs: tuple[str, ...]
    dtype: str
    precision: str
    batch_size: int
    input_range: str | None
    place: places.Place
    retry: bool = False


def run(request: Request) -> dict[str, typing.Any]:
    """Embeds the images that are not yet; returns what `_SUCCESS.json` holds.

    Raises:
      ValueError: the output folder holds something else, no image is readable, or the
        model or the cluster is not usable; the message is one line.
      OSError: a file can't be written.
    """
    start = time.monotonic()
    engine.load(request.place)
    with atomic.locked(request.output):
        folder, job = jobs.Folder(request.output), _job(request)
        folder.begin(job)
        done = folder.finished_shards(job)
        if request.retry:
            done = {shard: errors for shard, errors in done.items() if not errors}
        missing = [shard for shard in range(job.shards) if shard not in done]
        if not missing and folder.success:
            _LOG.info(f"{request.output} is complete already")
            return folder.success
        folder.remove_success()
        computed = 0
        if missing:
            if done:
                rows = sum(len(job.numbers(shard)) for shard in done)
                _LOG.info(f"going on: {rows} of {job.count} images are done")
            try:
                computed = _compute(request, job, folder, missing, done)
            finally:
                folder.abandon()
        errors = sum(done.values())
        if errors == job.count:
            raise ValueError(
                f"none of the {job.count} images can be read: the column error in "
                f"{request.output} says why."
            )
        seconds = time.monotonic() - start
        record = {
            **job.to_json(),
            "handle": request.handle,
            "source": request.source,
            "gin_binding": request.bindings,
            "rows": job.count,
            "errors": errors,
            "shards": [jobs.shard_name(shard) for shard in range(job.shards)],
            "last_run": {"images": computed, "seconds": round(seconds, 1)},
            "versions": worker.versions(),
        }
        folder.finish(record)
        return record


def _job(request: Request) -> jobs.Job:
    images = request.images
    return jobs.Job(
        model=manifest.content_hash(manifest.file_hashes(request.folder)),
        images=images.fingerprint,
        count=images.size,
        outputs=request.outputs,
        dtype=request.dtype,
        precision=request.precision,
        batch_size=request.batch_size,
        input_range=request.input_range,
        shard_rows=jobs.rows_per_shard(
            images.size, batch_size=request.batch_size, outputs=request.outputs
        ),
    )


def _compute(
    request: Request,
    job: jobs.Job,
    folder: jobs.Folder,
    missing: list[int],
    done: dict[int, int],
) -> int:
    """Computes and writes the missing shards, and adds them to `done`.

    Returns:
      The number of images in them.
    """
    total = sum(len(job.numbers(shard)) for shard in missing)
    first: tuple[float, int] | None = None  # time and images, when workers have begun
    known_repeats = 0

    def show(images: int, errors: int, repeats: int) -> None:
        nonlocal first, known_repeats
        if repeats > known_repeats:
            known_repeats = repeats
            _LOG.warning(f"a worker or a machine died: shards begun again: {repeats}")
        images = min(images, total)  # those of the dead are counted twice
        if not images:
            return
        now = time.monotonic()
        first = first or (now, images)
        rate = (images - first[1]) / max(now - first[0], 1e-3)
        left = f", {_duration((total - images) / rate)} left" if rate else ""
        unreadable = f", {errors} unreadable" if errors else ""
        progress.step(_LOG, images, total, f"{rate:.0f} images/s{left}{unreadable}")

    shards = f"{len(missing)} shard{'s' * (len(missing) > 1)}"
    _LOG.info(f"{total} images in {shards}")
    told: set[str] = set()
    task = _task(request, job)
    results = engine.run(task, missing, request.place, on_counts=show)
    with contextlib.closing(results):
        for result in results:
            if result.failure:
                raise ValueError(result.failure)
            for remark in result.remarks:
                if remark not in told:
                    told.add(remark)
                    _LOG.warning(remark)
            folder.write_shard(result.shard, result.data)
            done[result.shard] = result.errors
    if lost := [shard for shard in missing if shard not in done]:
        raise ValueError(
            f"Ray returned no results for {len(lost)} of {len(missing)} shards: run "
            "the same command again."
        )
    return total


def _task(request: Request, job: jobs.Job) -> worker.Task:
    files = None
    if not request.place.is_local:
        paths = [path for path in request.folder.rglob("*") if path.is_file()]
        files = {
            p.relative_to(request.folder).as_posix(): p.read_bytes() for p in paths
        }
    return worker.Task(
        job=job,
        images=request.images,
        source=request.source,
        folder=request.folder,
        files=files,
        handle=request.handle,
        first_path=request.images.first_path,
    )


def _duration(seconds: float) -> str:
    """Formats a duration as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
