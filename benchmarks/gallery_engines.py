"""Engines that find similar tiles, built, loaded and asked in the same way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import TILE_PX
from cvgl.bench.machine import allocated_mb, machine
from cvgl.bench.start import forget_files
from cvgl.errors import GalleryError
from cvgl.files import read_json, write_json
from cvgl.gallery import Gallery, ranking
from cvgl.gallery.index import EFFORTS, LAST_EFFORTS, STRUCTURES
from cvgl.gallery.manifest import OVERVIEW, TABLE, Raster
from cvgl.gallery.recall import AT, DISTURBED, SIMILARITY, TARGET, Measured, found_shares, surely
from cvgl.gallery.tree import BUDGETS, KMeansTree, build_tree, write_tree
from cvgl.gallery.work import Work
from cvgl.gallery.write import LayerTiles, Search, finish, write_basemap, write_indices, write_tiles
from cvgl.geo import LocalFrame

__all__ = ["ENGINES", "NOTES", "Left", "Task", "measure_engine"]

_CHUNK = 10_000
_WARM_UP = 50

NOTES = {
    "cvgl": "one thread, so that the same tiles give the same bytes; its build includes choosing the parameters and the"
    " hashes; vectors in half precision beside the index, which holds them in single, to 20 000 tiles whole and above"
    " along 64 principal axes, where what it finds is then compared whole; loading verifies every hash.",
    "cvgl-tree": "the k-means tree; effort is the number of tiles compared. Vectors in half precision.",
    "faiss-hnsw": "IndexHNSWFlat of whole vectors with the M and efConstruction that cvgl chose, built on all cores.",
    "usearch": "whole vectors, the same M and expansion_add, float32, built on all cores; loaded, not mapped.",
    "faiss-flat": "IndexFlatIP: exact.",
}


class Left:
    """Progress in one line, with the time left."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._began = what, total, time.perf_counter()
        self._said = self._began

    def __call__(self, done: int) -> None:
        """So many are done."""
        now = time.perf_counter()
        if done < self._total and now - self._said < 1.0:
            return
        self._said = now
        left = (now - self._began) * (self._total / max(done, 1) - 1)
        print(f"  {self._what}: {done} of {self._total}, {left:.0f} s left   ", end="\r", flush=True)
        if done >= self._total:
            print(flush=True)


