"""Tasks of workers, for tests."""

from bulk import job as jobs
from bulk import worker
from training.data import data_sources


def task_of(folder, source, outputs, *, batch_size=4, shard_rows=8, **settings):
    images = data_sources.open_all(str(source))
    job = jobs.Job(
        model="",
        images=images.fingerprint,
        count=images.size,
        outputs=tuple(outputs),
        batch_size=batch_size,
        shard_rows=shard_rows,
        **{"dtype": "float32", "precision": "float32", "input_range": None, **settings},
    )
    return worker.Task(
        job=job,
        images=images,
        source=images.source,
        folder=folder,
        files=None,
        handle="handle",
        first_path=images.first_path,
    )
