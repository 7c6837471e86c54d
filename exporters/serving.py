"""Writes SavedModels for serving alone: constants, and no graph for training.

Signatures, with B images:

  serving_default       images [B, H, W, 3] in [0, 1] -> default: logits or features
  image_feature_vector  images -> default: features
  image_bytes           image_bytes [B], encoded images -> default: logits or features
  classify              image_bytes, k (5 unless given) -> the k likeliest classes of
                        each image: classes (names), ids, and scores (probabilities)

TensorFlow Serving fills in the default of `k`; in Python, `model.classify` does.

Two functions are no signatures. A server in Python calls them to decode each image of a
batch by itself, so that a damaged one fails alone:

  model.preprocess       image_bytes -> images, for any signature that takes these
  model.classify_images  images, k -> as `classify`
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import typing
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import PIL.Image
import tensorflow as tf

from exporters import (
    comparison,
    formats,
    frozen,
    graph_cleanup,
    manifest,
    saved_model,
)
from foundation import warmup_requests
from images import model_input
from zoo import model as zoo_model
from zoo import taxonomy

_K = 5  # classes that `classify` returns by default
_LIMIT = 1e-4  # see `comparison.ConvertedModel`; folded kernels round once more
_MOST_BYTES = 2**31 - 2**20  # of constants: a protobuf holds less than 2 GiB
_BYTES = tf.TensorSpec([None], tf.string, "image_bytes")
_NUMBER = tf.TensorSpec([], tf.int32, "k")
_new_root = tf.__internal__.tracking.AutoTrackable


def save(
    model: zoo_model.ImageModel,
    folder: pathlib.Path,
    *,
    compiled_batches: Sequence[int] = (),
) -> None:
    """Writes both models into subfolders of `folder`, named by kind.

    Args:
      model: the model.
      folder: an existing folder.
      compiled_batches: batch sizes that XLA compiles the model for when it is warmed
        up; others are compiled when they are first used. Without them, XLA is not used.

    Raises:
      ValueError: the weights have 2 GiB or more.
      OSError, OpError: a file can't be written, for example because the disk is full.
    """
    size = sum(
        4 * int(np.prod(variable.shape)) for variable in model.classifier.weights
    )
    if size > _MOST_BYTES:
        raise ValueError(
            f"A model for serving holds weights up to 2 GiB; these have {size} bytes."
        )
    for kind in manifest.KINDS:
        root, signatures = _build(model, kind, compiled=bool(compiled_batches))
        tf.saved_model.save(root, str(folder / kind), signatures)
        graph_cleanup.clean_up(folder / kind)
        saved_model.make_fingerprint_deterministic(folder / kind / "fingerprint.pb")
        path = folder / kind / warmup_requests.FILE
        path.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            batches = compiled_batches or (1,)
            for record in _warmup_records(signatures, model.spec.image_size, batches):
                writer.write(record)


def _build(
    model: zoo_model.ImageModel, kind: str, *, compiled: bool
) -> tuple[typing.Any, dict[str, typing.Any]]:
    """Builds the root object and the signatures; they share one frozen function."""
    shape = formats.SERVING.input_shape(model.spec)
    images_spec = tf.TensorSpec(shape, tf.float32, "images")

    def infer(images: tf.Tensor) -> list[tf.Tensor]:
        if model.spec.only_size:  # signatures don't check the shapes of their inputs
            images = tf.ensure_shape(images, shape)
        endpoints = model.endpoints(images, training=False)
        if kind == "feature_vector":
            return [endpoints["feature_vector"]]
        logits = model.head(endpoints[model.head_input], training=False)
        return [logits, endpoints["feature_vector"]]

    folded = frozen.fold(model, infer, shape)
    if compiled:
        folded = tf.function(
            folded, input_signature=[images_spec], autograph=False, jit_compile=True
        )

    def function(images: tf.Tensor) -> list[tf.Tensor]:
        return folded(_not_empty(images))

    root = _new_root()
    root.preprocess = _preprocessing(model).named_callable()
    preprocess = root.preprocess.__call__

    @tf.function(input_signature=[images_spec], autograph=False)
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(images)[0]}

    @tf.function(input_signature=[images_spec], autograph=False)
    def image_feature_vector(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(images)[-1]}

    @tf.function(input_signature=[_BYTES], autograph=False)
    def image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"default": function(preprocess(image_bytes))[0]}

    signatures = {
        "serving_default": serving_default,
        "image_feature_vector": image_feature_vector,
        "image_bytes": image_bytes,
    }
    if kind == "classification":
        root.classify_images = _classify_images(
            model.taxonomy, lambda images: function(images)[0], images_spec
        )
        root.classify = _classify(model.taxonomy, preprocess, root.classify_images)
        signatures["classify"] = root.classify
    return root, signatures


def _not_empty(images: tf.Tensor) -> tf.Tensor:
    """Returns images; an empty batch raises InvalidArgumentError with the reason.

    Without that, convolutions of constants fail with messages on their channels.
    """
    message = "The batch has no images."
    with tf.control_dependencies(
        [tf.debugging.Assert(tf.shape(images)[0] > 0, [message])]
    ):
        return tf.identity(images)


def _classify_images(
    classes: taxonomy.Taxonomy, logits: typing.Any, images_spec: tf.TensorSpec
) -> typing.Any:
    """Returns a function from images and k to the likeliest classes."""
    to_scores = tf.nn.softmax if classes.scores == taxonomy.SOFTMAX else tf.nn.sigmoid
    names = [definition.name for definition in classes.classes]
    ids = [definition.id for definition in classes.classes]
    default = _default_k(classes)

    @tf.function(input_signature=[images_spec, _NUMBER], autograph=False)
    def classify_images(
        images: tf.Tensor, k: tf.Tensor = default
    ) -> dict[str, tf.Tensor]:
        scores, indices = tf.math.top_k(to_scores(logits(images)), k)
        return {
            "classes": tf.gather(tf.constant(names), indices),
            "ids": tf.gather(tf.constant(ids), indices),
            "scores": scores,
        }

    return classify_images


def _classify(
    classes: taxonomy.Taxonomy, preprocess: typing.Any, classify_images: typing.Any
) -> typing.Any:
    """Returns the function of the signature `classify`."""
    default = _default_k(classes)

    @tf.function(input_signature=[_BYTES, _NUMBER], autograph=False)
    def classify(
        image_bytes: tf.Tensor, k: tf.Tensor = default
    ) -> dict[str, tf.Tensor]:
        return classify_images(preprocess(image_bytes), k)

    return classify


def _default_k(classes: taxonomy.Taxonomy) -> tf.Tensor:
    return tf.constant(min(_K, len(classes.classes)))


def _preprocessing(model: zoo_model.ImageModel) -> model_input.Preprocessing:
    side = model.spec.image_size
    return model_input.Preprocessing(
        height=side, width=side, **dataclasses.asdict(model.preprocessing)
    )


def _warmup_records(
    signatures: Iterable[str], side: int, batches: Sequence[int]
) -> Iterator[bytes]:
    """Yields requests for each signature, of grey images.

    Args:
      signatures: their names.
      side: height and width of the images in pixels.
      batches: batch sizes of requests with images; those with files have one image.
    """
    grey = np.full((side, side, 3), 127, np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(grey).save(file, "PNG")
    files = {"image_bytes": tf.make_tensor_proto([file.getvalue()], tf.string)}
    # A tensor of equal values takes a few bytes.
    images = [
        {"images": tf.make_tensor_proto(0.5, tf.float32, [batch, side, side, 3])}
        for batch in batches
    ]
    for name in signatures:
        takes_files = name in ("image_bytes", "classify")
        for inputs in [files] if takes_files else images:
            values = {key: value.SerializeToString() for key, value in inputs.items()}
            yield warmup_requests.to_record(name, values)


def load(folder: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the model in the folder of one kind."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return [
        comparison.ConvertedModel(
            file="saved_model.pb",
            call=lambda images: signature(images=tf.constant(images))[
                "default"
            ].numpy(),
            limit=_LIMIT,
        )
    ]
