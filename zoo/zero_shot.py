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

from zoo import config, definition, model, taxonomy
from zoo.weights import registry, weights_file

EMBEDDINGS, SCALE, BIAS = "embeddings", "scale", "bias"
"""Names of the arrays in a file of text embeddings."""

_SMALL_SCALE = 10.0


@dataclasses.dataclass(frozen=True)
class Texts:
    """Embeddings of one text for each class.

    Attributes:
      embeddings: [K, D] float32, of length 1.
      scale: factor of the cosines of images and texts.
      bias: number added to all logits; None for CLIP.
    """

    embeddings: np.ndarray
    scale: float
    bias: float | None = None

    @property
    def remark(self) -> str:
        """One line for the user if the scale is suspicious; else empty."""
        if self.scale >= _SMALL_SCALE:
            return ""
        return (
            f"{SCALE} is {self.scale:g}, and CLIP's is 100: if it is the logarithm, "
            "give its exponential"
        )


def read(path: pathlib.Path) -> Texts:
    """Reads a file of text embeddings, in any format of weights files.

    The arrays are `embeddings` [K, D] of any length, which are divided by it; `scale`,
    the exponential of what CLIP and SigLIP call the logit scale; and, for SigLIP,
    `bias`, its logit bias.

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
    for name, tensor in tensors.items():
        if np.asarray(tensor).dtype.kind in "biu":
            raise ValueError(f"{path}: {name} must be floating-point numbers.")
    arrays = {n: np.asarray(tensors[n]).astype(np.float32) for n in tensors}
    embeddings = arrays[EMBEDDINGS]
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"{path}: {EMBEDDINGS} must have the shape [classes, length], not "
            f"{list(embeddings.shape)}."
        )
    numbers = {}
    for name in tensors.keys() - {EMBEDDINGS}:
        if arrays[name].size != 1:
            raise ValueError(f"{path}: {name} must be one number.")
        numbers[name] = float(arrays[name].reshape(()))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"{path} has NaN or infinite values.")
    if not lengths.all():
        raise ValueError(f"{path}: an embedding is zero.")
    if numbers[SCALE] <= 0:
        raise ValueError(f"{path}: {SCALE} must be above 0, not {numbers[SCALE]:g}.")
    return Texts(embeddings / lengths, numbers[SCALE], numbers.get(BIAS))


def scores(arch: str, texts: Texts) -> str:
    """Returns what turns the logits into scores, `softmax` or `sigmoid`.

    Raises:
      ValueError: the arch has no text tower, or the texts are not those of its kind.
    """
    kind = getattr(_tower(arch), "text_scores", None)
    if kind is None:
        raise ValueError(
            f"{arch} has no text tower: texts classify with CLIP and SigLIP only."
        )
    if kind == taxonomy.SIGMOID and texts.bias is None:
        raise ValueError(
            f"The texts have no array {BIAS}, the logit bias that {arch} was trained "
            "with."
        )
    if kind == taxonomy.SOFTMAX and texts.bias is not None:
        raise ValueError(
            f"The texts have an array {BIAS}, but {arch} was trained without a logit "
            "bias: they are not its own."
        )
    return str(kind)


def _tower(arch: str) -> type:
    """Returns the class of an architecture's spec."""
    with model.bind(definition.resolve(arch)) as builder:
        return builder.bindings.backbone()


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
      ValueError: as `scores`; the numbers of texts and classes or the lengths of the
        embeddings differ; or an argument is not usable.
    """
    kind = scores(arch, texts)
    count, length = texts.embeddings.shape
    bindings = [*gin_bindings, f"{config.BACKBONE}.is_zero_shot = True"]
    if hasattr(_tower(arch), "embedding_size"):  # the feature vector may be projected
        bindings.insert(0, f"{config.BACKBONE}.embedding_size = {length}")
    built = model.build(
        arch, weights=weights, taxonomy=classes, gin_bindings=bindings, **settings
    )
    if built.taxonomy.num_classes != count:
        raise ValueError(
            f"There are {count} text embeddings, but {built.taxonomy.name} names "
            f"{built.taxonomy.num_classes} classes: give --classes."
        )
    if built.taxonomy.scores != kind:
        raise ValueError(
            f"Scores of {arch} are of a {kind}, those of {built.taxonomy.name} of a "
            f"{built.taxonomy.scores}: give --classes."
        )
    if built.num_features != length:
        raise ValueError(
            f"The text embeddings have the length {length}, the feature vectors of "
            f"{arch} {built.num_features}."
        )
    values = {
        "kernel": texts.scale * texts.embeddings.T,
        "bias": np.full(count, texts.bias or 0.0, np.float32),
    }
    for variable in built.head.weights:
        variable.assign(values[variable.name])
    provenance = {k: v for k, v in built.weights.items() if k != "head"}
    return dataclasses.replace(built, weights=provenance)
