"""Map in, gallery out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import write_basemap, write_overview
from cvgl.errors import GalleryError
from cvgl.files import atomic_folder, hash_files, write_json
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.manifest import (
    BASEMAP,
    DESCRIPTORS,
    FORMAT_VERSION,
    INDEX,
    OVERVIEW,
    TILES,
    Raster,
    seal,
)
from cvgl.manifest import MANIFEST, refuse_to_replace_others
from cvgl.model import Model
from cvgl.versions import versions

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["Grid", "Progress", "build_gallery", "plan_grid"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

# A tile at the map's rim may be half empty and say little about its place.
_LEAST_VALID = 0.6
_BATCH = 64
_STRIP_PIXELS = 1 << 23
_M, _EF_CONSTRUCTION, _EF, _SEED = 16, 200, 64, 20
_INDEX_CHUNK = 1000


@dataclass(frozen=True)
class Grid:
    """A regular grid of tiles whose sides fall on pixels.

    Args:
        west, north: outer corner of the first (north-western) tile, metres.
        gsd_m: of a tile, m/px.
        tile_px: side of a tile.
        stride_px: from one tile to the next.
        columns, rows: of tiles.
    """

    west: float
    north: float
    gsd_m: float
    tile_px: int
    stride_px: int
    columns: int
    rows: int

    def centre(self, column: int, row: int) -> tuple[float, float]:
        """Easting, northing of a tile's centre."""
        half = self.tile_px * self.gsd_m / 2
        step = self.stride_px * self.gsd_m
        return self.west + half + column * step, self.north - half - row * step


def plan_grid(bounds: tuple[float, float, float, float], tile_size_m: float, stride_m: float, tile_px: int) -> Grid:
    """The grid whose centres cover the bounds, up to their edges and equally far from them on opposite sides.

    The stride is rounded to whole pixels of a tile, so that many tiles are cut from one reading of the map.

    Args:
        bounds: (west, south, east, north), metres.
        tile_size_m, stride_m: wanted, metres.
        tile_px: side of a tile in pixels.

    Raises:
        GalleryError: a size is not a positive number.
    """
    for field, value in (("tile_size_m", tile_size_m), ("stride_m", stride_m)):
        if not (math.isfinite(value) and value > 0):
            raise GalleryError("not usable", field=field, found=value, expected="a positive number of metres")
    west, south, east, north = bounds
    gsd = tile_size_m / tile_px
    stride_px = max(1, round(stride_m / gsd))
    stride = stride_px * gsd
    columns, rows = int((east - west) / stride) + 1, int((north - south) / stride) + 1
    first_east = west + ((east - west) - (columns - 1) * stride) / 2
    first_north = north - ((north - south) - (rows - 1) * stride) / 2
    return Grid(first_east - tile_size_m / 2, first_north + tile_size_m / 2, gsd, tile_px, stride_px, columns, rows)


def build_gallery(
    source: MapSource,
    model: Model,
    path: str | Path,
    *,
    tile_size_m: float,
    stride_m: float,
    basemap_gsd_m: float,
    progress: Progress | None = None,
) -> Gallery:
    """Cut a map into tiles, embed and index them, and write all that a drone carries.

    The gallery appears whole or not at all; one that stands at ``path`` is replaced. The same map, model and
    sizes give the same bytes on the same machine. Featureless tiles (water) are kept: a frame over them must
    find them.

    Args:
        source: the map.
        model: embeds the tiles by its reference view.
        path: the folder, by custom ``NAME.gallery``.
        tile_size_m: side of a tile on the ground, metres.
        stride_m: from tile to tile, metres; rounded to whole pixels of a tile.
        basemap_gsd_m: ground sampling distance of the basemap, m/px.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        GalleryError: unusable sizes, a map on which no tile has enough data, or another folder at ``path``.
        MapError: the map is damaged.
        ModelError: the model fails.
    """
    path = Path(path)
    report: Progress = progress or (lambda stage, done, total: None)
    refuse_to_replace_others(path, GalleryError)
    height, width = model.views["reference"].input_size
    if height != width:
        raise GalleryError(
            "tiles are square",
            file=model.path,
            field="views.reference.input_size",
            found=(height, width),
            expected="a square",
        )
    if not (math.isfinite(basemap_gsd_m) and basemap_gsd_m > 0):
        raise GalleryError("not usable", field="basemap_gsd_m", found=basemap_gsd_m, expected="m/px above 0")
    grid = plan_grid(source.bounds, tile_size_m, stride_m, width)
    with atomic_folder(path) as folder:
        tiles, descriptors = _embed_tiles(source, model, grid, report)
        np.save(folder / TILES, tiles)
        np.save(folder / DESCRIPTORS, descriptors)
        _write_index(folder / INDEX, descriptors, report)
        basemap = write_basemap(
            source, folder / BASEMAP, basemap_gsd_m, lambda done, total: report("basemap", done, total)
        )
        rows, columns = basemap.pixels.shape
        manifest = {
            "format_version": FORMAT_VERSION,
            "model": {"name": model.name, "fingerprint": model.fingerprint},
            "dimension": model.descriptor_size,
            "metric": "cosine",
            "count": len(tiles),
            "tiling": {
                "tile_size_m": tile_size_m,
                "tile_px": grid.tile_px,
                "gsd_m": grid.gsd_m,
                "stride_m": grid.stride_px * grid.gsd_m,
            },
            "local": {"latitude": source.local.latitude, "longitude": source.local.longitude},
            "bounds": dict(zip(("west_m", "south_m", "east_m", "north_m"), source.bounds, strict=True)),
            "bounds_wgs84": _bounds_wgs84(source),
            "source": source.source,
            "attribution": source.attribution,
            "basemap": {
                "file": BASEMAP,
                **asdict(Raster(columns, rows, basemap.gsd, basemap.west, basemap.north)),
            },
            "overview": write_overview(source, folder / OVERVIEW),
            "index": {"file": INDEX, "M": _M, "ef_construction": _EF_CONSTRUCTION, "ef": _EF},
            "built_with": versions(),
            "files": hash_files(folder, [TILES, DESCRIPTORS, INDEX, BASEMAP, OVERVIEW]),
        }
        write_json(folder / MANIFEST, seal(manifest))
    return Gallery.open(path, model)


