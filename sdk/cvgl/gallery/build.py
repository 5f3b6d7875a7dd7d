"""Map in, gallery out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import TILE_PX, read_grey, write_overview
from cvgl.errors import GalleryError
from cvgl.files import atomic_path
from cvgl.gallery.area import Area
from cvgl.gallery.descriptors import kept_neighbours, restore, store
from cvgl.gallery.embedding import LEAST_VALID, Job, embed_pieces
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.grid import Grid, anchored_grid, pieces_of, plan_grid
from cvgl.gallery.manifest import BASEMAP_TILES, OVERVIEW, STORED, TILES, Raster
from cvgl.gallery.work import Work, read_arrays, write_arrays
from cvgl.gallery.write import (
    LayerTiles,
    Progress,
    Search,
    basemap_shape,
    finish,
    write_basemap,
    write_indices,
    write_tiles,
)
from cvgl.model import Model
from cvgl.versions import versions

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["Grid", "Progress", "build_gallery", "plan_grid"]

_BASEMAP_STRIP = 1 << 23
_BASEMAP_ACROSS = 128
# Tiles of which descriptors are kept as the network gave them, to measure what storing them costs.
_SAMPLE = 2000


@dataclass(frozen=True)
class _Planned:
    """A layer to be built: its grid, the size that was asked for, and which way up is."""

    grid: Grid
    tile_size_m: float
    heading_deg: float


def build_gallery(
    source: MapSource,
    model: Model,
    path: str | Path,
    *,
    tile_size_m: float | Sequence[float],
    stride_m: float,
    basemap_gsd_m: float,
    headings_deg: Sequence[float] = (0.0,),
    stored: str = "float16",
    area: Area | None = None,
    extends: Gallery | None = None,
    search: Search | None = None,
    identity: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Cut a map into tiles, embed and index them, and write all that a drone carries.

    The gallery appears whole or not at all; one that stands at ``path`` is replaced. The same map, model and
    sizes give the same bytes on the same machine, however often the work was interrupted. Featureless tiles (water)
    are kept and marked: a frame over them must find them.

    Args:
        source: the map.
        model: embeds the tiles by its reference view.
        path: the folder, by custom ``NAME.gallery``.
        tile_size_m: side of a tile on the ground, metres; of several, each is a layer of its own, the first one the
            one that is searched unless another is asked for.
        stride_m: from tile to tile, metres; rounded to whole pixels of a tile. Larger tiles lie further apart in
            proportion.
        basemap_gsd_m: ground sampling distance of the basemap, m/px.
        headings_deg: where up in the tiles points; each heading is a layer of its own.
        stored: "float16", or "int8" for half the bytes; what it costs is measured and told in the manifest.
        area: only tiles are made that touch it.
        extends: a gallery whose tiles are not made again; grids and basemap continue its own. Sizes, headings and
            storage must be its.
        search: recall that the index is to reach, and what it is measured by; by default :class:`Search` as it is.
        identity: tells this map from any other (`MapSource.identity`); without it a build that was interrupted begins
            afresh.
        say: told when earlier work is taken up.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        GalleryError: unusable sizes, a map on which no tile has enough data, another folder at ``path``, a full disk.
        MapError: the map is damaged.
        ModelError: the model fails.
    """
    path = Path(path)
    search = search or Search()
    report: Progress = progress or (lambda stage, done, total: None)
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
    if stored not in STORED:
        raise GalleryError("not usable", field="stored", found=stored, expected=" or ".join(STORED))
    sizes = [tile_size_m] if isinstance(tile_size_m, (int, float)) else list(tile_size_m)
    headings = [float(heading) % 360.0 for heading in headings_deg]
    if not sizes or not headings or len(set(sizes)) < len(sizes) or len(set(headings)) < len(headings):
        raise GalleryError(
            "not usable", field="tile_size_m, headings_deg", found=(sizes, headings), expected="different ones"
        )
    planned = _plan(source, sizes, stride_m, headings, width, extends)
    basemap = _plan_basemap(source, basemap_gsd_m, extends)
    plan = {
        "identity": identity,
        "model": model.fingerprint,
        "layers": [[asdict(layer.grid), layer.tile_size_m, layer.heading_deg] for layer in planned],
        "basemap": asdict(basemap),
        "stored": stored,
        "search": [search.recall, search.views is not None and repr(search.views), search.tree],
        "area": None if area is None else area.sha256,
        "extends": None if extends is None else extends.manifest.data["sha256"],
        "local": asdict(source.local),
        "built_with": versions(),
    }
    with Work.open(path, plan, identity is not None, say) as work:
        job = _Build(work, source, model, planned, basemap, stored, area, extends, report)
        layers, measured = job.tiles()
        searched = write_indices(work, layers, model.descriptor_size, stored, report, search)
        job.basemap_parts()
        finish(
            work,
            model=(model.name, model.fingerprint),
            dimension=model.descriptor_size,
            layers=layers,
            searched=searched,
            local=source.local,
            bounds=source.bounds,
            source=source.source,
            attribution=source.attribution,
            stored={"stored": stored, **measured},
            basemap=basemap,
            overview=job.overview(),
        )
        # What cannot be opened must not replace what can.
        Gallery.open(work.gallery, model)
    return Gallery.open(path, model)


