"""Galleries made of galleries: joined, cut to an area, extended by another map."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import OVERVIEW_SIDE, TILE_PX, write_jpeg
from cvgl.errors import GalleryError
from cvgl.files import atomic_path
from cvgl.gallery.area import Area
from cvgl.gallery.build import build_gallery
from cvgl.gallery.descriptors import UnitRows
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.manifest import BASEMAP_TILES, OVERVIEW, TABLE, TILES, GalleryManifest, Raster
from cvgl.gallery.pieces import Workers
from cvgl.gallery.recall import TARGET
from cvgl.gallery.work import Work
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

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["clip_gallery", "extend_gallery", "merge_galleries"]

_ROWS = 8192
# Of a basemap pixel: images that lie so well on one grid are copied, not resampled.
_ALIGNED = 1e-3
_SAME_SIZE = 1e-9


def merge_galleries(
    galleries: Sequence[Gallery],
    path: str | Path,
    *,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Join galleries of one model, with the same layers, into one.

    Where they overlap the earlier one counts: tiles of a later one that lie within half a stride of an earlier one's
    are left out, and its basemap fills what the earlier one's lacks. Descriptors and, where the basemaps lie on one
    grid of pixels, images are copied as they are; otherwise images are resampled. The index is built anew, to the
    recall that the first gallery's was to reach; trees are left out.

    Args:
        galleries: the most important first; its local tangent plane is that of the whole.
        path: the new gallery; one that stands there is replaced.
        say: told when earlier work is taken up.
        progress: as :func:`cvgl.gallery.build_gallery` calls it, for "index" and "basemap".

    Raises:
        GalleryError: galleries that do not go together, with the field in which they differ; one is damaged.
    """
    if not galleries:
        raise GalleryError("nothing to join", field="galleries", found=0, expected="one or more")
    first = galleries[0].manifest
    for other in galleries[1:]:
        _check_match(galleries[0], other)
    bounds = [_bounds_in(gallery, galleries[0]) for gallery in galleries]
    west, south, east, north = zip(*bounds, strict=True)
    around = min(west), min(south), max(east), max(north)
    kept = [_fresh(galleries, number) for number in range(len(first.layers))]
    return _Composed(list(galleries), kept, around, None, progress).write(Path(path), say)


