"""Exact cosine ranking, with an order that does not depend on how the work was cut into pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_few", "best_of_all", "order"]

# Larger than what single precision loses in a product of unit vectors, so that no tie is cut in two by it.
_SLACK = 1e-5
_CHUNK = 1 << 16
# For so few queries a product is bound by memory, and the threads that BLAS wakes for it take longer than it does, and
# then stand in the way of whatever comes next: a frame over 4761 tiles took 30 ms instead of 56 on two cores without.
_FEW = 4


def order(
    query: NDArray[np.float32], rows: NDArray[np.floating], tiles: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of some tiles for one query, ties by tile number.

    Equal descriptors (water, snow) must tie exactly, while a matrix product in single precision gives them
    slightly different values by their place in it. In double precision, rounded to single, they agree.

    Args:
        query: (D,) of unit length.
        rows: (M, D) descriptors of the tiles.
        tiles: (M,) their numbers.
        k: how many.

    Returns:
        tiles (min(k, M),), similarity (min(k, M),).
    """
    similarity = (rows.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    best = np.lexsort((tiles, -similarity))[:k]
    return tiles[best], similarity[best]


def best_few(
    query: NDArray[np.float32], rows: NDArray[np.floating], tiles: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As :func:`order`, of many tiles: in double precision only those that may be among the best."""
    rough = np.einsum("nd,d->n", np.asarray(rows, np.float32), query)
    near = rough >= rough[np.argpartition(rough, len(rough) - k)[len(rough) - k]] - _SLACK
    return order(query, rows[near], tiles[near], k)


def best_of_all(
    queries: NDArray[np.float32], descriptors: NDArray[np.floating], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best of all descriptors for each query, by products that BLAS computes where there are many queries.

    Args:
        queries: (B, D) of unit length.
        descriptors: (N, D); half precision is widened piece by piece.
        k: at most N.

    Returns:
        tiles (B, k), similarity (B, k), best first.
    """
    rough = np.empty((len(queries), len(descriptors)), np.float32)
    for start in range(0, len(descriptors), _CHUNK):
        part = np.asarray(descriptors[start : start + _CHUNK], np.float32)
        found = rough[:, start : start + _CHUNK]
        if len(queries) <= _FEW:
            for query, out in zip(queries, found, strict=True):
                np.einsum("nd,d->n", part, query, out=out)
        else:
            np.matmul(queries, part.T, out=found)
    tiles = np.empty((len(queries), k), np.int64)
    similarity = np.empty((len(queries), k), np.float32)
    for i, row in enumerate(rough):
        kth = row[np.argpartition(row, len(row) - k)[len(row) - k]]
        near = np.flatnonzero(row >= kth - _SLACK)
        tiles[i], similarity[i] = order(queries[i], descriptors[near], near, k)
    return tiles, similarity