def _plan(
    source: MapSource,
    sizes: Sequence[float],
    stride_m: float,
    headings: Sequence[float],
    px: int,
    extends: Gallery | None,
) -> list[_Planned]:
    if extends is None:
        first = plan_grid(source.bounds, sizes[0], stride_m, px)
        grids = [first, *(plan_grid(source.bounds, size, stride_m * size / sizes[0], px) for size in sizes[1:])]
        return [_Planned(g, s, h) for g, s in zip(grids, sizes, strict=True) for h in headings]
    planned = []
    for layer in extends.manifest.layers:
        anchor = extends.tiles[layer.first]
        place = float(anchor[0]), float(anchor[1])
        grid = anchored_grid(source.bounds, place, layer.tile_size_m, layer.stride_m, px)
        if grid is None:
            raise GalleryError("no tile of the gallery's grid lies on the map", file=source.path)
        planned.append(_Planned(grid, layer.tile_size_m, layer.heading_deg))
    return planned


def _plan_basemap(source: MapSource, gsd: float, extends: Gallery | None) -> Raster:
    west, south, east, north = source.bounds
    if extends is not None:
        gsd = extends.basemap.gsd
        west = extends.basemap.west + math.floor((west - extends.basemap.west) / gsd) * gsd
        north = extends.basemap.north + math.ceil((north - extends.basemap.north) / gsd) * gsd
    return Raster(math.ceil((east - west) / gsd), math.ceil((north - south) / gsd), gsd, west, north)


