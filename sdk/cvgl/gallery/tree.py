"""A tree of k-means over k-means, searched best bin first: the other way to find similar tiles, for comparison.

Built as Nister and Stewenius's vocabulary tree (CVPR 2006) is, by splitting each cluster again until few tiles are left
in it, and searched as Muja and Lowe's priority search k-means tree (PAMI 2014, algorithm 2): down to the leaf whose
centres are nearest, then on from whichever branch passed by is nearest, until so many tiles have been compared.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError
from cvgl.gallery.parts import NpyWriter

__all__ = ["BRANCHES", "BUDGETS", "LEAF", "KMeansTree", "build_tree", "node_type", "write_tree"]

BRANCHES, LEAF = 32, 48
"""Clusters that a cluster is split into, if it is not a small one, and the most tiles that are not split again."""
BUDGETS = tuple(250 * 2**step for step in range(13))
"""Tiles compared for a query: what is tried when a tree is built."""

_ITERATIONS = 8
# Descriptors that centres are fitted to, for each of them.
_SAMPLE = 200
_SEED = 21
_CHUNK = 1 << 14

Rows = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def node_type(dimension: int) -> np.dtype[Any]:
    """A node: its centre; and of a leaf (``children`` 0) which places of the order are its, of others which nodes."""
    return np.dtype([("first", "<i4"), ("count", "<i4"), ("children", "<i4"), ("centre", "<f4", (dimension,))])


def build_tree(
    rows: Rows, count: int, dimension: int, tell: Callable[[int], None]
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Split tiles into clusters, and those again.

    Args:
        rows: gives descriptors by number, (n, D).
        count: of descriptors.
        dimension: of a descriptor.
        tell: called with how many tiles are in leaves.

    Returns:
        Nodes (n,) of :func:`node_type`, the root first, children of a node side by side; and the order (N,): tiles
        by leaf.
    """
    rng = np.random.default_rng(_SEED)
    nodes = [(0, count, 0)]
    centres = [np.zeros((1, dimension), np.float32)]
    order = np.arange(count, dtype=np.int32)
    waiting, settled = [0], 0
    while waiting:
        number = waiting.pop()
        first, size, _ = nodes[number]
        groups = list(_split(rows, order[first : first + size], rng)) if size > LEAF else []
        if len(groups) < 2:
            settled += size
            tell(settled)
            continue
        nodes[number] = (len(nodes), size, len(groups))
        centres.append(np.stack([centre for centre, _ in groups]))
        for _, tiles in groups:
            order[first : first + len(tiles)] = tiles
            waiting.append(len(nodes))
            nodes.append((first, len(tiles), 0))
            first += len(tiles)
    found = np.zeros(len(nodes), node_type(dimension))
    for column, name in enumerate(("first", "count", "children")):
        found[name] = [node[column] for node in nodes]
    found["centre"] = np.concatenate(centres)
    return found, order


def write_tree(nodes_file: Path, order_file: Path, nodes: NDArray[Any], order: NDArray[np.int32]) -> None:
    """Write a tree's two arrays, whose files must not be there."""
    for file, array in ((nodes_file, nodes), (order_file, order)):
        with NpyWriter(file, array.dtype, ()) as writer:
            writer.write(array)


class KMeansTree:
    """A tree in memory. Safe for several threads.

    Args:
        nodes, order: as :func:`build_tree` gives them.
        file: named in errors.

    Raises:
        GalleryError: a node names what is not there.
    """

    def __init__(self, nodes: NDArray[Any], order: NDArray[np.int32], file: Path | None = None) -> None:
        inner = nodes["children"] > 0
        length = np.where(inner, nodes["children"], nodes["count"])
        numbers = np.arange(len(nodes))
        sound = (nodes["first"] >= 0) & (length > 0)
        # Children come after their parent, so that no search goes round in a circle.
        sound &= np.where(inner, nodes["first"] > numbers, True)
        sound &= nodes["first"].astype(np.int64) + length <= np.where(inner, len(nodes), len(order))
        if not sound.all() or not np.array_equal(np.sort(order), np.arange(len(order))):
            raise GalleryError("not a tree of the layer's tiles", file=file)
        self._first, self._length, self._inner = nodes["first"].tolist(), length.tolist(), inner.tolist()
        self._order = np.ascontiguousarray(order)
        self._centres = np.ascontiguousarray(nodes["centre"], np.float32)
        self._half = 0.5 * np.square(self._centres).sum(axis=1)

    def among(self, query: NDArray[np.float32], budget: int) -> NDArray[np.int64]:
        """Tiles worth comparing with a query: those of the nearest leaves, until there are ``budget`` of them.

        Args:
            query: (D,) of unit length.
            budget: tiles; at least as many come where there are as many.

        Returns:
            (n,) numbers, ascending.
        """
        found: list[NDArray[np.int32]] = []
        collected = 0
        # By distance to the centre; what does not depend on the centre is left out.
        heap = [(0.0, 0)]
        while heap and collected < budget:
            _, node = heapq.heappop(heap)
            first, length = self._first[node], self._length[node]
            if self._inner[node]:
                children = slice(first, first + length)
                far = self._half[children] - np.einsum("nd,d->n", self._centres[children], query)
                for child, distance in enumerate(far.tolist(), first):
                    heapq.heappush(heap, (distance, child))
            else:
                found.append(self._order[first : first + length])
                collected += length
        return np.sort(np.concatenate(found)).astype(np.int64)


def _split(
    rows: Rows, tiles: NDArray[np.int32], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Clusters of some tiles: centre and tiles of each that has any. None where all tiles are alike."""
    branches = min(BRANCHES, -(-2 * len(tiles) // LEAF))
    sample = rng.permutation(len(tiles))[: branches * _SAMPLE]
    points = rows(tiles[np.sort(sample)].astype(np.int64))
    centres = points[np.sort(rng.permutation(len(points))[:branches])].copy()
    for _ in range(_ITERATIONS):
        nearest = _nearest(points, centres)
        for number in range(len(centres)):
            mine = points[nearest == number]
            if len(mine):
                centres[number] = mine.mean(axis=0)
    nearest = np.concatenate(
        [
            _nearest(rows(tiles[start : start + _CHUNK].astype(np.int64)), centres)
            for start in range(0, len(tiles), _CHUNK)
        ]
    )
    for number, centre in enumerate(centres):
        mine = tiles[nearest == number]
        if len(mine):
            yield centre, mine


def _nearest(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argmax(points @ centres.T - 0.5 * np.square(centres).sum(axis=1), axis=1)
