"""Feature vectors that `tools/embed` wrote, and exact and approximate search in them.

The similarity of two vectors is the cosine of their angle, in [-1, 1].
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import typing

import numpy as np
import pyarrow
from pyarrow import parquet

from bulk import job as jobs
from foundation import progress
from reuse import output_names

_LOG = progress.logger(__name__)

EXACT_BELOW = 20_000
"""Vectors up to which `neighbours` compares all pairs."""

_BLOCK = 4096  # rows of a product of matrices
_POINTS_PER_LIST = 40  # that train the centre of a list of the approximate index
_ROUNDS = 8  # of k-means: more take longer than they save
_LISTS_PER_QUERY = 8  # of the approximate index, in which a vector is looked for
_SAMPLE = 200  # vectors that measure the recall
_ROUNDING = 1e-6  # of the similarity of equal vectors, which is 1
_GROUP_NEIGHBOURS = 20  # nearest vectors that may be near-duplicates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vectors:
    """The feature vectors of a folder.

    Attributes:
      record: what `_SUCCESS.json` holds.
      keys: names of the N readable images.
      numbers: their numbers in the data, [N] int64.
      unit: [N, D] float32; each row has length 1, or is 0.
    """

    record: dict[str, typing.Any]
    keys: pyarrow.Array
    numbers: np.ndarray
    unit: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest vectors of vectors, without the vectors themselves.

    Attributes:
      indices: [N, k] int64, the nearest first; -1 if there are fewer.
      similarities: [N, k] float32.
      recall: share of the exact neighbours that were found, in a sample; None if all
        pairs were compared.
    """

    indices: np.ndarray
    similarities: np.ndarray
    recall: float | None = None


def read(path: pathlib.Path) -> Vectors:
    """Reads the feature vectors of a folder that `tools/embed` completed.

    Raises:
      ValueError: the folder is not one, is not complete, or has no feature vectors.
    """
    record = jobs.Folder(path).success
    if not record:
        raise ValueError(
            f"{path} is not the finished output of tools/embed: _SUCCESS.json is "
            "missing or damaged."
        )
    column = output_names.FEATURES
    if column not in record["outputs"]:
        raise ValueError(
            f"{path} has no column features: embed with --outputs=features."
        )
    numbers, keys = [], []
    unit, count = np.empty((0, 0), np.float32), 0
    for name in record["shards"]:
        file = path / pathlib.PurePath(name).name
        try:
            rows = parquet.read_table(
                file,
                columns=["number", "key", column],
                page_checksum_verification=True,
            )
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{file} is missing or damaged: delete it, and run tools/embed again "
                f"({error})."
            ) from error
        rows = rows.filter(rows[column].is_valid()).combine_chunks()
        if not len(rows):
            continue
        features = rows[column].combine_chunks().flatten()
        block = normalised(features.to_numpy(zero_copy_only=False), len(rows))
        if not unit.size:  # filled step by step, since it may be half of the memory
            unit = np.empty((record["count"], block.shape[1]), np.float32)
        unit[count : count + len(rows)] = block
        count += len(rows)
        numbers.append(rows["number"].to_numpy())
        keys.append(rows["key"].combine_chunks())
    if not count:
        raise ValueError(f"{path} has no feature vectors.")
    return Vectors(
        record=record,
        keys=pyarrow.concat_arrays(keys),
        numbers=np.concatenate(numbers),
        unit=unit[:count],
    )


