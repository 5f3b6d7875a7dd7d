"""The parts of a gallery, written; the manifest comes last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import TILE_PX
from cvgl.errors import GalleryError
from cvgl.files import atomic_path, write_json
from cvgl.gallery.axes import axes_name
from cvgl.gallery.descriptors import restore
from cvgl.gallery.fit import Fitting, Questions, ask, fit_index, fit_tree
from cvgl.gallery.grid import Grid
from cvgl.gallery.manifest import (
    BASEMAP,
    BASEMAP_TILES,
    DESCRIPTORS,
    FORMAT_VERSION,
    OVERVIEW,
    STORED,
    TABLE,
    TILES,
    WHOLE_VERSION,
    Raster,
    index_name,
    seal,
    tree_names,
)
from cvgl.gallery.parts import BLOCK_BYTES, BLOCKS, NpyWriter, block_digests
from cvgl.gallery.recall import SIMULATED, TARGET, VIEWS
from cvgl.gallery.work import Work
from cvgl.geo import LocalFrame
from cvgl.manifest import MANIFEST
from cvgl.versions import versions

__all__ = [
    "LayerTiles",
    "Progress",
    "Search",
    "Views",
    "basemap_shape",
    "finish",
    "hash_parts",
    "write_basemap",
    "write_indices",
    "write_tiles",
]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
Views = Callable[["LayerTiles", NDArray[np.float64]], "NDArray[np.float32] | None"]
"""Gives descriptors (n, D) of simulated views of places (n, 2), metres in the local tangent plane, at a layer's scale;
None for layers that it cannot."""

_SEED = 23


@dataclass(frozen=True)
class Search:
    """How a gallery is made searchable.

    Args:
        recall: what the index is to find of the 20 most similar tiles, 0 to 1.
        views: of queries that recall is measured by beside disturbed tiles; None to take these alone.
        tree: whether layers get a k-means tree as well, for comparison.
    """

    recall: float = TARGET
    views: Views | None = None
    tree: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.recall <= 1.0:
            raise GalleryError("not usable", field="recall", found=self.recall, expected="above 0, at most 1")


@dataclass(frozen=True)
class LayerTiles:
    """What the manifest says of a layer before its place in the table is known.

    Args:
        tile_size_m, tile_px, gsd_m, stride_m, heading_deg: as :class:`cvgl.gallery.manifest.Layer` has them.
        count: of tiles.
    """

    tile_size_m: float
    tile_px: int
    gsd_m: float
    stride_m: float
    heading_deg: float
    count: int

    @classmethod
    def of(cls, grid: Grid, tile_size_m: float, heading_deg: float, count: int) -> LayerTiles:
        """Of a grid's tiles."""
        return cls(tile_size_m, grid.tile_px, grid.gsd_m, grid.stride_px * grid.gsd_m, heading_deg, count)


def write_tiles(
    folder: Path, table: NDArray[np.void], rows: Iterable[NDArray[Any]], dimension: int, stored: str
) -> None:
    """Write tile table and descriptors, the latter as they come."""
    _write_array(folder / DESCRIPTORS, STORED[stored], (dimension,), rows)
    # Last: where it is, the descriptors are whole.
    _write_array(folder / TILES, TABLE, (), [table])


def write_indices(
    work: Work, layers: Sequence[LayerTiles], dimension: int, stored: str, report: Progress, search: Search
) -> list[dict[str, Any]]:
    """Write index and, if asked for, tree of each layer; what the manifest says of them, by layer."""
    descriptors = np.load(work.gallery / DESCRIPTORS, mmap_mode="r")
    total, first, entries = len(descriptors), 0, []
    for number, layer in enumerate(layers):

        def rows(which: Any, first: int = first) -> NDArray[np.float32]:
            moved = slice(first + which.start, first + which.stop) if isinstance(which, slice) else first + which
            return restore(descriptors[moved], stored)

        def tell(done: int, first: int = first) -> None:
            report("index", first + done, total)

        def grown(done: int, first: int = first) -> None:
            report("tree", first + done, total)

        index, trees = work.gallery / index_name(number), [work.gallery / name for name in tree_names(number)]
        fitting = Fitting(work.pieces, rows, layer.count, dimension, [], search.recall, tell)
        if fitting.done(index) is None or (search.tree and fitting.done(*trees) is None):
            fitting = replace(fitting, questions=_questions(work, layer, first, rows, search.views))
        entry = {"index": fit_index(index, fitting)}
        if search.tree:
            entry["tree"] = fit_tree(trees[0], trees[1], replace(fitting, tell=grown))
        entries.append(entry)
        first += layer.count
    report("index", total, total)
    return entries


def _questions(
    work: Work, layer: LayerTiles, first: int, rows: Callable[[Any], NDArray[np.float32]], views: Views | None
) -> list[Questions]:
    found = [ask(rows, layer.count)]
    if views is not None:
        rng = np.random.default_rng(_SEED)
        tiles = rng.integers(0, layer.count, VIEWS)
        table = np.load(work.gallery / TILES)[first + tiles]
        places = np.stack([table["easting"], table["northing"]], axis=1)
        places += rng.uniform(-0.5, 0.5, places.shape) * layer.stride_m
        queries = views(layer, places)
        if queries is not None:
            similarity = float(np.median((queries * rows(tiles)).sum(axis=1)))
            found.append(Questions.of(SIMULATED, similarity, queries, rows, layer.count))
    return found


