"""Computes the embeddings of texts that are looked for among images.

Texts and images can be compared if the vectors come from the image tower of CLIP or
SigLIP, and the embeddings from the text tower that was trained beside it.
"""

from __future__ import annotations

import pathlib
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from bulk import queries, text_tokens, text_tower, vectors
from exporters import manifest
from foundation import progress
from zoo.weights import weights_file

_LOG = progress.logger(__name__)
# Variables of image towers that are compared with those of a checkpoint: the name of
# the tensor in transformers, and the order of its axes in TensorFlow.
_PATCHES = ("vision_model.embeddings.patch_embedding.weight", (2, 3, 1, 0))
_NORM = ("vision_model.post_layernorm.weight", (0,))
_COMPARED = {
    text_tower.CLIP: {
        "patches/kernel": _PATCHES,
        "norm/gamma": _NORM,
        "project/kernel": ("visual_projection.weight", (1, 0)),
    },
    text_tower.SIGLIP: {
        "patches/kernel": _PATCHES,
        "norm/gamma": _NORM,
        "pool_mlp_project/kernel": ("vision_model.head.mlp.fc2.weight", (1, 0)),
    },
}
# Largest difference of equal weights, relative to the largest value: one of the two may
# have been stored in a type of fewer bits.
_ROUNDING = 1e-3
_ROUNDING_OF_BFLOAT16 = 1e-2


def vectors_of(
    folder: pathlib.Path,
    known: vectors.Vectors,
    texts: Sequence[str],
    checkpoint: pathlib.Path,
) -> np.ndarray:
    """Returns the embeddings of texts, [Q, D] float32 of length 1.

    Args:
      folder: folder of the model that computed the vectors.
      known: the vectors among which the texts are looked for.
      texts: the texts.
      checkpoint: Hugging Face checkpoint with the text tower and `tokenizer.json`.

    Raises:
      ImportError: the package tokenizers is missing.
      ValueError: the model is another one or not an image tower, the text tower does
        not belong to it or is not usable, or a text is empty.
    """
    queries.check_model(folder, known.record)
    family = _family(folder)
    tower = text_tower.TextTower(checkpoint)
    if tower.family != family:
        raise ValueError(
            f"{checkpoint} has a text tower of {tower.family}, but the vectors come "
            f"from an image tower of {family}."
        )
    length = known.unit.shape[1]
    if tower.embedding_size != length:
        raise ValueError(
            f"The text embeddings of {checkpoint} have the length "
            f"{tower.embedding_size}, the vectors {length}: it is the text tower of "
            "another model."
        )
    _compare_image_towers(folder, tower.tensors, family, checkpoint)
    tokenizer = text_tokens.Tokenizer(
        checkpoint, family=family, max_tokens=tower.max_tokens
    )
    found = [tower.embed(tokenizer.encode(text)) for text in texts]
    return vectors.normalised(np.stack(found), len(found))


def _family(folder: pathlib.Path) -> str:
    """Returns the family of an image tower.

    Raises:
      ValueError: the model is not an image tower, or its feature vector is not the
        image embedding.
    """
    record = manifest.read(folder)
    try:
        spec = record.configuration["spec"] if record else {}
        name, size = spec.get("class"), spec.get("embedding_size")
    except (KeyError, TypeError, AttributeError):
        name = size = None
    if name not in _COMPARED:
        arch = f"is {record.arch}" if record else "has no manifest"
        raise ValueError(
            f"--text needs vectors of CLIP or SigLIP; {folder} {arch}, whose vectors "
            "can't be compared with texts."
        )
    if name == text_tower.CLIP and size is None:
        raise ValueError(
            f"The vectors of {folder} are class tokens, not image embeddings: export "
            "with --gin_binding=CLIP.embedding_size=512 (CLIP ViT-L: 768), and embed "
            "again."
        )
    return str(name)


def _compare_image_towers(
    folder: pathlib.Path,
    tensors: Mapping[str, typing.Any],
    family: str,
    checkpoint: pathlib.Path,
) -> None:
    """Compares weights of the model with those of the checkpoint's image tower.

    Says in a line if the checkpoint has none.

    Raises:
      ValueError: they differ.
    """
    ours = weights_file.read(folder).tensors
    for name, (full_name, axes) in _COMPARED[family].items():
        if name not in ours or full_name not in tensors:
            where = folder if full_name in tensors else checkpoint
            _LOG.warning(
                f"{where} lacks weights of the image tower: whether the text tower "
                "belongs to the model can't be checked"
            )
            return
        if not _are_equal(ours[name], tensors[full_name], axes):
            raise ValueError(
                f"{checkpoint} has other weights of the image tower than {folder} "
                f"({full_name}): its text tower belongs to another model."
            )


def _are_equal(ours: typing.Any, theirs: typing.Any, axes: tuple[int, ...]) -> bool:
    """Returns whether two tensors are equal, but for the rounding of their types."""
    shape = theirs.shape
    if len(shape) != len(axes) or tuple(shape[axis] for axis in axes) != ours.shape:
        return False
    types = {np.dtype(tensor.dtype).name for tensor in (ours, theirs)}
    rounding = _ROUNDING_OF_BFLOAT16 if "bfloat16" in types else _ROUNDING
    first = np.asarray(ours).astype(np.float32)
    second = np.asarray(theirs).astype(np.float32).transpose(axes)
    return bool(np.abs(first - second).max() <= rounding * np.abs(first).max())