def normalised(numbers: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` vectors [N, D] with length 1, as float32; zeros stay zeros."""
    values = numbers.reshape(count, -1).astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def search(vectors: Vectors, queries: np.ndarray, k: int) -> Neighbours:
    """Returns the k vectors that are most similar to each query, comparing all.

    Args:
      vectors: N vectors.
      queries: [Q, D] of length 1.
      k: how many; at most N are returned.
    """
    blocks = [
        queries @ vectors.unit[start : start + _BLOCK].T
        for start in range(0, len(vectors.unit), _BLOCK)
    ]
    indices, similarities = _best(np.concatenate(blocks, axis=1), k)
    return Neighbours(indices=indices, similarities=similarities)


def _best(products: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the columns of the k largest values in each row, and the values.

    The largest comes first, and of equals the one on the left.
    """
    k = min(k, products.shape[1])
    best = np.argpartition(-products, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(products, best, axis=1)
    order = np.lexsort((best, -values), axis=1)
    return (
        np.take_along_axis(best, order, axis=1),
        np.take_along_axis(values, order, axis=1),
    )


def neighbours(unit: np.ndarray, k: int) -> Neighbours:
    """Returns the k nearest other vectors of each vector.

    Up to `EXACT_BELOW` vectors, all pairs are compared. More are first divided into
    lists around centres (k-means), and each is compared with those of the nearest
    lists: Faiss' IVF index, arXiv:1702.08734.

    Args:
      unit: [N, D] float32 of length 1.
      k: how many.

    Raises:
      ImportError: there are more than `EXACT_BELOW`, and Faiss is missing.
    """
    if len(unit) <= EXACT_BELOW:
        indices, similarities = _exact(unit, np.arange(len(unit)), k)
        return Neighbours(indices=indices, similarities=similarities)
    indices, similarities = _approximate(unit, k)
    sample = np.random.default_rng(1).permutation(len(unit))[:_SAMPLE]
    exact, _ = _exact(unit, sample, k)
    hits = [
        np.isin(row, found).mean()
        for row, found in zip(exact, indices[sample], strict=True)
    ]
    return Neighbours(
        indices=indices, similarities=similarities, recall=float(np.mean(hits))
    )


def _exact(unit: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest other vectors of some rows, and their similarities."""
    found = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        products = unit[block] @ unit.T
        products[np.arange(len(block)), block] = -np.inf
        found.append(_best(products, min(k, len(unit) - 1)))
    indices, similarities = (np.concatenate(part) for part in zip(*found, strict=True))
    return indices, similarities


def _approximate(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns most of the k nearest other vectors of each, and their similarities."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f"{error}: run tools/setup bulk") from None
    count, length = unit.shape
    lists = int(2 * np.sqrt(count))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(length),
        length,
        lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.nprobe = min(lists, _LISTS_PER_QUERY)
    index.cp.niter = _ROUNDS
    _LOG.info(f"divide {count} vectors into {lists} lists")
    order = np.random.default_rng(0).permutation(count)
    index.train(unit[np.sort(order[: _POINTS_PER_LIST * lists])])
    index.add(unit)
    steps, found = -(-count // _BLOCK), []
    for step in range(steps):
        block = unit[step * _BLOCK : (step + 1) * _BLOCK]
        found.append(index.search(block, k + 1))
        progress.step(_LOG, step + 1, steps, "search")
    similarities, indices = (np.concatenate(part) for part in zip(*found, strict=True))
    # Of k + 1, one is the vector itself, or else the last is left out.
    is_self = indices == np.arange(count)[:, np.newaxis]
    is_self[~is_self.any(axis=1), -1] = True
    return indices[~is_self].reshape(count, k), similarities[~is_self].reshape(count, k)


def groups(vectors: Vectors, threshold: float) -> tuple[list[np.ndarray], float | None]:
    """Returns groups of near-duplicates, the largest first, and the recall.

    All images of a group are similar to its first image by at least the threshold.
    They are looked for among the images that a chain of near-duplicates connects, each
    of the 20 nearest to the one before.

    Args:
      vectors: the vectors.
      threshold: smallest cosine similarity of near-duplicates.
    """
    threshold -= _ROUNDING
    firsts, which = _distinct(vectors.unit)
    is_all = len(firsts) == len(vectors.unit)
    roots, recall = _chains(vectors.unit if is_all else vectors.unit[firsts], threshold)
    chains: dict[int, list[int]] = {}
    for image, distinct in enumerate(which):
        chains.setdefault(int(roots[distinct]), []).append(image)
    found = []
    for chain in chains.values():
        rest = np.array(chain)
        while len(rest) > 1:
            is_near = vectors.unit[rest] @ vectors.unit[rest[0]] >= threshold
            if is_near.sum() > 1:
                found.append(rest[is_near])
            is_near[0] = True
            rest = rest[~is_near]
    return sorted(found, key=lambda group: (-len(group), group[0])), recall


def _distinct(unit: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns the first row of each value, and which of these each row equals.

    Equal vectors would fill each other's lists of neighbours.
    """
    seen: dict[bytes, int] = {}
    which = [
        seen.setdefault(hashlib.blake2b(row, digest_size=16).digest(), len(seen))
        for row in unit
    ]
    return np.unique(which, return_index=True)[1], which


def _chains(unit: np.ndarray, threshold: float) -> tuple[np.ndarray, float | None]:
    """Returns the number of the chain of each vector, and the recall."""
    parents = np.arange(len(unit))
    if len(unit) < 2:
        return parents, None
    nearest = neighbours(unit, min(_GROUP_NEIGHBOURS, len(unit) - 1))
    rows, columns = np.nonzero(nearest.similarities >= threshold)
    for row, other in zip(rows, nearest.indices[rows, columns], strict=True):
        first, second = _root(parents, row), _root(parents, other)
        parents[max(first, second)] = min(first, second)
    return np.array([_root(parents, n) for n in range(len(unit))]), nearest.recall


def _root(parents: np.ndarray, node: typing.Any) -> int:
    """Returns the root of a node of a forest, and shortens the way to it."""
    root = node
    while parents[root] != root:
        root = parents[root]
    while parents[node] != root:
        parents[node], node = root, parents[node]
    return int(root)