def _embed_tiles(
    source: MapSource, model: Model, grid: Grid, report: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float16]]:
    """Centres (N, 2) and descriptors (N, D) of the tiles with enough data."""
    total = grid.columns * grid.rows
    centres: list[tuple[float, float]] = []
    descriptors: list[NDArray[np.float16]] = []
    for first, strip, valid in _strips(source, grid):
        places = _places(grid, valid)
        for start in range(0, len(places), _BATCH):
            batch = places[start : start + _BATCH]
            cut = [
                np.s_[
                    row * grid.stride_px : row * grid.stride_px + grid.tile_px,
                    column * grid.stride_px : column * grid.stride_px + grid.tile_px,
                ]
                for row, column in batch
            ]
            found = model.embed(
                np.stack([strip[window] for window in cut]),
                np.stack([valid[window] for window in cut]),
                view="reference",
            )
            descriptors.append(found.astype(np.float16))
            centres += [grid.centre(column, first + row) for row, column in batch]
            done = first * grid.columns + batch[-1][0] * grid.columns + batch[-1][1] + 1
            report("tiles", done, total)
    if not centres:
        raise GalleryError(
            f"no tile has {_LEAST_VALID:.0%} of data",
            file=source.path,
            field="tile_size_m",
            found=grid.tile_px * grid.gsd_m,
            expected="a size that fits the map",
        )
    report("tiles", total, total)
    return np.array(centres, np.float64), np.concatenate(descriptors)


def _strips(source: MapSource, grid: Grid) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Rows of tiles, read together: number of the first row, BGR image and validity."""
    width = (grid.columns - 1) * grid.stride_px + grid.tile_px
    rows = max(1, 1 + (_STRIP_PIXELS // width - grid.tile_px) // grid.stride_px)
    for first in range(0, grid.rows, rows):
        count = min(rows, grid.rows - first)
        height = (count - 1) * grid.stride_px + grid.tile_px
        north = grid.north - first * grid.stride_px * grid.gsd_m
        rgb, valid = source.read(grid.west, north, width, height, grid.gsd_m)
        yield first, np.ascontiguousarray(rgb[..., ::-1]), valid


def _places(grid: Grid, valid: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(row, column) within a strip of the tiles with enough data."""
    step, side = grid.stride_px, grid.tile_px
    places = []
    for row in range((len(valid) - side) // step + 1):
        # Sums over columns once per row of tiles, then over each tile's columns.
        sums = np.concatenate([[0], np.cumsum(valid[row * step : row * step + side].sum(axis=0))])
        starts = np.arange(grid.columns) * step
        share = (sums[starts + side] - sums[starts]) / side**2
        places += [(row, int(column)) for column in np.flatnonzero(share >= _LEAST_VALID)]
    return places


def _write_index(path: Path, descriptors: NDArray[np.float16], report: Progress) -> None:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=descriptors.shape[1])
    index.init_index(max_elements=len(descriptors), M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED)
    for start in range(0, len(descriptors), _INDEX_CHUNK):
        stop = min(start + _INDEX_CHUNK, len(descriptors))
        # One thread: with more, the graph depends on who comes first.
        index.add_items(descriptors[start:stop].astype(np.float32), np.arange(start, stop), num_threads=1)
        report("index", stop, len(descriptors))
    index.save_index(str(path))


def _bounds_wgs84(source: MapSource) -> dict[str, float]:
    west, south, east, north = source.bounds
    steps = np.linspace(0.0, 1.0, 17)
    eastings, northings = west + steps * (east - west), south + steps * (north - south)
    latitude, longitude = source.local.to_wgs84(
        np.concatenate([eastings, eastings, np.full(17, west), np.full(17, east)]),
        np.concatenate([np.full(17, south), np.full(17, north), northings, northings]),
    )
    return {
        "south": float(latitude.min()),
        "west": float(longitude.min()),
        "north": float(latitude.max()),
        "east": float(longitude.max()),
    }
