"""Writes modules in the TF1 Hub format, for programs that still use `hub.Module`.

Such a module is a SavedModel with two graphs that share a checkpoint: one for inference
without tags, and one for training with the tag `train`. The image size is fixed. Graph
collections contain the regularization losses and the ops that update moving statistics;
a consumer has to run these ops.

Source: TensorFlow Hub's TF1 Hub format, and its common signatures for images.
"""

from __future__ import annotations

import pathlib
import typing

import keras
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from exporters import fused, manifest, output_names, reusable
from zoo import model as zoo_model

_TAGS: dict[bool, list[str]] = {False: [], True: ["train"]}  # tags by training mode
_MODULE = b"\x08\x03"  # contents of tfhub_module.pb: a ModuleDef of format 3
_ASSET_PATH = "SAVEDMODEL-ASSET"  # placeholder that loading replaces by the real path
_KEYS = tf.compat.v1.GraphKeys


class _Results(typing.NamedTuple):
    """Tensors that a graph computes: outputs by signature, regularization losses."""

    signatures: dict[str, output_names.Outputs]
    losses: list[tf.Tensor]


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both models into subfolders of `folder`, named by kind.

    Raises:
      OSError, OpError: a file can't be written, for example because the disk is full.
    """
    for kind in manifest.KINDS:
        _save(model, kind, folder / kind)


def _save(model: zoo_model.ImageModel, kind: str, folder: pathlib.Path) -> None:
    (folder / "variables").mkdir(parents=True)
    variables = model.parts[kind].weights
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables" / "variables"),
        tensor_names=[variable.path for variable in variables],
        shape_and_slices=[""] * len(variables),
        tensors=[variable.value for variable in variables],
    )
    (folder / "tfhub_module.pb").write_bytes(_MODULE)
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    saved.meta_graphs.extend(_variant(model, kind, training) for training in _TAGS)
    content = saved.SerializeToString(deterministic=True)
    (folder / "saved_model.pb").write_bytes(content)


def _variant(
    model: zoo_model.ImageModel, kind: str, training: bool
) -> meta_graph_pb2.MetaGraphDef:
    """Builds the graph of one mode, with its signatures and collections."""
    traced = _traced(model, kind, training)
    scope = type(model.spec).__name__
    with tf.Graph().as_default() as graph:
        (spec,) = traced.structured_input_signature[0]
        images = tf.compat.v1.placeholder(spec.dtype, spec.shape, spec.name)
        variables = {
            id(v.value.handle): _variable(v) for v in model.parts[kind].weights
        }
        results = _imported(traced, images, variables, scope)
        for loss in results.losses:
            graph.add_to_collection(_KEYS.REGULARIZATION_LOSSES, loss)
        for op in graph.get_operations():
            if op.type == "AssignVariableOp" and op.name.startswith(f"{scope}/"):
                graph.add_to_collection(_KEYS.UPDATE_OPS, op)
        asset = None
        if kind == "classification":
            asset = tf.constant(_ASSET_PATH, name="class_index")
            graph.add_to_collection(_KEYS.ASSET_FILEPATHS, asset)
        # Older TensorFlow versions reject unknown attributes, even default values.
        meta_graph = tf.compat.v1.train.export_meta_graph(strip_default_attrs=True)
        signatures = dict(results.signatures)
        signatures["default"] = signatures[f"image_{kind}"]
        for name, outputs in signatures.items():
            meta_graph.signature_def[name].CopyFrom(_signature(images, outputs))
        if asset is not None:
            _add_asset(meta_graph, asset.name)
    meta_graph.meta_info_def.tags.extend(_TAGS[training])
    return meta_graph


def _traced(model: zoo_model.ImageModel, kind: str, training: bool) -> typing.Any:
    """Traces all results of a graph as a concrete function."""
    part = model.parts[kind]
    architecture = type(model.spec).__name__
    size = model.spec.image_size

    @tf.function(autograph=False)
    def results(images: tf.Tensor) -> _Results:
        with fused.use_fused_ops(part, training=training):
            endpoints = model.endpoints(images, training=training)
            vector = output_names.feature_vector_outputs(architecture, endpoints)
            signatures = {"image_feature_vector": vector}
            if kind == "classification":
                logits = model.head(endpoints[model.head_input], training=training)
                signatures["image_classification"] = output_names.classifier_outputs(
                    architecture, endpoints, logits
                )
        losses = reusable.regularization_losses(model, part) if training else []
        return _Results(signatures, [loss.python_function() for loss in losses])

    return results.get_concrete_function(
        tf.TensorSpec([None, size, size, 3], tf.float32, "images")
    )


def _variable(variable: keras.Variable) -> tf.Variable:
    """Creates a zero-initialized copy of a variable in the current graph."""
    return tf.compat.v1.get_variable(
        variable.path,
        shape=variable.shape,
        dtype=variable.dtype,
        initializer=tf.compat.v1.zeros_initializer(),
        trainable=variable.trainable,
        use_resource=True,
    )


def _imported(
    traced: typing.Any,
    images: tf.Tensor,
    variables: dict[int, tf.Variable],
    scope: str,
) -> _Results:
    """Imports a concrete function into the current graph and returns its results.

    Args:
      traced: concrete function.
      images: argument of the function.
      variables: variables of the current graph, by the id of the handle of the variable
        that each one replaces.
      scope: name scope of the imported nodes.
    """
    input_map = {traced.inputs[0].name: images}
    for outside, inside in traced.graph.captures:
        input_map[inside.name] = variables[id(outside)].handle
    graph_def = traced.graph.as_graph_def()
    inputs = {name.partition(":")[0] for name in input_map}
    nodes = [node for node in graph_def.node if node.name not in inputs]
    results = {tensor.op.name for tensor in traced.outputs}
    for node in nodes:
        # The custom gradient exists only in this process. The gradient of the ops in
        # the function is the same.
        node.attr.pop("_gradient_op_type", None)
        if node.name in results:  # consumers run the updates, so don't wait for them
            node.input[:] = [name for name in node.input if not name.startswith("^")]
    del graph_def.node[:]
    graph_def.node.extend(nodes)
    tensors = tf.graph_util.import_graph_def(
        graph_def,
        input_map=input_map,
        return_elements=[tensor.name for tensor in traced.outputs],
        name=scope,
    )
    return tf.nest.pack_sequence_as(traced.structured_outputs, tensors)


def _signature(
    images: tf.Tensor, outputs: output_names.Outputs
) -> meta_graph_pb2.SignatureDef:
    def info(tensor: tf.Tensor) -> meta_graph_pb2.TensorInfo:
        return meta_graph_pb2.TensorInfo(
            name=tensor.name,
            dtype=tensor.dtype.as_datatype_enum,
            tensor_shape=tensor.shape.as_proto(),
        )

    return meta_graph_pb2.SignatureDef(
        inputs={"images": info(images)},
        outputs={name: info(tensor) for name, tensor in outputs.items()},
    )


def _add_asset(meta_graph: meta_graph_pb2.MetaGraphDef, tensor: str) -> None:
    """Registers the class index as an asset, whose path replaces `tensor` on load."""
    record = meta_graph_pb2.AssetFileDef(filename=manifest.CLASS_INDEX)
    record.tensor_info.name = tensor
    key = tf.compat.v1.saved_model.ASSETS_KEY
    meta_graph.collection_def[key].any_list.value.add().Pack(record)
