"""The HNSW index of a layer: built to the same bytes however often the work was interrupted, and loaded verified."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError
from cvgl.files import atomic_path
from cvgl.gallery import ranking
from cvgl.gallery.axes import along, reach
from cvgl.gallery.parts import Part

__all__ = [
    "EFFORTS",
    "ELEMENT_BYTES",
    "LARGE",
    "LAST_EFFORTS",
    "NARROW_ABOVE",
    "STRUCTURES",
    "build_index",
    "find",
    "load_index",
]

STRUCTURES = ((16, 200), (32, 200))
"""hnswlib's M and ef_construction: what is tried, the smaller one first. At the same recall both search as fast (25 000
tiles of 384-d); the larger one takes longer to build and goes further. An ef_construction of 400 changed neither."""
LARGE = 300_000
"""Tiles above which the smaller one is not tried: it needed an ef of 150, 190 and 384 at 25 000, 57 000 and 100 000."""
NARROW_ABOVE = 20_000
"""Tiles above which an index along the principal axes is tried first, with the larger structure: 100 000 tiles of 384-d
took 0.6 ms of processor a query instead of 2.0 at the same recall, and the index a third of the memory. Smaller layers
are compared tile by tile (:meth:`cvgl.gallery.Gallery.search`)."""
EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384, 512)
"""hnswlib's ef: what is tried, the fastest first."""
LAST_EFFORTS = (768, 1024)
"""What is tried where no larger structure is left."""
ELEMENT_BYTES = 120
"""What hnswlib takes for an element in memory beyond its file: a lock, a label in a hash table, a pointer, marks."""

_SEED = 20
_CHUNK = 1000
# hnswlib saves the graph but not the state of its random numbers. So the build saves and loads itself at fixed places,
# interrupted or not, and goes on alike from there.
_SNAPSHOT = 50_000
_SNAPSHOT_SUFFIX = ".growing"


def build_index(
    path: Path,
    rows: Callable[[int, int], NDArray[np.float32]],
    count: int,
    dimension: int,
    tell: Callable[[int], None],
    structure: tuple[int, int] = STRUCTURES[0],
) -> None:
    """Write the index of some descriptors; goes on from the last snapshot beside ``path``.

    Args:
        path: of the index, which appears whole.
        rows: gives descriptors ``start`` to ``stop``, (stop - start, dimension) of unit length.
        count: of descriptors.
        dimension: of a descriptor.
        tell: called with how many are in.
        structure: M and ef_construction.

    Raises:
        OSError: the disk is full.
    """
    import hnswlib

    snapshot = path.with_name(path.name + _SNAPSHOT_SUFFIX)
    index = hnswlib.Index(space="ip", dim=dimension)
    if snapshot.exists():
        index.load_index(str(snapshot), max_elements=count)
    else:
        m, ef_construction = structure
        index.init_index(max_elements=count, M=m, ef_construction=ef_construction, random_seed=_SEED)
    start = index.get_current_count()
    while start < count:
        stop = min(start + _CHUNK, count)
        # One thread: with more, the graph depends on who comes first.
        index.add_items(rows(start, stop), np.arange(start, stop), num_threads=1)
        start = stop
        if start % _SNAPSHOT == 0 and start < count:
            _save(index, snapshot)
            index = hnswlib.Index(space="ip", dim=dimension)
            index.load_index(str(snapshot), max_elements=count)
        tell(start)
    _save(index, path)
    snapshot.unlink(missing_ok=True)


def load_index(part: Part | None, path: Path, dimension: int, count: int) -> Any:
    """Load an index.

    Args:
        part: the file, which is verified here; None if that is done.
        path: of the file.
        dimension, count: what is to be in it.

    Raises:
        GalleryError: altered, or not what it should be.
    """
    import hnswlib

    if part is not None:
        # Before hnswlib sees it, which crashes on some damaged files and takes others for whole.
        part.verify()
    index = hnswlib.Index(space="ip", dim=dimension)
    try:
        index.load_index(str(path) if part is None else part.same_file(), max_elements=count)
    except RuntimeError as reason:
        raise GalleryError(f"hnswlib does not load it: {reason}", file=path) from reason
    if index.get_current_count() != count:
        raise GalleryError(
            "the index holds other tiles than the table",
            file=path,
            field="count",
            found=index.get_current_count(),
            expected=str(count),
        )
    return index


def find(
    index: Any,
    axes: NDArray[np.float32] | None,
    queries: NDArray[np.float32],
    k: int,
    rows: Callable[[NDArray[np.int64]], NDArray[np.floating]],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What an index finds for queries, on one thread.

    Args:
        index: as :func:`load_index` gives it, its effort set.
        axes: along which it was built (`cvgl.gallery.axes`); None if of whole descriptors.
        queries: (B, D) of unit length.
        k: how many, at most as many as there are.
        rows: gives whole descriptors by number.

    Returns:
        Numbers (B, k) and similarities (B, k), best first, ties by number.

    Raises:
        RuntimeError: hnswlib's way to say that the graph led to fewer than k; rare.
    """
    if axes is None:
        found, distances = index.knn_query(queries, k, num_threads=1)
        # Equal descriptors have equal distances, whatever their place. Asking the index for the descriptors, to compute
        # similarities as exact search does, took five times as long as finding them.
        numbers, similarity = found.astype(np.int64), np.float32(1.0) - np.asarray(distances, np.float32)
        best = np.lexsort((numbers, -similarity), axis=1)
        return np.take_along_axis(numbers, best, axis=1), np.take_along_axis(similarity, best, axis=1)
    few = min(reach(k), index.get_current_count())
    found, _ = index.knn_query(along(queries, axes, False), few, num_threads=1)
    numbers, similarity = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for i, query in enumerate(queries):
        some = np.sort(found[i].astype(np.int64))
        numbers[i], similarity[i] = ranking.order(query, rows(some), some, k)
    return numbers, similarity


def _save(index: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        index.save_index(str(temporary))
        # hnswlib writes on without a word when the disk is full.
        if os.path.getsize(temporary) != index.index_file_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