@dataclass(frozen=True)
class Task:
    """Tiles, queries and what was found of them, in a folder."""

    folder: Path

    @property
    def rows(self) -> Path:
        """(N, D) float16, ``.npy``."""
        return self.folder / "rows.npy"

    @property
    def shape(self) -> tuple[int, int]:
        """Of the tiles' descriptors."""
        count, dimension = np.load(self.rows, mmap_mode="r").shape
        return count, dimension

    def result(self, engine: str) -> Path:
        """Where it is kept what an engine reached."""
        return self.folder / f"{engine}.json"

    def built(self, engine: str) -> Path:
        """What an engine wrote."""
        return self.folder / f"{engine}.built"

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Descriptors in pieces, single precision; read, not mapped, so that the file counts for nobody's memory."""
        count, dimension = self.shape
        with open(self.rows, "rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            for start in range(0, count, _CHUNK):
                size = min(_CHUNK, count - start) * dimension
                yield np.fromfile(file, np.float16, size).reshape(-1, dimension).astype(np.float32)

    def questions(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Queries, and the similarity of the last tile that is asked for."""
        with np.load(self.folder / f"{name}.npz") as held:
            return held["queries"], held["kth"]

    def structure(self) -> tuple[int, int]:
        """M and ef_construction that cvgl chose at this size."""
        if not self.built("cvgl").is_dir():
            return STRUCTURES[0]
        index = Gallery.open(self.built("cvgl")).manifest.data["layers"][0]["index"]
        return index["M"], index["ef_construction"]


class Engine(ABC):
    """One way to search. Built in one process, loaded and asked in another.

    Attributes:
        efforts: what may be asked of it, the fastest first; one only where there is nothing to choose.
    """

    efforts: Sequence[int] = (*EFFORTS, *LAST_EFFORTS)

    @abstractmethod
    def build(self, task: Task, path: Path, tell: Left) -> None:
        """Write what is searched."""

    @abstractmethod
    def load(self, task: Task, path: Path) -> None:
        """Make it ready."""

    @abstractmethod
    def ask(self, query: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        """Similarities (1, AT) of what is found for one query (1, D)."""


class Cvgl(Engine):
    """This project's index, as a gallery carries it. Its effort was chosen when it was built."""

    def build(self, task: Task, path: Path, tell: Left) -> None:
        """As :class:`Engine`."""
        count, dimension = task.shape
        layer = LayerTiles(100.0, 128, 100 / 128, 20.0, 0.0, count)
        with Work.open(path, {"count": count}, True) as work:
            if not work.done("tiles.npy"):
                stored = (rows.astype(np.float16) for rows in task.chunks())
                write_tiles(work.gallery, np.zeros(count, TABLE), stored, dimension, "float16")
            searched = write_indices(
                work, [layer], dimension, "float16", lambda stage, done, total: tell(done), Search(TARGET)
            )
            write_basemap(work.gallery, np.zeros((1, 1), np.int32), [np.full((1, TILE_PX, TILE_PX), 90, np.uint8)])
            cv2.imwrite(str(work.gallery / OVERVIEW), np.zeros((64, 64, 3), np.uint8))
            raster = Raster(64, 64, 1.0, -32.0, 32.0)
            finish(
                work,
                model=("synthetic", "0" * 64),
                dimension=dimension,
                layers=[layer],
                searched=searched,
                local=LocalFrame(47.0, 9.5),
                bounds=(-32.0, -32.0, 32.0, 32.0),
                source="synthetic",
                attribution="",
                stored={"stored": "float16"},
                basemap=Raster(TILE_PX, TILE_PX, 1.0, -32.0, 32.0),
                overview={"file": OVERVIEW, **asdict(raster)},
            )

    def load(self, task: Task, path: Path) -> None:
        """As :class:`Engine`."""
        self._gallery = Gallery.open(path)
        self.efforts = (self._gallery.manifest.layers[0].ef,)

    def ask(self, query: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        """As :class:`Engine`."""
        return self._gallery.approximate(query, AT)[1]


class Tree(Engine):
    """This project's k-means tree."""

    efforts = BUDGETS

    def build(self, task: Task, path: Path, tell: Left) -> None:
        """As :class:`Engine`."""
        rows = np.concatenate([chunk.astype(np.float16) for chunk in task.chunks()])
        nodes, order = build_tree(lambda which: rows[which].astype(np.float32), *rows.shape, tell)
        path.mkdir(exist_ok=True)
        for file in path.iterdir():
            file.unlink()
        write_tree(path / "tree.npy", path / "tree_order.npy", nodes, order)

    def load(self, task: Task, path: Path) -> None:
        """As :class:`Engine`."""
        self._rows = np.load(task.rows)
        self._tree = KMeansTree(np.load(path / "tree.npy"), np.load(path / "tree_order.npy"))

    def ask(self, query: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        """As :class:`Engine`."""
        among = self._tree.among(query[0], effort)
        return ranking.best_few(query[0], self._rows[among], among, AT)[1][None]


class Faiss(Engine):
    """faiss: HNSW, or every vector compared.

    Args:
        flat: the latter.
    """

    def __init__(self, flat: bool) -> None:
        self._flat = flat
        if flat:
            self.efforts = (0,)

    def build(self, task: Task, path: Path, tell: Left) -> None:
        """As :class:`Engine`."""
        import faiss

        _, dimension = task.shape
        m, ef_construction = task.structure()
        if self._flat:
            index = faiss.IndexFlatIP(dimension)
        else:
            index = faiss.IndexHNSWFlat(dimension, m, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = ef_construction
        for chunk in task.chunks():
            index.add(chunk)
            tell(index.ntotal)
        faiss.write_index(index, str(path))

    def load(self, task: Task, path: Path) -> None:
        """As :class:`Engine`."""
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(path))

    def ask(self, query: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        """As :class:`Engine`."""
        if not self._flat:
            self._index.hnsw.efSearch = effort
        return np.asarray(self._index.search(query, AT)[0])


class Usearch(Engine):
    """usearch."""

    def build(self, task: Task, path: Path, tell: Left) -> None:
        """As :class:`Engine`."""
        from usearch.index import Index

        dimension = task.shape[1]
        m, ef_construction = task.structure()
        index = Index(ndim=dimension, metric="ip", dtype="f32", connectivity=m, expansion_add=ef_construction)
        done = 0
        for chunk in task.chunks():
            index.add(np.arange(done, done + len(chunk)), chunk)
            done += len(chunk)
            tell(done)
        index.save(str(path))

    def load(self, task: Task, path: Path) -> None:
        """As :class:`Engine`."""
        from usearch.index import Index

        self._index = Index.restore(str(path), view=False)

    def ask(self, query: NDArray[np.float32], effort: int) -> NDArray[np.float32]:
        """As :class:`Engine`."""
        self._index.expansion_search = effort
        return 1.0 - np.asarray(self._index.search(query[0], AT, threads=1).distances)[None]


ENGINES = ("cvgl", "faiss-hnsw", "usearch", "cvgl-tree", "faiss-flat")


def _engine(name: str) -> Engine:
    return {
        "cvgl": Cvgl,
        "cvgl-tree": Tree,
        "faiss-hnsw": lambda: Faiss(False),
        "faiss-flat": lambda: Faiss(True),
        "usearch": Usearch,
    }[name]()


def measure_engine(task: Task, name: str) -> dict[str, Any]:
    """Build in this process, unless that was done, and load and ask in another one.

    Returns:
        ``build_s`` by the clock and ``build_processor_s``, ``build_peak_mb`` (memory that is no file's), ``disk_mb``;
        ``load_ms`` and ``loaded_mb``; ``effort`` chosen, ``recall`` with ``low`` and ``high``; ``p50_ms``, ``p95_ms``
        of a query by the clock and ``p50_processor_ms``; ``load_average`` of the machine.
    """
    record, path = task.folder / f"{name}.build.json", task.built(name)
    if not record.exists():
        engine, began, busy = _engine(name), time.perf_counter(), time.process_time()
        with _peak() as peak:
            engine.build(task, path, Left("built", task.shape[0]))
        built = {"build_s": time.perf_counter() - began, "build_processor_s": time.process_time() - busy}
        write_json(record, {**built, "build_peak_mb": peak[0], "disk_mb": _bytes(path) / 1e6})
    done = subprocess.run(
        [sys.executable, __file__, str(task.folder), name], check=True, stdout=subprocess.PIPE, text=True
    )
    asked = json.loads(done.stdout.splitlines()[-1])
    return {**read_json(record, GalleryError), **asked, "load_average": machine()["load_average"]}


def _ask(task: Task, name: str) -> dict[str, Any]:
    engine, path = _engine(name), task.built(name)
    if name.startswith("faiss"):
        import faiss  # noqa: F401 (not part of loading)
    if name == "usearch":
        import usearch.index  # noqa: F401
    choosing, chosen_kth = task.questions("choosing")
    judging, kth = task.questions("judging")
    forget_files(task.folder)
    before, began = allocated_mb() or 0.0, time.perf_counter()
    engine.load(task, path)
    engine.ask(choosing[:1], engine.efforts[0])
    loaded = {"load_ms": 1e3 * (time.perf_counter() - began), "loaded_mb": (allocated_mb() or 0.0) - before}

    def reached(queries: NDArray[np.float32], kth: NDArray[np.float32], effort: int) -> NDArray[np.float64]:
        def every(asked: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.concatenate([engine.ask(query[None], effort) for query in asked])

        return found_shares(every, queries, kth)

    for effort in engine.efforts:
        if len(engine.efforts) == 1 or surely(reached(choosing, chosen_kth, effort)) >= TARGET:
            break
    found = Measured.of(DISTURBED, SIMILARITY, reached(judging, kth, effort))
    spent, busy = [], []
    for query in np.concatenate([choosing[:_WARM_UP], judging]):
        began, busy_before = time.perf_counter(), time.process_time()
        engine.ask(query[None], effort)
        busy.append(1e3 * (time.process_time() - busy_before))
        spent.append(1e3 * (time.perf_counter() - began))
    p50, p95 = np.percentile(spent[_WARM_UP:], (50, 95))
    processor = float(np.median(busy[_WARM_UP:]))
    told = {"effort": effort, "recall": found.recall, "low": found.low, "high": found.high}
    return {**loaded, **told, "p50_ms": float(p50), "p95_ms": float(p95), "p50_processor_ms": processor}


@contextmanager
def _peak() -> Iterator[list[float]]:
    """The most memory that is no file's while the block runs, MB."""
    found, over = [allocated_mb() or 0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found[0] = max(found[0], allocated_mb() or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))


if __name__ == "__main__":
    print(json.dumps(_ask(Task(Path(sys.argv[1])), sys.argv[2])))
