"""A gallery, opened: verified, mapped into memory, and searched."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap, load_array
from cvgl.errors import GalleryError
from cvgl.files import check_files
from cvgl.gallery import ranking
from cvgl.gallery.manifest import BASEMAP, DESCRIPTORS, INDEX, TILES, GalleryManifest, read_manifest
from cvgl.geo import LocalFrame

if TYPE_CHECKING:
    from cvgl.model import Model

__all__ = ["EXACT_UP_TO", "Gallery", "memory_bytes"]

# See Gallery.search.
EXACT_UP_TO = 20_000


class Gallery:
    """Tiles with descriptors, an index over them, and the basemap. Use :meth:`open`.

    Attributes:
        manifest: what the gallery says of itself.
        tiles: (N, 2) float64, easting and northing of the tiles' centres; rows from north to south, each from
            west to east. Mapped from the file.
        descriptors: (N, D) float16 of unit length. Mapped from the file.
        basemap: what refinement reads.
    """

    def __init__(
        self,
        manifest: GalleryManifest,
        tiles: NDArray[np.float64],
        descriptors: NDArray[np.float16],
        basemap: Basemap,
    ) -> None:
        self.manifest = manifest
        self.tiles = tiles
        self.descriptors = descriptors
        self.basemap = basemap

    @classmethod
    def open(cls, path: str | Path, model: Model | None = None) -> Gallery:
        """Verify a gallery and map it into memory.

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
        # Before anything parses them: hnswlib crashes on some damaged files and takes others for whole.
        check_files(manifest.path, manifest.files, GalleryError)
        count, dimension = manifest.count, manifest.dimension
        tiles = _array(manifest.path / TILES, np.float64, (count, 2))
        descriptors = _array(manifest.path / DESCRIPTORS, np.float16, (count, dimension))
        place = manifest.basemap
        _array(manifest.path / BASEMAP, np.uint8, (place.height, place.width))
        basemap = Basemap.open(manifest.path / BASEMAP, gsd=place.gsd_m, west=place.west, north=place.north)
        return cls(manifest, tiles, descriptors, basemap)

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
        """Memory that searching takes at most: this gallery's files that are mapped, and what is loaded."""
        return memory_bytes(self.manifest)

    def search(self, descriptors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most similar tiles of the whole gallery.

        Up to 20 000 tiles by a matrix product, which misses nothing, beyond that by HNSW. Measured with 256-d
        descriptors on two cores, k = 20, ef = 64, milliseconds of HNSW and product:

        ====== ============ =============
        tiles  one query    36 queries
        ====== ============ =============
         2 000 0.06 / 0.03   2.2 /  1.0
         5 000 0.08 / 0.14   3.3 /  2.1
        20 000 0.09 / 0.57   5.5 /  7.8
        50 000 0.16 / 1.48   7.7 / 24
        ====== ============ =============

        HNSW is faster from about 4 000 tiles for one query and 10 000 for 36. Up to 20 000 the product still
        costs little beside the embedding of the queries, and needs no index in memory.

        Args:
            descriptors: (B, D) of unit length.
            k: how many; fewer come where the gallery has fewer.

        Returns:
            tiles (B, k) int64 and their similarity (B, k) float32, best first, ties by tile number.

        Raises:
            GalleryError: descriptors of another size, or not finite.
        """
        if len(self) <= EXACT_UP_TO:
            return self.exact(descriptors, k)
        return self.approximate(descriptors, k)

    def exact(self, descriptors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same by comparing with every tile."""
        queries, k = self._queries(descriptors, k)
        return ranking.best_of_all(queries, self._matrix, k)

    def approximate(self, descriptors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The same by the HNSW index, which may miss a few (see :meth:`self_check`)."""
        queries, k = self._queries(descriptors, k)
        if not len(queries):
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        self._index.set_ef(max(self.manifest.ef, k))
        try:
            found, _ = self._index.knn_query(queries, k, num_threads=1)
        except RuntimeError:
            # hnswlib's way to say that the graph led to fewer than k; rare, and there is the exact answer.
            return self.exact(queries, k)
        tiles = np.empty((len(queries), k), np.int64)
        similarity = np.empty((len(queries), k), np.float32)
        for i, numbers in enumerate(found.astype(np.int64)):
            tiles[i], similarity[i] = ranking.order(queries[i], self.descriptors[numbers], numbers, k)
        return tiles, similarity

    def near(
        self, descriptors: NDArray[np.float32], easting: float, northing: float, radius_m: float, k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most similar tiles among those whose centre lies within a radius; exact.

        Args:
            descriptors: (B, D) of unit length.
            easting, northing: where, metres in ``local``.
            radius_m: metres.
            k: how many.

        Returns:
            tiles (B, m) and similarity (B, m) as by :meth:`search`, m being the lesser of k and the number of
            tiles inside, which may be 0.

        Raises:
            GalleryError: descriptors of another size, or not finite.
        """
        queries, k = self._queries(descriptors, k)
        # Tiles come in rows from north to south: the rows in question are one slice.
        first, last = np.searchsorted(self._southings, (-northing - radius_m, -northing + radius_m + 1e-9))
        band = np.asarray(self.tiles[first:last])
        inside = first + np.flatnonzero(np.hypot(band[:, 0] - easting, band[:, 1] - northing) <= radius_m)
        k = min(k, len(inside))
        if k == 0:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        places, similarity = ranking.best_of_all(queries, np.asarray(self.descriptors[inside], np.float32), k)
        return inside[places], similarity

    def self_check(self, queries: NDArray[np.float32], k: int = 20) -> float:
        """Recall of the index: the share of its answers that are as good as the exact search's.

        Args:
            queries: (B, D) of unit length.
            k: at which recall is taken.

        Returns:
            0 to 1.
        """
        _, best = self.exact(queries, k)
        _, found = self.approximate(queries, k)
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

    @cached_property
    def _matrix(self) -> NDArray[np.floating]:
        """Descriptors ready for products; those of large galleries are widened piece by piece instead."""
        if len(self) <= EXACT_UP_TO:
            return np.asarray(self.descriptors, np.float32)
        return self.descriptors

    @cached_property
    def _southings(self) -> NDArray[np.float64]:
        return -np.asarray(self.tiles[:, 1])

    @cached_property
    def _index(self) -> Any:
        # Not every gallery needs it; see search.
        import hnswlib

        path = self.path / INDEX
        index = hnswlib.Index(space="ip", dim=self.manifest.dimension)
        try:
            index.load_index(str(path), max_elements=len(self))
        except RuntimeError as reason:
            raise GalleryError(f"hnswlib does not load it: {reason}", file=path) from reason
        if index.get_current_count() != len(self):
            raise GalleryError(
                "the index holds other tiles than the table",
                file=path,
                field="count",
                found=index.get_current_count(),
                expected=str(len(self)),
            )
        return index

    def _queries(self, descriptors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], int]:
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
        return queries, min(k, len(self))


def memory_bytes(manifest: GalleryManifest) -> int:
    """The same before anything is loaded."""
    few = manifest.count <= EXACT_UP_TO
    loaded = manifest.count * manifest.dimension * 4 if few else manifest.files[INDEX]["bytes"]
    mapped = sum(manifest.files[name]["bytes"] for name in (TILES, DESCRIPTORS, BASEMAP))
    return mapped + loaded + manifest.count * 8


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
