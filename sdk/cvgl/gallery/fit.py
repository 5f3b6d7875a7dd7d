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
from cvgl.files import atomic_path, read_json, write_json
from cvgl.gallery import ranking
from cvgl.gallery.axes import AXES, along, axes_name, principal_axes
from cvgl.gallery.index import (
    EFFORTS,
    LARGE,
    LAST_EFFORTS,
    NARROW_ABOVE,
    STRUCTURES,
    build_index,
    find,
    load_index,
)
from cvgl.gallery.parts import NpyWriter
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

__all__ = ["Fitting", "Questions", "ask", "fit_index", "fit_tree"]

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


@dataclass(frozen=True)
class Fitting:
    """What an index or a tree is made of, and what it is held to.

    Args:
        pieces: the folder of unfinished work, where it is recorded what the manifest says of what is done.
        rows: the layer's descriptors.
        count, dimension: of them.
        questions: by which recall is measured, each kind by itself.
        target: recall that every kind is to reach, with a margin so that other queries do too.
        tell: called with how many tiles are in.
    """

    pieces: Path
    rows: Rows
    count: int
    dimension: int
    questions: Sequence[Questions]
    target: float
    tell: Callable[[int], None]

    @property
    def k(self) -> int:
        """Tiles at which recall is taken."""
        return min(AT, self.count)

    def record(self, file: Path) -> Path:
        """Where it is written what the manifest says of a file's index or tree."""
        return self.pieces / f"{file.name}.json"

    def done(self, *files: Path) -> dict[str, Any] | None:
        """What was recorded of files (under the first one's name), if they are all there."""
        record = self.record(files[0])
        there = record.exists() and all(file.exists() for file in files)
        return read_json(record, GalleryError) if there else None

    def reached(self, measured: Sequence[Measured]) -> dict[str, Any]:
        """What the manifest says of recall."""
        return {"at": self.k, "target": self.target, "measured": [asdict(one) for one in measured]}


def fit_index(path: Path, fitting: Fitting) -> dict[str, Any]:
    """Write the index of a layer: of the structures known the first that reaches a recall, at the least effort. Where
    none of them does, the last one is taken with the most effort, and what it reaches is told.

    Args:
        path: of the index, which appears whole.
        fitting: what of.

    Returns:
        What the manifest says of it.
    """
    if (earlier := fitting.done(path)) is not None:
        return earlier
    entry: dict[str, Any] = {}
    count, dimension = fitting.count, fitting.dimension
    trials = [(structure, False) for structure in (STRUCTURES if count <= LARGE else STRUCTURES[-1:])]
    if count > NARROW_ABOVE and dimension >= 2 * AXES:
        trials.insert(0, (STRUCTURES[-1], True))
    for structure, narrow in trials:
        m, ef_construction = structure
        efforts = (*EFFORTS, *LAST_EFFORTS) if m == STRUCTURES[-1][0] else EFFORTS
        axes = _axes(path, fitting) if narrow else None
        built = fitting.pieces / f"{path.name}-{m}{'-narrow' if narrow else ''}"

        def rows(start: int, stop: int, axes: NDArray[np.float32] | None = axes) -> NDArray[np.float32]:
            whole = fitting.rows(slice(start, stop))
            return whole if axes is None else along(whole, axes, True)

        size = dimension if axes is None else AXES
        if not built.exists():
            build_index(built, rows, count, size, fitting.tell, structure)
        index = load_index(None, built, size, count)

        def search(
            queries: NDArray[np.float32], effort: int, index: Any = index, axes: NDArray[np.float32] | None = axes
        ) -> NDArray[np.float32]:
            index.set_ef(effort)
            return find(index, axes, queries, fitting.k, fitting.rows)[1]

        effort, measured, enough = _least(efforts, search, fitting)
        entry = {"file": path.name, "M": m, "ef_construction": ef_construction, "ef": effort}
        entry |= {"axes": AXES} if narrow else {}
        entry["recall"] = fitting.reached(measured)
        if enough:
            break
    if "axes" not in entry:
        path.with_name(axes_name(path.name)).unlink(missing_ok=True)
    write_json(fitting.record(path), entry)
    os.replace(built, path)
    return entry


def _axes(path: Path, fitting: Fitting) -> NDArray[np.float32]:
    """The axes of an index, which are written beside it."""
    file = path.with_name(axes_name(path.name))
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.unlink()
            with NpyWriter(temporary, np.float32, (fitting.dimension,)) as writer:
                writer.write(principal_axes(fitting.rows, fitting.count))
    return np.asarray(np.load(file), np.float32)


def fit_tree(nodes_file: Path, order_file: Path, fitting: Fitting) -> dict[str, Any]:
    """Write the tree of a layer, and find how many tiles have to be compared.

    Args:
        nodes_file, order_file: of the tree.
        fitting: what of.

    Returns:
        What the manifest says of it.
    """
    if (earlier := fitting.done(nodes_file, order_file)) is not None:
        return earlier
    count, k = fitting.count, fitting.k
    nodes, order = build_tree(fitting.rows, count, fitting.dimension, fitting.tell)
    tree = KMeansTree(nodes, order)

    def search(queries: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        found = np.empty((len(queries), k), np.float32)
        for number, query in enumerate(queries):
            among = tree.among(query, max(effort, k))
            found[number] = ranking.best_few(query, fitting.rows(among), among, k)[1]
        return found

    budgets = [budget for budget in BUDGETS if budget < count] or [count]
    budget, measured, _ = _least(budgets, search, fitting)
    for file in (nodes_file, order_file):
        file.unlink(missing_ok=True)
    write_tree(nodes_file, order_file, nodes, order)
    entry = {"nodes": nodes_file.name, "order": order_file.name, "count": len(nodes), "branches": BRANCHES}
    entry |= {"leaf": LEAF, "budget": budget, "recall": fitting.reached(measured)}
    write_json(fitting.record(nodes_file), entry)
    return entry


def _least(
    efforts: Sequence[int], search: Callable[..., NDArray[np.float32]], fitting: Fitting
) -> tuple[int, list[Measured], bool]:
    """The least effort that reaches a recall for every kind of question, or the most there is; what it reaches, and
    whether that is enough."""
    questions = fitting.questions
    for effort in efforts:
        shares = [found_shares(partial(search, effort=effort), one.queries, one.kth) for one in questions]
        enough = all(surely(some) >= fitting.target for some in shares)
        if enough or effort == efforts[-1]:
            break
    measured = [Measured.of(one.kind, one.similarity, some) for one, some in zip(questions, shares, strict=True)]
    return effort, measured, enough
