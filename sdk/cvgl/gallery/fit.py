"""A layer's index and tree, with the effort at which they find what is asked of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError
from cvgl.files import read_json, write_json
from cvgl.gallery import ranking
from cvgl.gallery.index import EFFORTS, LARGE, LAST_EFFORTS, STRUCTURES, build_index, load_index
from cvgl.gallery.recall import (
    AT,
    DISTURBED,
    QUERIES,
    SIMILARITY,
    Measured,
    disturbed,
    found_shares,
    kth_similarity,
    surely,
)
from cvgl.gallery.tree import BRANCHES, BUDGETS, LEAF, KMeansTree, build_tree, write_tree

__all__ = ["Questions", "ask", "fit_index", "fit_tree"]

_SEED = 22

Rows = Callable[[Any], NDArray[np.float32]]
"""Gives descriptors of a layer by slice or by array of numbers, (n, D) of unit length."""


@dataclass(frozen=True)
class Questions:
    """Queries with what exact search answers.

    Args:
        kind: of queries, see :mod:`cvgl.gallery.recall`.
        similarity: median to the tile of their place.
        queries: (B, D).
        kth: (B,) similarity of the last tile that is asked for.
    """

    kind: str
    similarity: float
    queries: NDArray[np.float32]
    kth: NDArray[np.float32]

    @classmethod
    def of(cls, kind: str, similarity: float, queries: NDArray[np.float32], rows: Rows, count: int) -> Questions:
        """With the answers of exact search over ``count`` rows."""
        found = kth_similarity(queries, lambda start, stop: rows(slice(start, stop)), count, min(AT, count))
        return cls(kind, similarity, queries, found)


def ask(rows: Rows, count: int, seed: int = _SEED) -> Questions:
    """Questions made of a layer's own tiles; other ones under another seed."""
    rng = np.random.default_rng(seed)
    queries = disturbed(rows, count, QUERIES, rng)
    return Questions.of(DISTURBED, SIMILARITY, queries, rows, count)


def fit_index(
    path: Path,
    pieces: Path,
    rows: Rows,
    count: int,
    dimension: int,
    questions: Sequence[Questions],
    target: float,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Write the index of a layer: of the structures known the first that reaches a recall, at the least effort.

    Args:
        path: of the index, which appears whole, after what is returned was written beside the pieces.
        pieces: the folder of unfinished work.
        rows: the layer's descriptors.
        count, dimension: of them.
        questions: by which recall is measured, each kind by itself.
        target: recall that every kind is to reach, with a margin so that other queries do too. Where none of the
            structures does, the last one is taken with the most effort, and what it reaches is told.
        tell: called with how many tiles are in.

    Returns:
        What the manifest says of it.
    """
    record = pieces / f"{path.name}.json"
    if path.exists():
        return read_json(record, GalleryError)
    entry: dict[str, Any] = {}
    k = min(AT, count)
    for m, ef_construction in STRUCTURES if count <= LARGE else STRUCTURES[-1:]:
        efforts = (*EFFORTS, *LAST_EFFORTS) if m == STRUCTURES[-1][0] else EFFORTS
        built = pieces / f"{path.name}-{m}"
        if not built.exists():
            build_index(built, lambda a, b: rows(slice(a, b)), count, dimension, tell, (m, ef_construction))
        index = load_index(None, built, dimension, count)

        def search(queries: NDArray[np.float32], effort: int, index: Any = index) -> NDArray[np.float32]:
            index.set_ef(effort)
            return np.float32(1.0) - np.asarray(index.knn_query(queries, k, num_threads=1)[1], np.float32)

        effort, measured, enough = _least(efforts, search, questions, target)
        entry = {"file": path.name, "M": m, "ef_construction": ef_construction, "ef": effort}
        entry["recall"] = _recall(target, k, measured)
        if enough:
            break
    write_json(record, entry)
    os.replace(built, path)
    return entry


def fit_tree(
    nodes_file: Path,
    order_file: Path,
    pieces: Path,
    rows: Rows,
    count: int,
    dimension: int,
    questions: Sequence[Questions],
    target: float,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """Write the tree of a layer, and find how many tiles have to be compared; arguments as :func:`fit_index` has them.

    Returns:
        What the manifest says of it.
    """
    record = pieces / f"{nodes_file.name}.json"
    if record.exists():
        return read_json(record, GalleryError)
    nodes, order = build_tree(rows, count, dimension, tell)
    tree, k = KMeansTree(nodes, order), min(AT, count)

    def search(queries: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        found = np.empty((len(queries), k), np.float32)
        for number, query in enumerate(queries):
            among = tree.among(query, max(effort, k))
            found[number] = ranking.best_few(query, rows(among), among, k)[1]
        return found

    budgets = [budget for budget in BUDGETS if budget < count] or [count]
    budget, measured, _ = _least(budgets, search, questions, target)
    for file in (nodes_file, order_file):
        file.unlink(missing_ok=True)
    write_tree(nodes_file, order_file, nodes, order)
    entry = {"nodes": nodes_file.name, "order": order_file.name, "count": len(nodes), "branches": BRANCHES}
    entry |= {"leaf": LEAF, "budget": budget, "recall": _recall(target, k, measured)}
    write_json(record, entry)
    return entry


def _least(
    efforts: Sequence[int],
    search: Callable[..., NDArray[np.float32]],
    questions: Sequence[Questions],
    target: float,
) -> tuple[int, list[Measured], bool]:
    """The least effort that reaches a recall for every kind of question, or the most there is; what it reaches, and
    whether that is enough."""
    for effort in efforts:
        shares = [found_shares(partial(search, effort=effort), one.queries, one.kth) for one in questions]
        enough = all(surely(some) >= target for some in shares)
        if enough or effort == efforts[-1]:
            break
    measured = [Measured.of(one.kind, one.similarity, some) for one, some in zip(questions, shares, strict=True)]
    return effort, measured, enough


def _recall(target: float, at: int, measured: Sequence[Measured]) -> dict[str, Any]:
    return {"at": at, "target": target, "measured": [asdict(one) for one in measured]}
