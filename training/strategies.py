"""Selects the TensorFlow distribution strategy: the devices to train on."""

from __future__ import annotations

import json
import os

import keras
import tensorflow as tf

NAMES = ("auto", "one_device", "mirrored", "multi_worker")

_KINDS = ("chief", "worker")
_FIRST_PORT, _PORTS = 20_000, 10_000  # port range; each Slurm job uses its own port


def make(name: str) -> tf.distribute.Strategy:
    """Creates a strategy; must be called before TensorFlow is used in any other way.

    Args:
      name: one of `NAMES`. `auto` is `multi_worker` if `TF_CONFIG` or Slurm names
        several workers, `mirrored` if there are several GPUs, else `one_device`.

    Raises:
      ValueError: `TF_CONFIG` or a Slurm variable is invalid or missing, or several
        devices are requested with the JAX backend.
    """
    workers = _workers()
    if keras.backend.backend() != "tensorflow":
        if workers > 1 or name not in ("auto", "one_device"):
            raise ValueError(
                f"Several devices need Keras' TensorFlow backend, not "
                f"{keras.backend.backend()}: use --backend=tensorflow, or "
                "--strategy=one_device in a single process."
            )
        tf.config.set_visible_devices([], "GPU")  # TensorFlow only loads images
        return tf.distribute.get_strategy()
    if name == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        local = "mirrored" if len(gpus) > 1 else "one_device"
        name = "multi_worker" if workers > 1 else local
    if name == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            os.environ["TF_CONFIG"] = _slurm_tf_config()
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _workers() -> int:
    """Returns the number of worker processes, from `TF_CONFIG` or Slurm."""
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
                raise ValueError(f"tasks of type {kind!r} are not supported")
        if not 0 <= int(task["index"]) < len(cluster[task["type"]]):
            raise ValueError(
                f"the cluster has no {task['type']} with index {task['index']}"
            )
        return sum(map(len, cluster.values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG must have a cluster with tasks of type {' or '.join(_KINDS)}, "
            f"and the task of this process: {error}."
        ) from error


def _slurm_tf_config() -> str:
    """Returns the value of `TF_CONFIG` for this process of a Slurm job step.

    By default, TensorFlow's resolver calls `nvidia-smi` and assigns GPUs to tasks.
    Slurm has assigned them already, so the resolver gets one GPU per task and only
    determines the host names.

    Raises:
      ValueError: this process does not run in a Slurm job step.
    """
    for name in ("PROCID", "STEP_NUM_TASKS", "STEP_NODELIST", "STEP_TASKS_PER_NODE"):
        if f"SLURM_{name}" not in os.environ:
            raise ValueError(
                "--strategy=multi_worker needs TF_CONFIG or a Slurm job step (srun): "
                f"SLURM_{name} is not set."
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
    """Returns whether this process is the chief, which writes the files."""
    return worker(strategy)[0] == 0


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Returns the index of this worker, 0 for the chief, and the number of workers."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 0, 1
    cluster = resolver.cluster_spec().as_dict()
    tasks = [
        (kind, index) for kind in _KINDS for index in range(len(cluster.get(kind, ())))
    ]
    return tasks.index((resolver.task_type, int(resolver.task_id))), len(tasks)
