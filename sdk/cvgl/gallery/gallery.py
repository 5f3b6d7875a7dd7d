"""A gallery, opened: read and verified as far as it is needed, and searched."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import HELD_TILES, TILE_PX, Basemap, TiledPixels, load_array
from cvgl.errors import GalleryError
from cvgl.files import check_files
from cvgl.gallery import ranking
from cvgl.gallery.axes import axes_name
from cvgl.gallery.descriptors import UnitRows
from cvgl.gallery.index import ELEMENT_BYTES, find, load_index
from cvgl.gallery.manifest import (
    BASEMAP,
    BASEMAP_TILES,
    DESCRIPTORS,
    STORED,
    TABLE,
    TILES,
    GalleryManifest,
    read_manifest,
)
from cvgl.gallery.parts import BLOCKS, Part, PartArray, check_npy_head, open_parts
from cvgl.gallery.tree import KMeansTree, node_type
from cvgl.geo import LocalFrame

if TYPE_CHECKING:
    from cvgl.model import Model

__all__ = ["EXACT_UP_TO", "Gallery", "Memory", "memory_bytes", "memory_of"]

# See Gallery.search.
EXACT_UP_TO = 20_000
# In which Linux may give memory to large arrays, however little of it is written.
_PAGE_BYTES = 1 << 21


class Gallery:
    """Tiles with descriptors, an index over them, and the basemap. Use :meth:`open`.

    Nothing is used before its hash was checked, and nothing is read before it is needed: a part that was altered is
    found by the first search or look that would have used what was altered. Searching and reading are safe for several
    threads, and take no lock once a part is in memory.

    Attributes:
        manifest: what the gallery says of itself.
        descriptors: (N, D) of unit length, float16 or, where they are stored as int8, float32: an array of which rows
            are read as they are asked for (``numpy.asarray`` reads all).
        basemap: what refinement reads.
    """

    def __init__(
        self,
        manifest: GalleryManifest,
        tiles: NDArray[Any] | PartArray,
        descriptors: NDArray[np.float16] | PartArray | UnitRows,
        basemap: Basemap,
        parts: Mapping[str, Part] | None = None,
    ) -> None:
        self.manifest = manifest
        self.descriptors = descriptors
        self.basemap = basemap
        self._tiles = tiles
        self._parts = dict(parts or {})
        self._indices: dict[str, Any] = {}
        self._loading = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, model: Model | None = None) -> Gallery:
        """Open a gallery: its manifest is read, and that every part is there and has its size. Galleries of format
        version 1 are verified as a whole.

        Args:
            path: the folder.
            model: the one whose descriptors will be searched for; its fingerprint must be the gallery's.

        Raises:
            GalleryError: no gallery, a file absent or altered, or a gallery of another model.
        """
        manifest = read_manifest(path)
        if model is not None and model.fingerprint != manifest.model_fingerprint:
            raise GalleryError(
                f"built with another model than {model.name}",
                file=manifest.path,
                field="model.fingerprint",
                found=f"{manifest.model_name} {manifest.model_fingerprint[:16]}",
                expected=f"{model.name} {model.fingerprint[:16]}",
            )
        return _open_whole(manifest) if manifest.version == 1 else _open_parts(manifest)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.manifest.path

    @property
    def local(self) -> LocalFrame:
        """The local tangent plane of all eastings and northings."""
        return self.manifest.local

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the map in metres of ``local``."""
        return self.manifest.bounds

    @property
    def memory_bytes(self) -> int:
        """Memory that it takes at most; see :func:`memory_of`."""
        return memory_bytes(self.manifest)

    @cached_property
    def tiles(self) -> NDArray[np.float64]:
        """(N, 2) float64, easting and northing of the tiles' centres; by layers, in each from north to south and from
        west to east."""
        if isinstance(self._tiles, np.ndarray):
            return self._tiles
        return np.stack([self.table["easting"], self.table["northing"]], axis=1)

    @cached_property
    def table(self) -> NDArray[Any]:
        """(N,) with the fields of :data:`cvgl.gallery.manifest.TABLE`: of each tile the place, how much of it has data,
        and whether there is anything to tell it by."""
        if not isinstance(self._tiles, np.ndarray):
            return np.asarray(self._tiles)
        table = np.zeros(len(self._tiles), TABLE)
        table["easting"], table["northing"] = self._tiles.T
        table["valid"] = 100
        return table

    def layer_for(self, tile_size_m: float) -> int:
        """Number of the north-up layer whose tiles are nearest to a size, by ratio."""
        upright = [number for number, layer in enumerate(self.manifest.layers) if layer.heading_deg == 0.0]
        return min(
            upright or [0], key=lambda number: abs(np.log(self.manifest.layers[number].tile_size_m / tile_size_m))
        )

    def verified(self, name: str) -> Path:
        """The file of a part, verified as a whole, for those who read it by themselves.

        Raises:
            GalleryError: it is altered.
        """
        if name in self._parts:
            self._parts[name].verify()
        return self.path / name

    def search(
        self, descriptors: NDArray[np.float32], k: int, layer: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most similar tiles of a whole layer.

        Up to 20 000 tiles by comparing with each, which misses nothing, beyond that by HNSW. Measured with 256-d
        descriptors on one thread of a busy machine, k = 20, the index at the effort that finds 0.99, milliseconds of
        processor of index and comparing (``benchmarks/gallery_search.py product``):

        ====== ============ =============
        tiles  one query    36 queries
        ====== ============ =============
         2 000 0.04 / 0.14   1.3 /  2.0
         5 000 0.07 / 0.26   2.6 /  4.3
        10 000 0.14 / 0.60   5.7 /  8.9
        20 000 0.29 / 1.66  11.4 / 16.6
        50 000 0.48 / 3.18  20.3 / 43
        ====== ============ =============

        HNSW is faster at every size. Up to 20 000 comparing still costs little beside the embedding of the queries,
        misses nothing, and needs no index in memory. That was measured with indices of whole descriptors; above 20 000
        they are now along principal axes (:mod:`cvgl.gallery.axes`), which is faster still.

        Args:
            descriptors: (B, D) of unit length.
            k: how many; fewer come where the layer has fewer.
            layer: which.

        Returns:
            tiles (B, k) int64 and their similarity (B, k) float32, best first, ties by tile number.

        Raises:
            GalleryError: descriptors of another size, or not finite; a part of the gallery is altered.
        """
        if self.manifest.layers[layer].count <= EXACT_UP_TO:
            return self.exact(descriptors, k, layer)
        return self.approximate(descriptors, k, layer)

    def exact(
        self, descriptors: NDArray[np.float32], k: int, layer: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same by comparing with every tile."""
        queries, k = self._queries(descriptors, k, layer)
        tiles, similarity = ranking.best_of_all(queries, self._matrix(layer), k)
        return tiles + self.manifest.layers[layer].first, similarity

    def approximate(
        self, descriptors: NDArray[np.float32], k: int, layer: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same by the HNSW index, which may miss a few (see :meth:`self_check`)."""
        queries, k = self._queries(descriptors, k, layer)
        if not len(queries):
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        index, first = self._index(layer), self.manifest.layers[layer].first
        try:
            numbers, similarity = find(
                index, self._axes(layer), queries, k, lambda some: np.asarray(self.descriptors[first + some])
            )
        except RuntimeError:
            # The graph led to fewer than k; there is the exact answer.
            return self.exact(queries, k, layer)
        return numbers + first, similarity

    def tree(
        self, descriptors: NDArray[np.float32], k: int, layer: int = 0, budget: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same by the layer's k-means tree (:mod:`cvgl.gallery.tree`), where it was built with one; for comparison.

        Args:
            descriptors, k, layer: as for :meth:`search`.
            budget: tiles that are compared for each query; what the recall asked for took when it was built.

        Raises:
            GalleryError: as :meth:`search`; the layer has no tree.
        """
        queries, k = self._queries(descriptors, k, layer)
        among = self.manifest.layers[layer]
        if among.tree is None:
            raise GalleryError("the layer has no tree", file=self.path, field=f"layers[{layer}].tree")
        tree = self._tree(layer)
        tiles = np.empty((len(queries), k), np.int64)
        similarity = np.empty((len(queries), k), np.float32)
        for i, query in enumerate(queries):
            found = among.first + tree.among(query, max(k, among.tree.budget if budget is None else budget))
            tiles[i], similarity[i] = ranking.best_few(query, np.asarray(self.descriptors[found]), found, k)
        return tiles, similarity

    def near(
        self,
        descriptors: NDArray[np.float32],
        easting: float,
        northing: float,
        radius_m: float,
        k: int,
        layer: int = 0,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most similar tiles among those whose centre lies within a radius; exact.

        Args:
            descriptors: (B, D) of unit length.
            easting, northing: where, metres in ``local``.
            radius_m: metres.
            k: how many.
            layer: which.

        Returns:
            tiles (B, m) and similarity (B, m) as by :meth:`search`, m being the lesser of k and the number of
            tiles inside, which may be 0.

        Raises:
            GalleryError: descriptors of another size, or not finite.
        """
        queries, k = self._queries(descriptors, k, layer)
        first, band = self._band(layer, -northing - radius_m, -northing + radius_m + 1e-9)
        inside = first + np.flatnonzero(np.hypot(band[:, 0] - easting, band[:, 1] - northing) <= radius_m)
        k = min(k, len(inside))
        if k == 0:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        places, similarity = ranking.best_of_all(queries, np.asarray(self.descriptors[inside], np.float32), k)
        return inside[places], similarity

    def self_check(self, queries: NDArray[np.float32], k: int = 20, layer: int = 0) -> float:
        """Recall of the index: the share of its answers that are as good as the exact search's.

        Args:
            queries: (B, D) of unit length.
            k: at which recall is taken.
            layer: which.

        Returns:
            0 to 1.
        """
        _, best = self.exact(queries, k, layer)
        _, found = self.approximate(queries, k, layer)
        return float((found >= best[:, -1:] - 1e-6).mean())

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        west, south, east, north = self.bounds
        m = self.manifest
        return (
            f"<Gallery {self.path.name}: {len(self)} tiles of {m.tile_size_m:g} m every {m.stride_m:g} m,"
            f" {east - west:.0f} x {north - south:.0f} m of {m.source}, {m.dimension}-d by {m.model_name}"
            f" {m.model_fingerprint[:12]}>"
        )

    def _matrix(self, layer: int) -> Any:
        """A layer's descriptors ready for products; those of large galleries are widened piece by piece instead."""
        among = self.manifest.layers[layer]
        if among.count > EXACT_UP_TO:
            return self.descriptors if among.count == len(self) else _Rows(self.descriptors, among.first, among.stop)
        key = f"matrix {layer}"
        if key not in self._indices:
            self._indices[key] = np.asarray(self.descriptors[among.first : among.stop], np.float32)
        return self._indices[key]

    def _band(self, layer: int, low: float, high: float) -> tuple[int, NDArray[np.float64]]:
        """The tiles of a layer whose northing, negated, lies within [low, high): number of the first, (n, 2) centres.

        They come in rows from north to south, so they are one slice.
        """
        among = self.manifest.layers[layer]
        if isinstance(self._tiles, np.ndarray) or "tiles" in vars(self):
            first, last = among.first + np.searchsorted(self._southings[among.first : among.stop], (low, high))
            return int(first), np.asarray(self.tiles[first:last])
        # Reading all places of a large gallery takes long; halving reads a few blocks.
        table, rows = self._tiles, range(among.first, among.stop)
        first, last = (
            among.first + bisect_left(rows, bound, key=lambda row: -float(table[row]["northing"]))
            for bound in (low, high)
        )
        found = table[first:last]
        return first, np.stack([found["easting"], found["northing"]], axis=1)

    @cached_property
    def _southings(self) -> NDArray[np.float64]:
        return -np.ascontiguousarray(self.tiles[:, 1])

    def _index(self, layer: int) -> Any:
        # Not every gallery needs it; see search.
        among = self.manifest.layers[layer]
        if among.index not in self._indices:
            with self._loading:
                if among.index not in self._indices:
                    path, size = self.path / among.index, among.axes or self.manifest.dimension
                    index = load_index(self._parts.get(among.index), path, size, among.count)
                    index.set_ef(among.ef)
                    self._indices[among.index] = index
        return self._indices[among.index]

    def _axes(self, layer: int) -> NDArray[np.float32] | None:
        """(1 + axes, D) along which a layer's index was built; None if it is of whole descriptors."""
        among = self.manifest.layers[layer]
        if not among.axes:
            return None
        name = axes_name(among.index)
        if name not in self._indices:
            part = PartArray(self._parts[name], np.float32, (1 + among.axes, self.manifest.dimension))
            self._indices[name] = np.asarray(part)
        return np.asarray(self._indices[name])

    def _tree(self, layer: int) -> KMeansTree:
        place = self.manifest.layers[layer].tree
        key = f"tree {layer}"
        if place is not None and key not in self._indices:
            with self._loading:
                if key not in self._indices:
                    kind = node_type(self.manifest.dimension)
                    nodes = PartArray(self._parts[place.nodes], kind, (place.count,))
                    order = PartArray(self._parts[place.order], np.int32, (self.manifest.layers[layer].count,))
                    file = self.path / place.nodes
                    self._indices[key] = KMeansTree(np.asarray(nodes), np.asarray(order), file)
        return self._indices[key]

    def _queries(self, descriptors: NDArray[np.float32], k: int, layer: int) -> tuple[NDArray[np.float32], int]:
        queries = np.ascontiguousarray(descriptors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dimension:
            raise GalleryError(
                "descriptors of another size",
                file=self.path,
                field="descriptors",
                found=queries.shape,
                expected=f"(B, {self.manifest.dimension})",
            )
        if not np.isfinite(queries).all():
            raise GalleryError("descriptors are not finite", file=self.path, field="descriptors")
        if k < 1:
            raise GalleryError("not usable", field="k", found=k, expected="1 or more")
        return queries, min(k, self.manifest.layers[layer].count)


@dataclass(frozen=True)
class _Rows:
    """A range of rows of an array that reads itself as it is needed."""

    array: Any
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return np.asarray(self.array[self.first + start : self.first + stop])
        return np.asarray(self.array[self.first + np.asarray(rows)])


@dataclass(frozen=True)
class Memory:
    """Memory that a gallery takes, bytes; nothing of it is shared with other processes.

    Args:
        near: after searches near a prior as wide as a tile, with the places of all tiles, which a flight reads too; the
            first search alone takes half of it or less. It grows with what is flown over.
        search: after the first search of the whole gallery.
        most: whatever is asked.
    """

    near: int
    search: int
    most: int


def memory_of(manifest: GalleryManifest) -> Memory:
    """What a gallery will take in memory, from its manifest alone."""
    count, files = manifest.count, manifest.files
    first = manifest.layers[0]
    stored = count * manifest.dimension * STORED[manifest.stored].itemsize
    # Tile table, places and southings; lists of blocks.
    opened = count * (TABLE.itemsize + 16 + 8) + files.get(BLOCKS, {"bytes": 0})["bytes"]
    # Each row of tiles within reach lies elsewhere in the descriptors.
    rows = 2 * first.tile_size_m / first.stride_m + 1
    near = opened + min(stored, int(rows * _PAGE_BYTES))
    few = [layer for layer in manifest.layers if layer.count <= EXACT_UP_TO]
    widened = sum(layer.count for layer in few) * manifest.dimension * 4
    indices = [
        files[layer.index]["bytes"] + layer.count * ELEMENT_BYTES for layer in manifest.layers if layer not in few
    ]
    basemap = min(files[BASEMAP]["bytes"], HELD_TILES * TILE_PX**2)
    # What an index along axes finds is compared as it is stored.
    compared = stored if first in few or first.axes else 0
    search = opened + compared + (first.count * manifest.dimension * 4 if first in few else indices[0])
    return Memory(near, search, opened + stored + widened + sum(indices) + basemap)


def memory_bytes(manifest: GalleryManifest) -> int:
    """The most that it will take; see :func:`memory_of`."""
    return memory_of(manifest).most


def _open_parts(manifest: GalleryManifest) -> Gallery:
    """A gallery of format version 2, of which hardly anything is read."""
    parts = open_parts(manifest.path, manifest.files)
    tiles = PartArray(parts[TILES], TABLE, (manifest.count,))
    rows = PartArray(parts[DESCRIPTORS], STORED[manifest.stored], (manifest.count, manifest.dimension))
    place = manifest.basemap
    shape = -(-place.height // TILE_PX), -(-place.width // TILE_PX)
    directory = PartArray(parts[BASEMAP_TILES], "<i4", shape)
    check_npy_head(parts[BASEMAP], np.dtype(np.uint8), (manifest.basemap_tiles, TILE_PX, TILE_PX))
    numbers = np.asarray(directory)
    if numbers.min() < -1 or numbers.max() >= manifest.basemap_tiles:
        raise GalleryError(
            "names a tile that is not there", file=manifest.path / BASEMAP_TILES, found=int(numbers.max())
        )
    part = parts[BASEMAP]

    def fetch(number: int) -> NDArray[np.uint8]:
        # A tile is a block; the first block is the array's header.
        return np.frombuffer(part.fetch(number + 1, number + 1), np.uint8).reshape(TILE_PX, TILE_PX)

    pixels = TiledPixels((place.height, place.width), numbers, fetch)
    basemap = Basemap(pixels, place.gsd_m, place.west, place.north)
    return Gallery(manifest, tiles, rows if manifest.stored == "float16" else UnitRows(rows), basemap, parts)


def _open_whole(manifest: GalleryManifest) -> Gallery:
    """A gallery of format version 1: its hashes are of whole files, so all of it is read, then mapped into memory."""
    # Before anything parses them.
    check_files(manifest.path, manifest.files, GalleryError)
    tiles = _array(manifest.path / TILES, np.float64, (manifest.count, 2))
    descriptors = _array(manifest.path / DESCRIPTORS, np.float16, (manifest.count, manifest.dimension))
    place = manifest.basemap
    pixels = _array(manifest.path / BASEMAP, np.uint8, (place.height, place.width))
    return Gallery(manifest, tiles, descriptors, Basemap(pixels, place.gsd_m, place.west, place.north))


def _array(path: Path, dtype: Any, shape: tuple[int, int]) -> NDArray[Any]:
    array = load_array(path, dtype, 2, GalleryError)
    if array.shape != shape:
        raise GalleryError(
            "another size than the manifest's",
            file=path,
            field="shape",
            found=array.shape,
            expected=str(shape),
        )
    return array
