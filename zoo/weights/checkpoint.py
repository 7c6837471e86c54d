"""Reads TensorFlow checkpoints: by the names of variables, or of objects.

The one module of this room that needs TensorFlow, and only when such a file is read.
"""

from __future__ import annotations

import pathlib
import typing

import numpy as np

from zoo.weights import lazy_tensor

_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read(prefix: pathlib.Path) -> dict[str, lazy_tensor.Tensor]:
    """The tensors of a checkpoint by the full names of their variables.

    Raises:
      ValueError: it is damaged.
    """
    reader, tensors = _open(prefix)
    if _OBJECTS not in tensors:
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
    except Exception as error:  # TensorFlow raises many kinds
        raise ValueError(
            f"{prefix} is not a usable TensorFlow checkpoint: {_first(error)}"
        ) from error
    return reader, tensors


def _by_full_name(
    reader: typing.Any, tensors: dict[str, lazy_tensor.Tensor], prefix: pathlib.Path
) -> dict[str, lazy_tensor.Tensor]:
    from tensorflow.core.protobuf import trackable_object_graph_pb2 as objects

    try:
        data = reader.get_tensor(_OBJECTS)
        graph = objects.TrackableObjectGraph.FromString(data)
        attributes = [a for node in graph.nodes for a in node.attributes]
        named = {a.full_name: tensors[a.checkpoint_key] for a in attributes}
    except Exception as error:  # so does protobuf
        raise ValueError(
            f"{prefix} has a damaged list of objects: {_first(error)}"
        ) from error
    if len(named) != len({a.checkpoint_key for a in attributes}):
        raise ValueError(f"{prefix} has two variables of one name.")
    return named


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