def clip_gallery(
    gallery: Gallery,
    area: Area,
    path: str | Path,
    *,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Cut a gallery to an area: its tiles that touch it, and the basemap under and around them.

    Args:
        gallery: the whole.
        area: in the gallery's local tangent plane.
        path: the new gallery; one that stands there is replaced.
        say, progress: as for :func:`merge_galleries`.

    Raises:
        GalleryError: no tile touches the area; the gallery is damaged.
    """
    kept, reach = [], []
    for layer in gallery.manifest.layers:
        centres = gallery.tiles[layer.first : layer.stop]
        inside = np.flatnonzero(area.touches(centres, layer.tile_size_m))
        if not len(inside):
            raise GalleryError("no tile touches the area", file=gallery.path, found=str(area.path))
        kept.append([inside + layer.first])
        half = layer.tile_size_m / 2
        reach.append((*(centres[inside].min(axis=0) - half), *(centres[inside].max(axis=0) + half)))
    west, south, east, north = gallery.bounds
    low, high = np.min(reach, axis=0)[:2], np.max(reach, axis=0)[2:]
    around = (
        max(west, float(low[0])),
        max(south, float(low[1])),
        min(east, float(high[0])),
        min(north, float(high[1])),
    )
    return _Composed([gallery], kept, around, area, progress).write(Path(path), say)


def extend_gallery(
    path: str | Path,
    source: MapSource,
    model: Model,
    *,
    area: Area | None = None,
    workers: Workers | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Add a map's tiles to a gallery, where it has none, on the grids that it has.

    Args:
        path: the gallery, which is replaced at the end.
        source: the map, in the gallery's local tangent plane.
        model: the gallery's.
        area: only tiles are made that touch it.
        workers, say, progress: as :func:`cvgl.gallery.build_gallery` has them.

    Raises:
        GalleryError: the gallery is damaged or another model's, or the map lies in another plane.
        MapError, ModelError: the map is damaged; the model fails.
    """
    path = Path(path)
    gallery = Gallery.open(path, model)
    if source.local != gallery.local:
        raise GalleryError("the map is in another local tangent plane", file=path, field="local")
    addition = path.with_name(path.name + ".addition")
    layers = gallery.manifest.layers
    added = build_gallery(
        source,
        model,
        addition,
        tile_size_m=list(dict.fromkeys(layer.tile_size_m for layer in layers)),
        stride_m=gallery.manifest.stride_m,
        basemap_gsd_m=gallery.basemap.gsd,
        headings_deg=list(dict.fromkeys(layer.heading_deg for layer in layers)),
        stored=gallery.manifest.stored,
        area=area,
        extends=gallery,
        search=Search(_target(gallery.manifest)),
        identity=source.identity(),
        workers=workers,
        say=say,
        progress=progress,
    )
    merged = merge_galleries([gallery, added], path, say=say, progress=progress)
    shutil.rmtree(addition)
    return merged


@dataclass(frozen=True)
class _Composed:
    """A gallery made of others.

    Args:
        galleries: the most important first.
        kept: by layer and gallery the numbers of the tiles that are taken.
        around: bounds of the new gallery, metres in the first one's plane.
        area: of the basemap only what is near it is taken.
        progress: told how far it is.
    """

    galleries: list[Gallery]
    kept: list[list[NDArray[np.int64]]]
    around: tuple[float, float, float, float]
    area: Area | None
    progress: Progress | None

    def write(self, path: Path, say: Callable[[str], None] | None) -> Gallery:
        """The new gallery, at its place."""
        report: Progress = self.progress or (lambda stage, done, total: None)
        first = self.galleries[0]
        m = first.manifest
        search = Search(_target(m))
        plan = {
            "recall": search.recall,
            "made of": [gallery.manifest.data["sha256"] for gallery in self.galleries],
            "area": None if self.area is None else self.area.sha256,
        }
        layers = [
            LayerTiles(
                layer.tile_size_m,
                layer.tile_px,
                layer.gsd_m,
                layer.stride_m,
                layer.heading_deg,
                sum(len(numbers) for numbers in kept),
            )
            for layer, kept in zip(m.layers, self.kept, strict=True)
        ]
        with Work.open(path, plan, True, say) as work:
            if not work.done(TILES):
                table, where = self._table()
                write_tiles(work.gallery, table, self._rows(where), m.dimension, m.stored)
            searched = write_indices(work, layers, m.dimension, m.stored, report, search)
            place = self._basemap_place()
            if not work.done(BASEMAP_TILES):
                directory, tiles = self._basemap(place, report)
                write_basemap(work.gallery, directory, tiles)
            finish(
                work,
                model=(m.model_name, m.model_fingerprint),
                dimension=m.dimension,
                layers=layers,
                searched=searched,
                local=first.local,
                bounds=self.around,
                source=_joined((gallery.manifest.source for gallery in self.galleries), ", "),
                attribution=_joined((gallery.manifest.attribution for gallery in self.galleries), "; "),
                stored={"stored": m.stored, **self._measured()},
                basemap=place,
                overview=self._overview(work.gallery / OVERVIEW),
            )
            Gallery.open(work.gallery)
        return Gallery.open(path)

    def _table(self) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """The table, and of each of its rows the gallery and the tile there."""
        tables, wheres = [], []
        for kept in self.kept:
            rows, where = [], []
            for number, (gallery, numbers) in enumerate(zip(self.galleries, kept, strict=True)):
                table = gallery.table[numbers].astype(TABLE)
                table["easting"], table["northing"] = _places_in(gallery, self.galleries[0], numbers).T
                rows.append(table)
                where.append(np.stack([np.full(len(numbers), number), numbers], axis=1))
            table, at = np.concatenate(rows), np.concatenate(where)
            order = np.lexsort((table["easting"], -table["northing"]))
            tables.append(table[order])
            wheres.append(at[order])
        return np.concatenate(tables), np.concatenate(wheres)

    def _rows(self, where: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Stored descriptors in the table's order."""
        for start in range(0, len(where), _ROWS):
            part = where[start : start + _ROWS]
            found: NDArray[Any] | None = None
            for number in np.unique(part[:, 0]):
                mine = part[:, 0] == number
                descriptors = self.galleries[number].descriptors
                stored = descriptors.stored if isinstance(descriptors, UnitRows) else descriptors
                rows = np.asarray(stored[part[mine, 1]])
                if found is None:
                    found = np.empty((len(part), rows.shape[1]), rows.dtype)
                found[mine] = rows
            if found is not None:
                yield found

    def _basemap_place(self) -> Raster:
        """On the grid of the first gallery's pixels."""
        basemap = self.galleries[0].basemap
        west, south, east, north = self.around
        gsd = basemap.gsd
        left, right = (
            math.floor((west - basemap.west) / gsd + _ALIGNED),
            math.ceil((east - basemap.west) / gsd - _ALIGNED),
        )
        top, bottom = (
            math.floor((basemap.north - north) / gsd + _ALIGNED),
            math.ceil((basemap.north - south) / gsd - _ALIGNED),
        )
        return Raster(right - left, bottom - top, gsd, basemap.west + left * gsd, basemap.north - top * gsd)

    def _basemap(self, place: Raster, report: Progress) -> tuple[NDArray[np.int32], Iterator[NDArray[np.uint8]]]:
        """The directory of the tiles, which is filled as they are taken, and the tiles."""
        rows, columns = basemap_shape(place)
        directory = np.full((rows, columns), -1, np.int32)
        half = TILE_PX * place.gsd_m / 2
        centres = np.stack(
            np.meshgrid(
                place.west + half + np.arange(columns) * 2 * half, place.north - half - np.arange(rows) * 2 * half
            ),
            axis=-1,
        )
        wanted = np.ones((rows, columns), bool)
        if self.area is not None:
            reach = 2 * half + 2 * self.galleries[0].manifest.tile_size_m
            wanted = self.area.touches(centres.reshape(-1, 2), reach).reshape(rows, columns)

        def tiles() -> Iterator[NDArray[np.uint8]]:
            count = 0
            for row in range(rows):
                for column in np.flatnonzero(wanted[row]):
                    tile = self._tile(place, row, int(column))
                    if tile.any():
                        directory[row, column] = count
                        count += 1
                        yield tile[None]
                report("basemap", row + 1, rows)

        return directory, tiles()

    def _tile(self, place: Raster, row: int, column: int) -> NDArray[np.uint8]:
        tile = np.zeros((TILE_PX, TILE_PX), np.uint8)
        west, north = place.west + column * TILE_PX * place.gsd_m, place.north - row * TILE_PX * place.gsd_m
        for gallery in self.galleries:
            window = self._window(gallery, west, north, place.gsd_m)
            tile = np.where(tile > 0, tile, window)
            if tile.all():
                break
        tile[max(0, place.height - row * TILE_PX) :] = 0
        tile[:, max(0, place.width - column * TILE_PX) :] = 0
        return tile

    def _window(self, gallery: Gallery, west: float, north: float, gsd: float) -> NDArray[np.uint8]:
        basemap = gallery.basemap
        if gallery.local == self.galleries[0].local and abs(basemap.gsd / gsd - 1) < _SAME_SIZE:
            left, top = (west - basemap.west) / gsd, (basemap.north - north) / gsd
            if abs(left - round(left)) < _ALIGNED and abs(top - round(top)) < _ALIGNED:
                return basemap.read(round(left), round(top), TILE_PX, TILE_PX)
        steps = (np.arange(TILE_PX) + 0.5) * gsd
        eastings, northings = np.meshgrid(west + steps, north - steps)
        if gallery.local != self.galleries[0].local:
            eastings, northings = gallery.local.to_local(*self.galleries[0].local.to_wgs84(eastings, northings))
        columns, rows = basemap.to_pixel(eastings, northings)
        left, top = math.floor(columns.min()) - 1, math.floor(rows.min()) - 1
        around = basemap.read(left, top, math.ceil(columns.max()) + 2 - left, math.ceil(rows.max()) + 2 - top)
        maps = (columns - left).astype(np.float32), (rows - top).astype(np.float32)
        found = np.asarray(cv2.remap(around, *maps, cv2.INTER_LINEAR), np.uint8)
        # A pixel that is mixed with nothing is no pixel.
        known = cv2.remap((around > 0).astype(np.float32), *maps, cv2.INTER_LINEAR) > 0.999
        return np.where(known, np.maximum(found, 1), 0).astype(np.uint8)

    def _overview(self, path: Path) -> dict[str, Any]:
        """Write the colour picture of the whole; what the manifest says of it."""
        west, south, east, north = self.around
        finest = min(gallery.manifest.overview.gsd_m for gallery in self.galleries)
        gsd = max(finest, (east - west) / OVERVIEW_SIDE, (north - south) / OVERVIEW_SIDE)
        width, height = (max(1, math.ceil(extent / gsd - 1e-6)) for extent in (east - west, north - south))
        picture = np.zeros((height, width, 3), np.uint8)
        for gallery in reversed(self.galleries):
            place = gallery.manifest.overview
            data = np.fromfile(gallery.verified(OVERVIEW), np.uint8)
            own = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if own is None:
                raise GalleryError("not readable as an image", file=gallery.path / OVERVIEW)
            # Over a gallery's extent the planes differ by less than an overview shows; its corners are brought over.
            corners = np.array([[0, 0], [place.width, 0], [0, place.height]], np.float32) - np.float32(0.5)
            eastings = place.west + (corners[:, 0] + 0.5) * place.gsd_m
            northings = place.north - (corners[:, 1] + 0.5) * place.gsd_m
            if gallery.local != self.galleries[0].local:
                eastings, northings = self.galleries[0].local.to_local(*gallery.local.to_wgs84(eastings, northings))
            target = np.stack([(eastings - west) / gsd - 0.5, (north - northings) / gsd - 0.5], axis=1)
            turn = cv2.getAffineTransform(corners, target.astype(np.float32))
            if gsd > place.gsd_m * 1.5:
                own = cv2.blur(own, (round(gsd / place.gsd_m),) * 2)
            cv2.warpAffine(own, turn, (width, height), dst=picture, borderMode=cv2.BORDER_TRANSPARENT)
        with atomic_path(path) as temporary:
            write_jpeg(temporary, picture)
        return {"file": OVERVIEW, "width": width, "height": height, "gsd_m": gsd, "west": west, "north": north}

    def _measured(self) -> dict[str, float]:
        """What storing the descriptors cost, the worst of all; unknown to galleries of version 1."""
        told = [gallery.manifest.data.get("descriptors", {}) for gallery in self.galleries]
        names = ("cosine_least", "cosine_mean", "neighbours_kept")
        return {name: min(one[name] for one in told) for name in names if all(name in one for one in told)}


def _target(manifest: GalleryManifest) -> float:
    """Recall that a gallery's index was to reach."""
    recall = manifest.layers[0].recall
    return TARGET if recall is None else recall.target


def _check_match(first: Gallery, other: Gallery) -> None:
    """Refuse galleries that do not go together.

    Raises:
        GalleryError: names the field.
    """
    ours, theirs = first.manifest, other.manifest
    shapes = [
        [(layer.tile_size_m, layer.tile_px, layer.stride_m, layer.heading_deg) for layer in m.layers]
        for m in (ours, theirs)
    ]
    for field, found, expected in (
        ("model.fingerprint", theirs.model_fingerprint, ours.model_fingerprint),
        ("descriptors.stored", theirs.stored, ours.stored),
        ("layers", shapes[1], shapes[0]),
    ):
        same = len(found) == len(expected) and (
            np.allclose(found, expected, rtol=1e-6) if field == "layers" else found == expected
        )
        if not same:
            raise GalleryError(
                f"does not go with {first.path}", file=other.path, field=field, found=found, expected=str(expected)
            )


def _places_in(gallery: Gallery, base: Gallery, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, 2) centres of tiles in another gallery's plane."""
    places = gallery.tiles[numbers]
    if gallery.local == base.local:
        return places
    return np.stack(base.local.to_local(*gallery.local.to_wgs84(places[:, 0], places[:, 1])), axis=1)


def _bounds_in(gallery: Gallery, base: Gallery) -> tuple[float, float, float, float]:
    west, south, east, north = gallery.bounds
    if gallery.local == base.local:
        return west, south, east, north
    steps = np.linspace(0.0, 1.0, 33)
    eastings = np.concatenate([west + steps * (east - west)] * 2 + [np.full(33, west), np.full(33, east)])
    northings = np.concatenate([np.full(33, south), np.full(33, north)] + [south + steps * (north - south)] * 2)
    x, y = base.local.to_local(*gallery.local.to_wgs84(eastings, northings))
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _fresh(galleries: Sequence[Gallery], number: int) -> list[NDArray[np.int64]]:
    """Of each gallery the tiles of a layer that lie further than half a stride from every earlier gallery's."""
    stride = galleries[0].manifest.layers[number].stride_m
    taken: dict[tuple[int, int], list[tuple[float, float]]] = {}
    kept = []
    for gallery in galleries:
        layer = gallery.manifest.layers[number]
        numbers = np.arange(layer.first, layer.stop)
        places = _places_in(gallery, galleries[0], numbers)
        cells = np.floor(places / stride).astype(int)
        keep = np.ones(len(numbers), bool)
        if taken:
            for i, ((x, y), (column, row)) in enumerate(zip(places.tolist(), cells.tolist(), strict=True)):
                near = (
                    place
                    for c in (column - 1, column, column + 1)
                    for r in (row - 1, row, row + 1)
                    for place in taken.get((c, r), ())
                )
                keep[i] = all(max(abs(x - u), abs(y - v)) >= stride / 2 for u, v in near)
        for (x, y), (column, row) in zip(places[keep].tolist(), cells[keep].tolist(), strict=True):
            taken.setdefault((column, row), []).append((x, y))
        kept.append(numbers[keep])
    return kept


def _joined(words: Iterator[str], comma: str) -> str:
    return comma.join(dict.fromkeys(word for one in words for word in one.split(comma) if word))
