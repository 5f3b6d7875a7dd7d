"""Peers of the gallery's search: exact products and graphs of other libraries over the same descriptors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.bench.machine import peak_memory_mb
from cvgl.errors import GalleryError, MissingDependencyError
from cvgl.gallery import Gallery

__all__ = [
    "CONTESTANTS",
    "Searcher",
    "build_searcher",
    "exact_similarity",
    "library_version",
    "loading",
    "open_searcher",
    "recall",
]

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]
"""(B, D) unit descriptors to (B, k) tiles, best first."""

# Of every graph, as the gallery's own: links of a node, effort of building and of searching.
_LINKS, _BUILD_EFFORT, _EFFORT = 16, 200, 64
# What single precision loses in a product of unit vectors.
_SLACK = 2e-6
_CHUNK = 1 << 16
_LOAD_LIMIT_S = 120.0


@dataclass(frozen=True)
class Searcher:
    """A library's index, ready.

    Args:
        name: as in ``CONTESTANTS``.
        search: the nearest tiles of descriptors.
    """

    name: str
    search: Search


CONTESTANTS = {
    "cvgl": "cvgl",
    "numpy exact": "numpy",
    "faiss flat": "faiss",
    "faiss HNSW": "faiss",
    "usearch HNSW, f32": "usearch",
    "usearch HNSW, f16": "usearch",
}
"""Who takes part, and the library that it needs."""

_DISTRIBUTIONS = {"faiss": "faiss-cpu"}


def library_version(library: str) -> str:
    """Its version.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        module = import_module(library)
        return str(getattr(module, "__version__", "")) or version(_DISTRIBUTIONS.get(library, library))
    except ImportError as reason:
        raise MissingDependencyError(
            f"{library} is not installed", field="peer", expected=f"pip install {_DISTRIBUTIONS.get(library, library)}"
        ) from reason


def build_searcher(name: str, descriptors: NDArray[np.float32], file: Path, threads: int) -> float:
    """Build a library's index over descriptors and write it to a file, which its own loader reads.

    Args:
        name: of ``CONTESTANTS`` but "cvgl", whose index is the gallery's.
        descriptors: (N, D) of unit length.
        file: to write.
        threads: to build with.

    Returns:
        Seconds that building took, writing included.

    Raises:
        MissingDependencyError: the library is not installed.
        GalleryError: an unknown name.
    """
    library_version(_library(name))
    rows = np.ascontiguousarray(descriptors, np.float32)
    began = time.perf_counter()
    if name == "numpy exact":
        np.save(file, rows)
        file.with_name(f"{file.name}.npy").rename(file)
    elif name.startswith("faiss"):
        faiss: Any = import_module("faiss")
        faiss.omp_set_num_threads(threads)
        if name == "faiss flat":
            index = faiss.IndexFlatIP(rows.shape[1])
        else:
            index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _BUILD_EFFORT
        index.add(rows)
        faiss.write_index(index, str(file))
    else:
        graph = _usearch_index()(
            ndim=rows.shape[1],
            metric="ip",
            dtype=name[-3:],
            connectivity=_LINKS,
            expansion_add=_BUILD_EFFORT,
            expansion_search=_EFFORT,
        )
        graph.add(np.arange(len(rows)), rows, threads=threads)
        graph.save(str(file))
    return time.perf_counter() - began


def open_searcher(name: str, source: Gallery | Path, k: int, threads: int) -> Searcher:
    """Load what is searched, and search it once so that nothing is left to be done at the first query.

    Args:
        name: of ``CONTESTANTS``.
        source: the gallery for "cvgl", else the file that :func:`build_searcher` wrote.
        k: how many tiles a query wants.
        threads: to search with.

    Raises:
        MissingDependencyError: the library is not installed.
        GalleryError: an unknown name, or a source that is not this contestant's.
    """
    library_version(_library(name))
    if isinstance(source, Gallery) != (name == "cvgl"):
        raise GalleryError("not this contestant's", field="source", found=type(source).__name__, expected=f"{name}'s")
    if isinstance(source, Gallery):
        search, dimension = _gallery(source, k), source.manifest.dimension
    elif name == "numpy exact":
        search, dimension = _product(np.load(source), k)
    elif name.startswith("faiss"):
        search, dimension = _faiss(source, k, threads)
    else:
        search, dimension = _usearch(source, k, threads)
    search(np.eye(1, dimension, dtype=np.float32))
    return Searcher(name, search)


