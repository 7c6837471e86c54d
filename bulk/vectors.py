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

_LOG = progress.logger(__name__)

EXACT_BELOW = 20_000
"""Vectors up to which `neighbours` compares all pairs."""

_BLOCK = 4096  # rows of a product of matrices
_POINTS_PER_LIST = 40  # that train the centre of a list of the approximate index
_ROUNDS = 8  # of k-means: more take longer than they save
_LISTS_PER_QUERY = 8  # of the approximate index, in which a vector is looked for
_SAMPLE = 200  # vectors that measure the recall
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
    names = record.get("shards")
    if not record or not isinstance(names, list):
        raise ValueError(
            f"{path} is not the finished output of tools/embed: _SUCCESS.json is "
            "missing or damaged."
        )
    if "features" not in record.get("outputs", ()):
        raise ValueError(
            f"{path} has no column features: embed with --outputs=features."
        )
    numbers, keys = [], []
    unit, count = np.empty((0, 0), np.float32), 0
    for name in names:
        file = path / pathlib.Path(name).name
        try:
            rows = parquet.read_table(file, columns=["number", "key", "features"])
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(
                f"{file} is missing or damaged: run tools/embed again ({error})."
            ) from error
        rows = rows.filter(rows["features"].is_valid()).combine_chunks()
        if not len(rows):
            continue
        features = rows["features"].combine_chunks().flatten()
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
    k = min(k, len(vectors.unit))
    similarities = np.concatenate(
        [
            queries @ vectors.unit[start : start + _BLOCK].T
            for start in range(0, len(vectors.unit), _BLOCK)
        ],
        axis=1,
    )
    best = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(similarities, best, axis=1)
    order = np.lexsort((best, -values), axis=1)  # of equals, the first
    return Neighbours(
        indices=np.take_along_axis(best, order, axis=1),
        similarities=np.take_along_axis(values, order, axis=1),
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
    try:
        import faiss
    except ImportError as error:
        raise ImportError(f"{error}: run tools/setup bulk") from None
    length = unit.shape[1]
    lists = int(2 * np.sqrt(len(unit)))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(length),
        length,
        lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.nprobe = min(lists, _LISTS_PER_QUERY)
    index.cp.niter = _ROUNDS
    random = np.random.default_rng(0)
    sample = random.permutation(len(unit))[: _POINTS_PER_LIST * lists]
    _LOG.info(f"divide {len(unit)} vectors into {lists} lists")
    index.train(unit[np.sort(sample)])
    index.add(unit)
    steps, found = -(-len(unit) // _BLOCK), []
    for step in range(steps):
        block = unit[step * _BLOCK : (step + 1) * _BLOCK]
        found.append(index.search(block, k + 1))
        progress.step(_LOG, step + 1, steps, "search")
    similarities, indices = (np.concatenate(part) for part in zip(*found, strict=True))
    indices, similarities = _without_self(indices, similarities, np.arange(len(unit)))
    sample = np.sort(random.permutation(len(unit))[:_SAMPLE])
    exact, _ = _exact(unit, sample, k)
    hits = [
        np.isin(row, found_row).mean()
        for row, found_row in zip(exact, indices[sample], strict=True)
    ]
    return Neighbours(
        indices=indices, similarities=similarities, recall=float(np.mean(hits))
    )


def _exact(unit: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest other vectors of some rows, and their similarities."""
    k = min(k, len(unit) - 1)
    indices, similarities = [], []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        products = unit[block] @ unit.T
        products[np.arange(len(block)), block] = -np.inf
        best = np.argpartition(-products, max(k - 1, 0), axis=1)[:, :k]
        values = np.take_along_axis(products, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        indices.append(np.take_along_axis(best, order, axis=1))
        similarities.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(indices), np.concatenate(similarities)


def _without_self(
    indices: np.ndarray, similarities: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Removes each row's own number from its k + 1 neighbours, or else the last one."""
    is_self = indices == rows[:, np.newaxis]
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(indices), indices.shape[1] - 1)
    return indices[~is_self].reshape(shape), similarities[~is_self].reshape(shape)


def groups(vectors: Vectors, threshold: float) -> tuple[list[np.ndarray], float | None]:
    """Returns groups of near-duplicates, the largest first, and the recall.

    All images of a group are similar to its first image by at least the threshold.
    They are looked for among the images that a chain of near-duplicates connects, each
    of the 20 nearest to the one before.

    Args:
      vectors: the vectors.
      threshold: smallest cosine similarity of near-duplicates.
    """
    # Equal vectors would fill each other's lists of neighbours.
    seen: dict[bytes, int] = {}
    which = [
        seen.setdefault(hashlib.blake2b(row, digest_size=16).digest(), len(seen))
        for row in vectors.unit
    ]
    firsts = np.unique(which, return_index=True)[1]
    is_all = len(firsts) == len(vectors.unit)
    unit = vectors.unit if is_all else vectors.unit[firsts]
    zeros = {*np.flatnonzero(np.linalg.norm(unit, axis=1) == 0).tolist()}
    parents = np.arange(len(firsts))
    recall = None
    if len(firsts) > 1:
        found = neighbours(unit, min(_GROUP_NEIGHBOURS, len(firsts) - 1))
        recall = found.recall
        rows, columns = np.nonzero(found.similarities >= threshold)
        for row, other in zip(rows, found.indices[rows, columns], strict=True):
            first, second = _root(parents, row), _root(parents, other)
            parents[max(first, second)] = min(first, second)
    roots = np.array([_root(parents, n) for n in range(len(firsts))])
    members: dict[int, list[int]] = {}
    for image, unique in enumerate(which):
        if unique not in zeros:
            members.setdefault(int(roots[unique]), []).append(image)
    found_groups = []
    for chain in members.values():
        rest = np.array(chain)
        while len(rest) > 1:
            is_near = vectors.unit[rest] @ vectors.unit[rest[0]] >= threshold
            is_near[0] = True
            if is_near.sum() > 1:
                found_groups.append(rest[is_near])
            rest = rest[~is_near]
    return sorted(found_groups, key=lambda g: (-len(g), g[0])), recall


def _root(parents: np.ndarray, node: typing.Any) -> int:
    """Returns the root of a node of a forest, and shortens the way to it."""
    root = node
    while parents[root] != root:
        root = parents[root]
    while parents[node] != root:
        parents[node], node = root, parents[node]
    return int(root)