@dataclass(frozen=True)
class _Build:
    """One build: what its stages share."""

    work: Work
    source: MapSource
    model: Model
    planned: Sequence[_Planned]
    basemap: Raster
    stored: str
    area: Area | None
    extends: Gallery | None
    report: Progress

    def tiles(self) -> tuple[list[LayerTiles], dict[str, float]]:
        """Embed what is not embedded yet, and write table and descriptors; the layers, and what storing costs."""
        jobs = self._jobs()
        self._embed(jobs)
        tables: list[list[NDArray[np.void]]] = [[] for _ in self.planned]
        exact, cosines = [], []
        for job, layer in jobs:
            piece = read_arrays(self.work.piece("tiles", job.number))
            tables[layer].append(piece["table"])
            exact.append(piece["exact"])
            cosines.append(piece["cosines"])
        layers, orders, written = [], [], []
        for planned, some in zip(self.planned, tables, strict=True):
            table = np.concatenate(some)
            if not len(table):
                raise GalleryError(
                    "every tile is in the gallery already"
                    if self.extends
                    else f"no tile has {LEAST_VALID:.0%} of data",
                    file=self.source.path,
                    field="tile_size_m",
                    found=planned.grid.tile_size_m,
                    expected="a size that fits the map" if self.area is None else "a map in the area",
                )
            order = np.lexsort((table["easting"], -table["northing"]))
            layers.append(LayerTiles.of(planned.grid, planned.tile_size_m, planned.heading_deg, len(table)))
            orders.append(order)
            written.append(table[order])
        if not self.work.done(TILES):
            rows = self._rows(jobs, orders)
            write_tiles(self.work.gallery, np.concatenate(written), rows, self.model.descriptor_size, self.stored)
        sample = np.concatenate(exact)
        kept = kept_neighbours(sample, restore(store(sample, self.stored), self.stored))
        cosine = np.concatenate(cosines)
        measured = {
            "cosine_least": round(float(cosine.min()), 6),
            "cosine_mean": round(float(cosine.mean()), 6),
            "neighbours_kept": round(kept, 4),
        }
        return layers, measured

    def _jobs(self) -> list[tuple[Job, int]]:
        """All pieces of all layers with the number of their layer."""
        jobs: list[tuple[Job, int]] = []
        for layer, planned in enumerate(self.planned):
            wanted = self._wanted(layer, planned)
            for piece in pieces_of(planned.grid):
                jobs.append((Job(len(jobs), planned.grid, planned.heading_deg, piece, wanted), layer))
        return jobs

    def _wanted(self, layer: int, planned: _Planned) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
        there: set[tuple[int, int]] = set()
        anchor, stride = np.zeros(2), planned.grid.stride_m
        if self.extends is not None:
            among = self.extends.manifest.layers[layer]
            old = self.extends.tiles[among.first : among.stop]
            anchor = old[0]
            there = set(map(tuple, np.rint((old - anchor) / stride).astype(int).tolist()))

        def wanted(centres: NDArray[np.float64]) -> NDArray[np.bool_]:
            keep = np.ones(len(centres), bool)
            if there:
                at = np.rint((centres - anchor) / stride).astype(int).tolist()
                keep &= np.array([(column, row) not in there for column, row in at])
            if self.area is not None:
                keep &= self.area.touches(centres, planned.tile_size_m)
            return keep

        return wanted

    def _embed(self, jobs: Sequence[tuple[Job, int]]) -> None:
        places = [job.piece.columns * job.piece.rows for job, _ in jobs]
        total = sum(places)
        step = -(-total // _SAMPLE)
        todo = [job for job, _ in jobs if not self.work.piece("tiles", job.number).exists()]
        before = total - sum(places[job.number] for job in todo)
        done = [before]

        def tell(count: int) -> None:
            done[0] += count
            self.report("tiles", min(done[0], total), total)

        for job, table, descriptors in embed_pieces(self.source, self.model, todo, tell):
            stored = store(descriptors, self.stored)
            # The longest row's error in single precision is far below what half precision loses.
            cosines = (restore(stored, self.stored) * descriptors).sum(axis=1)
            lengths = np.linalg.norm(restore(stored, self.stored), axis=1)
            write_arrays(
                self.work.piece("tiles", job.number),
                table=table,
                stored=stored,
                exact=descriptors[:: max(1, step)],
                cosines=cosines / np.maximum(lengths, 1e-6),
            )
            # Places without a tile count as done with their piece.
            before += places[job.number]
            done[0] = before
            self.report("tiles", before, total)
        self.report("tiles", total, total)

    def _rows(self, jobs: Sequence[tuple[Job, int]], orders: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
        """Stored descriptors in the table's order."""
        for layer, order in enumerate(orders):
            pieces = (
                read_arrays(self.work.piece("tiles", job.number))["stored"] for job, number in jobs if number == layer
            )
            if (order == np.arange(len(order))).all():
                yield from pieces
            else:
                yield np.concatenate(list(pieces))[order]

    def basemap_parts(self) -> None:
        """Write the basemap's tiles and their directory."""
        if self.work.done(BASEMAP_TILES):
            return
        place = self.basemap
        rows, columns = basemap_shape(place)
        across = min(columns, _BASEMAP_ACROSS)
        down = max(1, _BASEMAP_STRIP // (across * TILE_PX**2))
        cuts = [(row, column) for row in range(0, rows, down) for column in range(0, columns, across)]
        directory = np.full((rows, columns), -1, np.int32)
        count = 0
        for number, (row, column) in enumerate(cuts):
            file = self.work.piece("basemap", number)
            if not file.exists():
                here = min(down, rows - row), min(across, columns - column)
                write_arrays(file, **self._basemap_piece(row, column, *here))
            there = read_arrays(file)["there"]
            part = directory[row : row + there.shape[0], column : column + there.shape[1]]
            part[there] = np.arange(count, count + int(there.sum()))
            count += int(there.sum())
            self.report("basemap", number + 1, len(cuts))
        if count == 0:
            raise GalleryError("the basemap is empty", file=self.source.path)
        tiles = (read_arrays(self.work.piece("basemap", number))["tiles"] for number in range(len(cuts)))
        write_basemap(self.work.gallery, directory, tiles)

    def _basemap_piece(self, row: int, column: int, rows: int, columns: int) -> dict[str, NDArray[Any]]:
        place = self.basemap
        west, north = place.west + column * TILE_PX * place.gsd_m, place.north - row * TILE_PX * place.gsd_m
        grey = read_grey(self.source, west, north, columns * TILE_PX, rows * TILE_PX, place.gsd_m)
        grey[max(0, place.height - row * TILE_PX) :] = 0
        grey[:, max(0, place.width - column * TILE_PX) :] = 0
        tiles = grey.reshape(rows, TILE_PX, columns, TILE_PX).transpose(0, 2, 1, 3)
        there = tiles.any(axis=(2, 3))
        if self.area is not None:
            half = TILE_PX * place.gsd_m / 2
            easting = west + half + np.arange(columns) * 2 * half
            northing = north - half - np.arange(rows) * 2 * half
            centres = np.stack(np.meshgrid(easting, northing), axis=-1).reshape(-1, 2)
            reach = 2 * half + 2 * self.planned[0].tile_size_m
            there &= self.area.touches(centres, reach).reshape(rows, columns)
        return {"tiles": tiles[there], "there": there}

    def overview(self) -> dict[str, Any]:
        """Write the overview; what the manifest says of it."""
        with atomic_path(self.work.gallery / OVERVIEW) as temporary:
            return {**write_overview(self.source, temporary), "file": OVERVIEW}