def exact_similarity(queries: NDArray[np.float32], descriptors: NDArray[Any], k: int) -> NDArray[np.float32]:
    """(B,) similarity of each query's k-th best tile, by comparing with every tile."""
    parts = [
        queries @ np.asarray(descriptors[start : start + _CHUNK], np.float32).T
        for start in range(0, len(descriptors), _CHUNK)
    ]
    return np.partition(np.concatenate(parts, axis=1), -k, axis=1)[:, -k]


def recall(
    found: NDArray[np.int64],
    queries: NDArray[np.float32],
    descriptors: NDArray[Any],
    kth: NDArray[np.float32],
) -> float:
    """Share of the tiles found that are as similar as the exact search's k-th, so that ties count as found.

    Args:
        found: (B, k) tiles; -1 where an index found fewer.
        queries: (B, D).
        descriptors: (N, D).
        kth: (B,) as :func:`exact_similarity` has it.
    """
    similarity = np.einsum("bd,bkd->bk", queries, np.asarray(descriptors[found], np.float32))
    return float(((similarity >= kth[:, None] - _SLACK) & (found >= 0)).mean())


def loading(name: str, source: Path, k: int, threads: int) -> dict[str, float | None]:
    """Load an index in a process of its own.

    Args:
        name: of ``CONTESTANTS``.
        source: the gallery's folder for "cvgl", else the index's file.
        k: how many tiles a query wants.
        threads: to search with.

    Returns:
        ``load_ms`` from the library being imported to the first answer, and ``memory_mb`` by which its peak grew;
        None where the system does not tell.

    Raises:
        GalleryError: the process fails; its last line of complaint is part of the message.
    """
    code = "import sys; from cvgl.bench import peers_search; peers_search._load_once(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(source), str(k), str(threads)],
        capture_output=True,
        text=True,
        timeout=_LOAD_LIMIT_S,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GalleryError(f"{name} did not load: {said}", file=source)
    answer: dict[str, float | None] = json.loads(done.stdout)
    return answer


def _load_once(name: str, source: str, k: str, threads: str) -> None:
    """The other side of :func:`loading`."""
    import_module(_library(name))
    if name == "cvgl":
        import_module("hnswlib")  # as the others' libraries, it is not part of what is timed
    before = peak_memory_mb()
    began = time.perf_counter()
    opened: Any = Gallery.open(source) if name == "cvgl" else Path(source)
    searcher = open_searcher(name, opened, int(k), int(threads))
    spent = 1e3 * (time.perf_counter() - began)
    after = peak_memory_mb()
    grown = None if before is None or after is None else round(after - before, 1)
    print(json.dumps({"load_ms": round(spent, 2), "memory_mb": grown}))
    del searcher


def _library(name: str) -> str:
    if name not in CONTESTANTS:
        raise GalleryError("unknown contestant", field="name", found=name, expected=" or ".join(CONTESTANTS))
    return CONTESTANTS[name]


def _usearch_index() -> Any:
    # By name, as faiss: neither is a dependency, and both have type stubs that say less than they take.
    return import_module("usearch.index").Index


def _gallery(gallery: Gallery, k: int) -> Search:
    return lambda queries: gallery.search(queries, k)[0]


def _product(rows: NDArray[np.float32], k: int) -> tuple[Search, int]:
    k = min(k, len(rows))

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        similarity = queries @ rows.T
        best = np.argpartition(similarity, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1)
        return np.take_along_axis(best, order, axis=1)

    return search, rows.shape[1]


def _faiss(file: Path, k: int, threads: int) -> tuple[Search, int]:
    faiss: Any = import_module("faiss")
    faiss.omp_set_num_threads(threads)
    index = faiss.read_index(str(file))
    k = min(k, index.ntotal)
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = _EFFORT
    return lambda queries: index.search(queries, k)[1], index.d


def _usearch(file: Path, k: int, threads: int) -> tuple[Search, int]:
    index = _usearch_index().restore(str(file))
    index.expansion_search = _EFFORT
    k = min(k, len(index))

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        keys = index.search(queries, k, threads=threads).keys
        return keys.astype(np.int64).reshape(len(queries), -1)

    return search, index.ndim
