"""Group T: modules in the TF1 Hub format.

Sources: https://www.tensorflow.org/hub/tf1_hub_module and
https://www.tensorflow.org/hub/common_signatures/images; for the files of a module, the
code of tensorflow-hub 0.15 that reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from conformance import clauses, graphs, model_under_test, numeric, verdict
from conformance.checks import reusable

_TRAIN = frozenset({"train"})
_INFERENCE: frozenset[str] = frozenset()
_FORMAT_3 = b"\x08\x03"  # first bytes of a ModuleDef of format 3
_DEFAULT = "default"
_KEYS = tf.compat.v1.GraphKeys
# hub.Module rejects a module with any other collection.
_COLLECTIONS = {
    *(_KEYS.GLOBAL_VARIABLES, _KEYS.TRAINABLE_VARIABLES, _KEYS.MODEL_VARIABLES),
    *(_KEYS.TABLE_INITIALIZERS, _KEYS.UPDATE_OPS, _KEYS.REGULARIZATION_LOSSES),
    *(_KEYS.ASSET_FILEPATHS, _KEYS.COND_CONTEXT, _KEYS.WHILE_CONTEXT),
    *("hub_module_attachments", tf.compat.v1.saved_model.ASSETS_KEY),
}
_FIX = "Write it as hub.create_module_spec of tensorflow-hub 0.15 does."


def t01_loads_as_module(model: model_under_test.ModelUnderTest) -> str:
    """Checks the files that hub.Module reads and the ops, then loads both variants."""
    head = (model.path / clauses.HUB_MODULE).read_bytes()[: len(_FORMAT_3)]
    if head != _FORMAT_3:
        _fail(f"a {clauses.HUB_MODULE} of format 3", f"a file beginning with {head!r}")
    with verdict.expecting("a readable saved_model.pb", fix=_FIX):
        _ = model.proto
    if not (model.path / "variables" / "variables.index").is_file():
        _fail("a checkpoint of the variables", "no file variables/variables.index")
    tags = [sorted(graph.meta_info_def.tags) for graph in model.proto.meta_graphs]
    if sorted(tags) != [[], ["train"]]:
        _fail("two graphs, one without tags and one tagged train", f"the tags {tags}")
    for graph in model.proto.meta_graphs:
        if unknown := sorted(graph.collection_def.keys() - _COLLECTIONS):
            _fail("only collections that hub.Module supports", f"{unknown[0]}")
    count = reusable.check_ops(model.proto)
    with verdict.expecting("a module with variants that load", fix=_FIX):
        _ = model.obj
        with _session(model, _TRAIN) as (_, graph):
            variables = graph.get_collection(_KEYS.GLOBAL_VARIABLES)
    return f"two variants, {len(variables)} variables, {count} op types"


def t02_has_signatures(model: model_under_test.ModelUnderTest) -> str:
    """Checks the signatures of both variants, then calls those of the untagged one.

    The default signature must return the output of the signature named after the task.
    """
    task = f"image_{model.kind}"
    names = [_DEFAULT, f"image_{clauses.FEATURE_VECTOR}"]
    if model.kind == clauses.CLASSIFICATION:
        names.append(task)
    for tags, graph in _variants(model).items():
        variant = "the train variant" if tags else "the variant without tags"
        for name in names:
            _check_signature(graph.signature_def, name, variant)
    size = _size(model)[0]
    images = model.images(2, size=size or (224, 224), spec=_IMAGES)
    default, named = (
        model.signatures[name](images=images)[_DEFAULT] for name in (_DEFAULT, task)
    )
    difference = numeric.relative_difference(default, named)
    if difference > clauses.TOLERANCE:
        _fail(
            f"the default signature to return the output of {task}",
            f"a relative difference of {difference:.1e}",
        )
    return f"{', '.join(names)} in both variants; difference {difference:.1e}"


_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32)


def _check_signature(signatures: Mapping[str, Any], name: str, variant: str) -> None:
    if name not in signatures:
        names = ", ".join(sorted(signatures)) or "none"
        _fail(f"a signature {name} in {variant}", f"the signatures {names}")
    inputs, outputs = signatures[name].inputs, signatures[name].outputs
    if set(inputs) != {"images"}:
        keys = ", ".join(sorted(inputs))
        _fail(f"signature {name} with the one input key images", f"the keys {keys}")
    if inputs["images"].dtype != tf.float32.as_datatype_enum:
        dtype = tf.as_dtype(inputs["images"].dtype).name
        _fail(f"signature {name} to take float32 images", dtype)
    if _DEFAULT not in outputs:
        keys = ", ".join(sorted(outputs))
        _fail(f"signature {name} with the output key {_DEFAULT}", f"the keys {keys}")
    shape = tf.TensorShape(outputs[_DEFAULT].tensor_shape)
    if shape.rank != 2 or shape[1] is None:
        _fail(
            f"signature {name} to return [batch, K] with a constant K",
            f"the shape {shape}",
        )


def t03_has_one_size(model: model_under_test.ModelUnderTest) -> str:
    """Checks the shape of the images in every signature, then calls two batch sizes."""
    size, shapes = _size(model)
    if size is None:
        _fail(
            "one fixed height and width, and a free batch dimension (None), in every "
            "signature",
            ", ".join(sorted(set(map(str, shapes)))),
        )
    for side, name in zip(size, ("height_range", "width_range"), strict=True):
        low, high = model.documented.get(name) or (side, side)
        if not (low or 0) <= side <= (high or side):
            _fail(f"the documented {name}, {low} to {high}", f"a fixed {side}")
    for batch in (1, 2):
        images = model.images(batch, size=size, spec=_IMAGES)
        output = model.signatures[_DEFAULT](images=images)[_DEFAULT]
        if output.shape[0] != batch:
            _fail(f"{batch} rows for {batch} images", f"the shape {output.shape}")
    return f"{size[0]}x{size[1]} pixels in {len(shapes)} signatures"


def _size(
    model: model_under_test.ModelUnderTest,
) -> tuple[tuple[int, int] | None, list[tf.TensorShape]]:
    """Returns the common (height, width) of signatures, and their image shapes.

    Signatures without an input `images` are left out. The size is None if the
    signatures differ, or if a shape does not fix the size.
    """
    shapes = [
        tf.TensorShape(signature.inputs["images"].tensor_shape)
        for graph in model.proto.meta_graphs
        for signature in graph.signature_def.values()
        if "images" in signature.inputs
    ]
    first = shapes[0]
    is_fixed = first.rank == 4 and first[0] is None and first[1] and first[2]
    is_common = is_fixed and all(s.as_list() == first.as_list() for s in shapes)
    return ((first[1], first[2]) if is_common else None), shapes


def t04_fills_collections(model: model_under_test.ModelUnderTest) -> str:
    """Checks the update ops and the losses, and that features have no dropout.

    An op that assigns a value computed from images must be in the collection of update
    ops, and in the train variant only. A loss must not depend on images: hub.Module
    computes losses without them. A module without losses passes.
    """
    variants = _variants(model)
    if updates := _updates(variants[_INFERENCE]):
        _fail("no updates in the variant without tags", f"the update {updates[0]}")
    graph = variants[_TRAIN]
    updates = _updates(graph)
    nodes = {node.name: node for node in graph.graph_def.node}
    collected = graphs.upstream(_collection(graph, _KEYS.UPDATE_OPS), nodes)
    if missing := [name for name in updates if name not in collected]:
        _fail(
            f"{missing[0]} in the collection update_ops",
            f"{len(missing)} update ops outside it",
        )
    losses = _collection(graph, _KEYS.REGULARIZATION_LOSSES)
    for name in losses:
        if _placeholders(graph) & graphs.upstream([name], nodes):
            _fail("losses that do not depend on images", f"the loss {name}, which does")
    signatures = graph.signature_def
    features = signatures[f"image_{clauses.FEATURE_VECTOR}"].outputs[_DEFAULT].name
    random_ops = graphs.random_ops_on([features], graph.graph_def)
    with _session(model, _TRAIN) as (session, loaded_graph):
        _check_losses(session, loaded_graph)
        if random_ops:
            _check_features(session, signatures, features, random_ops)
    return f"{len(updates)} update ops, {len(losses)} losses, no dropout on features"


def _updates(graph: Any) -> list[str]:
    """Returns the names of the nodes that assign a value computed from images."""
    nodes = {node.name: node for node in graph.graph_def.node}
    inputs = _placeholders(graph)
    return [
        name
        for name, node in nodes.items()
        if node.op.startswith("Assign") and inputs & graphs.upstream([name], nodes)
    ]


def _placeholders(graph: Any) -> set[str]:
    """Returns the names of the nodes that feed the inputs of signatures."""
    return {
        tensor.name.partition(":")[0]
        for signature in graph.signature_def.values()
        for tensor in signature.inputs.values()
    }


def _check_losses(session: Any, graph: tf.Graph) -> None:
    variables = graph.get_collection(_KEYS.TRAINABLE_VARIABLES)
    for loss in graph.get_collection(_KEYS.REGULARIZATION_LOSSES):
        if loss.dtype != tf.float32 or loss.shape.rank != 0:
            _fail("scalar float32 losses", f"{loss.dtype.name} {loss.shape}")
        if not np.isfinite(session.run(loss)):
            _fail("finite losses", f"{loss.name}, which is infinite or NaN")
        if not any(g is not None for g in tf.compat.v1.gradients(loss, variables)):
            _fail(
                "losses with a gradient to a variable",
                f"{loss.name}, which has no gradient",
            )


def _check_features(
    session: Any, signatures: Mapping[str, Any], features: str, random_ops: set[str]
) -> None:
    info = signatures[f"image_{clauses.FEATURE_VECTOR}"].inputs["images"]
    shape = [side if side > 0 else 2 for side in _sides(info)]
    images = np.random.default_rng(0).random(shape, np.float32)
    first, second = (session.run(features, {info.name: images}) for _ in range(2))
    if numeric.relative_difference(first, second) > clauses.TOLERANCE:
        _fail(
            "no dropout on image_feature_vector in the train variant",
            f"features that differ between calls, and {', '.join(sorted(random_ops))}",
        )


def _sides(info: Any) -> list[int]:
    return [dimension.size for dimension in info.tensor_shape.dim]


def _collection(graph: Any, name: str) -> list[str]:
    return list(graph.collection_def[name].node_list.value)


def _variants(model: model_under_test.ModelUnderTest) -> dict[frozenset[str], Any]:
    """Returns both graphs by their tags."""
    return {frozenset(g.meta_info_def.tags): g for g in model.proto.meta_graphs}


@contextlib.contextmanager
def _session(
    model: model_under_test.ModelUnderTest, tags: frozenset[str]
) -> Iterator[tuple[Any, tf.Graph]]:
    """Yields a session and its graph with one variant loaded and variables restored."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        loader = tf.compat.v1.saved_model.load
        loader(session, list(tags), str(model.path))
        yield session, graph


def _fail(expected: str, observed: str) -> NoReturn:
    raise verdict.Violation(expected=expected, observed=observed, fix=_FIX)
