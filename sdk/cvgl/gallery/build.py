"""Map in, gallery out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import write_overview
from cvgl.errors import GalleryError
from cvgl.files import atomic_path
from cvgl.gallery.area import Area
from cvgl.gallery.descriptors import kept_neighbours, restore, store
from cvgl.gallery.embedding import LEAST_VALID
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.grid import Grid, anchored_grid, pieces_of, plan_grid
from cvgl.gallery.manifest import BASEMAP_TILES, OVERVIEW, STORED, TILES, Raster
from cvgl.gallery.pieces import Plan, PlannedLayer, Workers, basemap_piece, cells_of, tile_pieces
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
    workers: Workers | None = None,
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
        workers: make the pieces elsewhere (`cvgl.gallery.scale`); None for here. The bytes are the same.
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
    layers = _plan(source, sizes, stride_m, headings, width, extends)
    basemap = _plan_basemap(source, basemap_gsd_m, extends)
    told = {
        "identity": identity,
        "model": model.fingerprint,
        "layers": [[asdict(layer.grid), layer.tile_size_m, layer.heading_deg] for layer in layers],
        "basemap": asdict(basemap),
        "stored": stored,
        "search": [search.recall, search.views is not None and repr(search.views), search.tree],
        "area": None if area is None else area.sha256,
        "extends": None if extends is None else extends.manifest.data["sha256"],
        "local": asdict(source.local),
        "built_with": versions(),
    }
    with Work.open(path, told, identity is not None, say) as work:
        job = _Build(work, source, model, Plan(tuple(layers), basemap, stored, area), extends, workers, report)
        made, measured = job.tiles()
        searched = write_indices(work, made, model.descriptor_size, stored, report, search)
        job.basemap_parts()
        finish(
            work,
            model=(model.name, model.fingerprint),
            dimension=model.descriptor_size,
            layers=made,
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
) -> list[PlannedLayer]:
    if extends is None:
        first = plan_grid(source.bounds, sizes[0], stride_m, px)
        grids = [first, *(plan_grid(source.bounds, size, stride_m * size / sizes[0], px) for size in sizes[1:])]
        return [PlannedLayer(g, tuple(pieces_of(g)), s, h) for g, s in zip(grids, sizes, strict=True) for h in headings]
    planned = []
    for layer in extends.manifest.layers:
        there = extends.tiles[layer.first : layer.stop]
        place = float(there[0, 0]), float(there[0, 1])
        grid = anchored_grid(source.bounds, place, layer.tile_size_m, layer.stride_m, px)
        if grid is None:
            raise GalleryError("no tile of the gallery's grid lies on the map", file=source.path)
        pieces = tuple(pieces_of(grid))
        taken = np.unique(cells_of(there, there[0], grid.stride_m))
        planned.append(PlannedLayer(grid, pieces, layer.tile_size_m, layer.heading_deg, there[0], taken))
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
    plan: Plan
    extends: Gallery | None
    workers: Workers | None
    report: Progress

    def tiles(self) -> tuple[list[LayerTiles], dict[str, float]]:
        """Embed what is not embedded yet, and write table and descriptors; the layers, and what storing costs."""
        self._embed()
        tables: list[list[NDArray[np.void]]] = [[] for _ in self.plan.layers]
        exact, cosines = [], []
        for job, layer in self.plan.jobs:
            piece = read_arrays(self.work.piece("tiles", job.number))
            tables[layer].append(piece["table"])
            exact.append(piece["exact"])
            cosines.append(piece["cosines"])
        layers, orders, written = [], [], []
        for planned, some in zip(self.plan.layers, tables, strict=True):
            table = np.concatenate(some)
            if not len(table):
                raise GalleryError(
                    "every tile is in the gallery already"
                    if self.extends
                    else f"no tile has {LEAST_VALID:.0%} of data",
                    file=self.source.path,
                    field="tile_size_m",
                    found=planned.grid.tile_size_m,
                    expected="a size that fits the map" if self.plan.area is None else "a map in the area",
                )
            order = np.lexsort((table["easting"], -table["northing"]))
            layers.append(LayerTiles.of(planned.grid, planned.tile_size_m, planned.heading_deg, len(table)))
            orders.append(order)
            written.append(table[order])
        stored = self.plan.stored
        if not self.work.done(TILES):
            rows = self._rows(orders)
            write_tiles(self.work.gallery, np.concatenate(written), rows, self.model.descriptor_size, stored)
        sample = np.concatenate(exact)
        kept = kept_neighbours(sample, restore(store(sample, stored), stored))
        cosine = np.concatenate(cosines)
        measured = {
            "cosine_least": round(float(cosine.min()), 6),
            "cosine_mean": round(float(cosine.mean()), 6),
            "neighbours_kept": round(kept, 4),
        }
        return layers, measured

    def _embed(self) -> None:
        places, total = self.plan.places, sum(self.plan.places)
        todo = self._missing("tiles", len(places))
        before = total - sum(places[number] for number in todo)
        done = [before]

        def tell(count: int) -> None:
            done[0] += count
            self.report("tiles", min(done[0], total), total)

        if self.workers is None:
            made = tile_pieces(self.plan, self.source, self.model, todo, tell)
        else:
            made = self.workers.make(self.plan, "tiles", todo)
        for number, arrays in made:
            write_arrays(self.work.piece("tiles", number), **arrays)
            # Places without a tile count as done with their piece.
            before += places[number]
            done[0] = before
            self.report("tiles", before, total)
        self.report("tiles", total, total)

    def _missing(self, stage: str, count: int) -> list[int]:
        return [number for number in range(count) if not self.work.piece(stage, number).exists()]

    def _rows(self, orders: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[Any]]:
        """Stored descriptors in the table's order."""
        for layer, order in enumerate(orders):
            pieces = (
                read_arrays(self.work.piece("tiles", job.number))["stored"]
                for job, number in self.plan.jobs
                if number == layer
            )
            if (order == np.arange(len(order))).all():
                yield from pieces
            else:
                yield np.concatenate(list(pieces))[order]

    def basemap_parts(self) -> None:
        """Write the basemap's tiles and their directory."""
        if self.work.done(BASEMAP_TILES):
            return
        cuts = self.plan.cuts
        todo = self._missing("basemap", len(cuts))
        made = (
            ((number, basemap_piece(self.plan, self.source, number)) for number in todo)
            if self.workers is None
            else self.workers.make(self.plan, "basemap", todo)
        )
        done = len(cuts) - len(todo)
        for number, arrays in made:
            write_arrays(self.work.piece("basemap", number), **arrays)
            done += 1
            self.report("basemap", done, len(cuts))
        directory = np.full(basemap_shape(self.plan.basemap), -1, np.int32)
        count = 0
        for number, (row, column, _, _) in enumerate(cuts):
            there = read_arrays(self.work.piece("basemap", number))["there"]
            part = directory[row : row + there.shape[0], column : column + there.shape[1]]
            part[there] = np.arange(count, count + int(there.sum()))
            count += int(there.sum())
        self.report("basemap", len(cuts), len(cuts))
        if count == 0:
            raise GalleryError("the basemap is empty", file=self.source.path)
        tiles = (read_arrays(self.work.piece("basemap", number))["tiles"] for number in range(len(cuts)))
        write_basemap(self.work.gallery, directory, tiles)

    def overview(self) -> dict[str, Any]:
        """Write the overview; what the manifest says of it."""
        with atomic_path(self.work.gallery / OVERVIEW) as temporary:
            return {**write_overview(self.source, temporary), "file": OVERVIEW}
