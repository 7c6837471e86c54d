"""Zero-shot classifiers: the classes are texts, embedded by the text tower.

Source: arXiv:2103.00020, section 3.1.2, for CLIP; arXiv:2303.15343, section 3, for the
bias of SigLIP. This project has the image towers; another program embeds the texts.
"""

from __future__ import annotations

import dataclasses
import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from zoo import config, model, taxonomy
from zoo.weights import registry, weights_file

EMBEDDINGS, SCALE, BIAS = "embeddings", "scale", "bias"
"""Names of the arrays in a file of text embeddings."""


@dataclasses.dataclass(frozen=True)
class Texts:
    """Embeddings of one text for each class.

    Attributes:
      embeddings: [K, D] float32, of length 1.
      scale: factor of the cosines of images and texts.
      bias: number added to all logits.
    """

    embeddings: np.ndarray
    scale: float
    bias: float


def read(path: pathlib.Path) -> Texts:
    """Reads a file of text embeddings, in any format of weights files.

    The arrays are `embeddings` [K, D] of any length, which are divided by it; `scale`,
    the exponential of what CLIP and SigLIP call the logit scale; and optionally `bias`,
    SigLIP's logit bias.

    Raises:
      ValueError: the file is not readable, an array is missing or has another shape, or
        a value is not finite.
    """
    tensors = weights_file.read(path).tensors
    unknown = set(tensors) - {EMBEDDINGS, SCALE, BIAS}
    if unknown or not {EMBEDDINGS, SCALE} <= set(tensors):
        shown = ", ".join(sorted(tensors)[:5]) or "none"
        raise ValueError(
            f"{path} must have the arrays {EMBEDDINGS} and {SCALE}, and may have "
            f"{BIAS}; it has {shown}."
        )
    arrays = {n: np.asarray(tensors[n]).astype(np.float32) for n in tensors}
    embeddings = arrays[EMBEDDINGS]
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"{path}: {EMBEDDINGS} must have the shape [classes, length], not "
            f"{list(embeddings.shape)}."
        )
    numbers = {}
    for name in (SCALE, BIAS):
        array = arrays.get(name, np.zeros(1, np.float32))
        if array.size != 1:
            raise ValueError(f"{path}: {name} must be one number.")
        numbers[name] = float(array.reshape(()))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{path} has NaN or infinite values.")
    if not lengths.all():
        raise ValueError(f"{path}: an embedding is zero.")
    if numbers[SCALE] <= 0:
        raise ValueError(f"{path}: {SCALE} must be above 0, not {numbers[SCALE]:g}.")
    return Texts(embeddings / lengths, numbers[SCALE], numbers[BIAS])


def scores(texts: Texts) -> str:
    """Returns what turns the logits into scores: a sigmoid for those with a bias."""
    return taxonomy.SIGMOID if texts.bias else taxonomy.SOFTMAX


def build(
    arch: str,
    texts: Texts,
    *,
    weights: str = registry.RANDOM,
    classes: taxonomy.Taxonomy | None = None,
    gin_bindings: Sequence[str] = (),
    **settings: typing.Any,
) -> model.ImageModel:
    """Builds an image tower whose classifier compares images with texts.

    Args:
      arch: architecture of an image tower, such as `clip_base_32`.
      texts: the texts of the classes.
      weights: as in `zoo.build`.
      classes: the classes, in the order of the texts; None for those of the gin file.
      gin_bindings: as in `zoo.build`.
      settings: further arguments of `zoo.build`.

    Raises:
      ValueError: the arch has no text tower, the numbers of texts and classes or the
        lengths of the embeddings differ, or an argument is not usable.
    """
    bindings = [*gin_bindings, f"{config.BACKBONE}.is_zero_shot = True"]
    built = model.build(
        arch, weights=weights, taxonomy=classes, gin_bindings=bindings, **settings
    )
    count, length = texts.embeddings.shape
    if built.taxonomy.num_classes != count:
        raise ValueError(
            f"There are {count} text embeddings for {built.taxonomy.num_classes} "
            f"classes of the taxonomy {built.taxonomy.name}."
        )
    if built.num_features != length:
        raise ValueError(
            f"The text embeddings have the length {length}, the feature vectors of "
            f"{arch} {built.num_features}."
        )
    values = {
        "kernel": texts.scale * texts.embeddings.T,
        "bias": np.full(count, texts.bias, np.float32),
    }
    for variable in built.head.weights:
        variable.assign(values[variable.name])
    provenance = {k: v for k, v in built.weights.items() if k != "head"}
    return dataclasses.replace(built, weights=provenance)
