"""Reads TensorFlow checkpoints, both name-based and object-based.

This is the only module of the package that needs TensorFlow; it imports TensorFlow when
it reads a checkpoint.
"""

from __future__ import annotations

import pathlib
import typing

import numpy as np

from zoo.weights import lazy_tensor

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read(prefix: pathlib.Path) -> dict[str, lazy_tensor.Tensor]:
    """Returns the tensors of a checkpoint by the full names of their variables.

    Raises:
      ValueError: the checkpoint is damaged.
    """
    reader, tensors = _open(prefix)
    if _OBJECT_GRAPH not in tensors:
        return tensors
    return _by_full_name(reader, tensors, prefix)


def _open(prefix: pathlib.Path) -> tuple[typing.Any, dict[str, lazy_tensor.Tensor]]:
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        dtypes = reader.get_variable_to_dtype_map()
        tensors = {
            key: lazy_tensor.Tensor(
                reader, key, tuple(shape), np.dtype(dtypes[key].as_numpy_dtype)
            )
            for key, shape in reader.get_variable_to_shape_map().items()
        }
    except Exception as error:  # TensorFlow raises exceptions of many types.
        raise ValueError(
            f"{prefix} is not a usable TensorFlow checkpoint: {_first_line(error)}"
        ) from error
    return reader, tensors


def _by_full_name(
    reader: typing.Any, tensors: dict[str, lazy_tensor.Tensor], prefix: pathlib.Path
) -> dict[str, lazy_tensor.Tensor]:
    from tensorflow.core.protobuf import trackable_object_graph_pb2 as objects

    try:
        data = reader.get_tensor(_OBJECT_GRAPH)
        graph = objects.TrackableObjectGraph.FromString(data)
        attributes = [a for node in graph.nodes for a in node.attributes]
        by_name = {a.full_name: tensors[a.checkpoint_key] for a in attributes}
    except Exception as error:  # Protobuf does too.
        raise ValueError(
            f"{prefix} has a damaged object graph: {_first_line(error)}"
        ) from error
    if len(by_name) != len({a.checkpoint_key for a in attributes}):
        raise ValueError(f"{prefix} has two variables with the same name.")
    return by_name


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
