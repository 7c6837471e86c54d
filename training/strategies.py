"""Which devices take part in a training."""

from __future__ import annotations

import json
import os

import keras
import tensorflow as tf

NAMES = ("auto", "one_device", "mirrored", "multi_worker")

_KINDS = ("chief", "worker")
_FIRST_PORT, _PORTS = 20_000, 10_000  # of Slurm's jobs, each with its own


def make(name: str) -> tf.distribute.Strategy:
    """The strategy of a name; before anything else is done with TensorFlow.

    Args:
      name: `auto` is `multi_worker` where `TF_CONFIG` or Slurm names several workers,
        `mirrored` where there are several GPUs, else `one_device`.

    Raises:
      ValueError: `TF_CONFIG` can't be meant, there are no workers, or JAX is asked for
        several devices.
    """
    workers = _workers()
    if keras.backend.backend() != "tensorflow":
        if workers > 1 or name not in ("auto", "one_device"):
            raise ValueError(
                f"Several devices want Keras' TensorFlow backend, not "
                f"{keras.backend.backend()}: give --backend=tensorflow or "
                "--strategy=one_device, to one process."
            )
        tf.config.set_visible_devices([], "GPU")  # TensorFlow has the images alone
        return tf.distribute.get_strategy()
    if name == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        one = "mirrored" if len(gpus) > 1 else "one_device"
        name = "multi_worker" if workers > 1 else one
    if name == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            os.environ["TF_CONFIG"] = _of_slurm()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _workers() -> int:
    """How many machines, or processes, there are to take part."""
    text = os.environ.get("TF_CONFIG")
    if text is None:
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
        if not tasks.isdecimal():
            raise ValueError(f"SLURM_STEP_NUM_TASKS must be a number, not {tasks!r}.")
        return int(tasks)
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        for kind in cluster:
            if kind not in _KINDS:
                raise ValueError(f"there is no use for {kind!r}")
        if not 0 <= int(task["index"]) < len(cluster[task["type"]]):
            raise ValueError(f"the cluster has no {task['type']} {task['index']}")
        return sum(map(len, cluster.values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG must name a cluster of {' and '.join(_KINDS)}, and the task in "
            f"it: {error}."
        ) from error


def _of_slurm() -> str:
    """What `TF_CONFIG` would be in this Slurm step.

    TensorFlow's resolver by itself wants `nvidia-smi`, and gives GPUs to tasks, which
    Slurm has done already: it is told that each task has one, and asked for names.

    Raises:
      ValueError: there is no such step.
    """
    for name in ("PROCID", "STEP_NUM_TASKS", "STEP_NODELIST", "STEP_TASKS_PER_NODE"):
        if f"SLURM_{name}" not in os.environ:
            raise ValueError(
                "--strategy=multi_worker wants TF_CONFIG, or a step of Slurm (srun): "
                f"there is no SLURM_{name}."
            )
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=_FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % _PORTS,
        gpus_per_node=_workers(),
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    cluster = resolver.cluster_spec().as_dict()
    task = {"type": resolver.task_type, "index": resolver.task_id}
    return json.dumps({"cluster": cluster, "task": task})


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes."""
    return worker(strategy)[0] == 0


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """The index of this worker, and how many there are: a chief is the first."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 0, 1
    cluster = resolver.cluster_spec().as_dict()
    tasks = [
        (kind, index) for kind in _KINDS for index in range(len(cluster.get(kind, ())))
    ]
    return tasks.index((resolver.task_type, int(resolver.task_id))), len(tasks)
