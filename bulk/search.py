"""What was found among feature vectors, by the names of the images."""

from __future__ import annotations

import dataclasses

import numpy as np

from bulk import vectors


@dataclasses.dataclass(frozen=True)
class Found:
    """An image that was found.

    Attributes:
      key: its name, as in the column `key`.
      number: its number in the data.
      similarity: cosine similarity, with the query or the first image of the group.
    """

    key: str
    number: int
    similarity: float


def found(
    known: vectors.Vectors, query_vectors: np.ndarray, k: int
) -> list[list[Found]]:
    """Returns the k images that are most similar to each query, the best first."""
    nearest = vectors.search(known, query_vectors, k)
    return [
        [_found(known, i, s) for i, s in zip(indices, similarities, strict=True)]
        for indices, similarities in zip(
            nearest.indices, nearest.similarities, strict=True
        )
    ]


def duplicates(
    known: vectors.Vectors, threshold: float
) -> tuple[list[list[Found]], float | None]:
    """Returns groups of near-duplicates, and the recall; see `vectors.groups`."""
    groups, recall = vectors.groups(known, threshold)
    named = []
    for group in groups:
        similarities = known.unit[group] @ known.unit[group[0]]
        named.append(
            [_found(known, i, s) for i, s in zip(group, similarities, strict=True)]
        )
    return named, recall


def _found(known: vectors.Vectors, index: int, similarity: float) -> Found:
    return Found(
        key=known.keys[int(index)].as_py(),
        number=int(known.numbers[index]),
        similarity=round(float(similarity), 6),
    )