def write_basemap(folder: Path, directory: NDArray[np.int32], tiles: Iterable[NDArray[np.uint8]]) -> None:
    """Write a basemap.

    Args:
        folder: of the gallery.
        directory: (rows, columns), the number of the tile that lies there, or -1.
        tiles: by number, in stacks of (n, TILE_PX, TILE_PX).
    """
    _write_array(folder / BASEMAP, np.uint8, (TILE_PX, TILE_PX), tiles)
    _write_array(folder / BASEMAP_TILES, "<i4", directory.shape[1:], [directory])


def basemap_shape(place: Raster) -> tuple[int, int]:
    """Rows and columns of a basemap's tiles."""
    return -(-place.height // TILE_PX), -(-place.width // TILE_PX)


def finish(
    work: Work,
    *,
    model: tuple[str, str],
    dimension: int,
    layers: Sequence[LayerTiles],
    searched: Sequence[dict[str, Any]],
    local: LocalFrame,
    bounds: tuple[float, float, float, float],
    source: str,
    attribution: str,
    stored: dict[str, Any],
    basemap: Raster,
    overview: dict[str, Any],
) -> None:
    """Hash every part and write the manifest; arguments as :class:`cvgl.gallery.manifest.GalleryManifest` has them.

    Args:
        work: whose gallery has all its parts.
        model: name and fingerprint.
        searched: of each layer its index and tree, as :func:`write_indices` says it.
        stored: how descriptors are stored, and what that costs.
        overview: as :func:`cvgl.basemap.write_overview` says it.
    """
    listed, first = [], 0
    parts = [TILES, DESCRIPTORS, BASEMAP, BASEMAP_TILES, OVERVIEW]
    for layer, entry in zip(layers, searched, strict=True):
        listed.append({**asdict(layer), "first": first, **entry})
        first += layer.count
        parts.append(entry["index"]["file"])
        parts += [axes_name(entry["index"]["file"])] if "axes" in entry["index"] else []
        parts += [entry["tree"][part] for part in ("nodes", "order") if "tree" in entry]
    files = hash_parts(work.gallery, parts)
    manifest = {
        # Older readers know no other index than of whole descriptors, and would take one for the other.
        "format_version": FORMAT_VERSION if any("axes" in entry["index"] for entry in searched) else WHOLE_VERSION,
        "model": {"name": model[0], "fingerprint": model[1]},
        "dimension": dimension,
        "metric": "cosine",
        "count": first,
        "layers": listed,
        "local": {"latitude": local.latitude, "longitude": local.longitude},
        "bounds": dict(zip(("west_m", "south_m", "east_m", "north_m"), bounds, strict=True)),
        "bounds_wgs84": _bounds_wgs84(local, bounds),
        "source": source,
        "attribution": attribution,
        "descriptors": {"file": DESCRIPTORS, **stored},
        "basemap": {
            "file": BASEMAP,
            "directory": BASEMAP_TILES,
            "tile_px": TILE_PX,
            "tiles": (files[BASEMAP]["bytes"] - files[BASEMAP]["head"]) // TILE_PX**2,
            **asdict(basemap),
        },
        "overview": overview,
        "built_with": versions(),
        "block_bytes": BLOCK_BYTES,
        "files": files,
    }
    write_json(work.gallery / MANIFEST, seal(manifest))


def hash_parts(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the manifest says of parts; writes the list of their blocks, which is one of them."""
    files, digests = {}, b""
    for name in sorted(names):
        files[name], blocks = block_digests(folder / name)
        digests += blocks
    with atomic_path(folder / BLOCKS) as temporary:
        temporary.write_bytes(digests)
    files[BLOCKS], _ = block_digests(folder / BLOCKS)
    return files


def _write_array(path: Path, dtype: Any, row: tuple[int, ...], rows: Iterable[NDArray[Any]]) -> None:
    with atomic_path(path) as temporary:
        temporary.unlink()
        with NpyWriter(temporary, dtype, row) as writer:
            for some in rows:
                writer.write(some)


def _bounds_wgs84(local: LocalFrame, bounds: tuple[float, float, float, float]) -> dict[str, float]:
    west, south, east, north = bounds
    steps = np.linspace(0.0, 1.0, 17)
    eastings, northings = west + steps * (east - west), south + steps * (north - south)
    latitude, longitude = local.to_wgs84(
        np.concatenate([eastings, eastings, np.full(17, west), np.full(17, east)]),
        np.concatenate([np.full(17, south), np.full(17, north), northings, northings]),
    )
    return {
        "south": float(latitude.min()),
        "west": float(longitude.min()),
        "north": float(latitude.max()),
        "east": float(longitude.max()),
    }
