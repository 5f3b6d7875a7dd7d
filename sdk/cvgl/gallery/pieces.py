"""The pieces of which a gallery is made: what each is follows from the plan alone, wherever and whenever it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import TILE_PX, read_grey
from cvgl.gallery.area import Area
from cvgl.gallery.descriptors import restore, store
from cvgl.gallery.embedding import Job, embed_pieces
from cvgl.gallery.grid import Grid, Piece
from cvgl.gallery.manifest import Raster
from cvgl.gallery.write import basemap_shape
from cvgl.model import Model

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["Arrays", "Plan", "PlannedLayer", "Workers", "basemap_piece", "cells_of", "tile_pieces"]

_BASEMAP_STRIP = 1 << 23
_BASEMAP_ACROSS = 128
# Tiles of which descriptors are kept as the network gave them, to measure what storing them costs.
_SAMPLE = 2000

Arrays = dict[str, NDArray[Any]]
"""A piece: its arrays by name."""


@dataclass(frozen=True)
class PlannedLayer:
    """A layer to be built.

    Args:
        grid: of its tiles.
        pieces: of the grid.
        tile_size_m: the size that was asked for.
        heading_deg: which way up is.
        anchor: (2,) centre of a tile of the gallery that is extended, metres.
        taken: sorted cells around the anchor (:func:`cells_of`) in which that gallery has tiles.
    """

    grid: Grid
    pieces: tuple[Piece, ...]
    tile_size_m: float
    heading_deg: float
    anchor: NDArray[np.float64] | None = None
    taken: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Plan:
    """All that decides what the pieces of a gallery are, beside map and model. Can be pickled.

    Args:
        layers: to be built.
        basemap: where it lies.
        stored: how descriptors are stored.
        area: only tiles are made that touch it.
    """

    layers: tuple[PlannedLayer, ...]
    basemap: Raster
    stored: str
    area: Area | None

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the jobs: they hold functions, and follow from the rest.
        return Plan, (self.layers, self.basemap, self.stored, self.area)

    @cached_property
    def jobs(self) -> list[tuple[Job, int]]:
        """All pieces of all layers, each with the number of its layer."""
        found: list[tuple[Job, int]] = []
        for number, layer in enumerate(self.layers):
            for piece in layer.pieces:
                found.append((Job(len(found), layer.grid, layer.heading_deg, piece, self._wanted(layer)), number))
        return found

    @property
    def places(self) -> list[int]:
        """Of each piece how many tiles it would have if the map had data everywhere."""
        return [job.piece.columns * job.piece.rows for job, _ in self.jobs]

    @property
    def sample_step(self) -> int:
        """Every how manieth tile's descriptor is kept exactly."""
        return max(1, -(-sum(self.places) // _SAMPLE))

    @property
    def cuts(self) -> list[tuple[int, int, int, int]]:
        """Of each piece of the basemap its first row and column of tiles, and how many there are."""
        rows, columns = basemap_shape(self.basemap)
        across = min(columns, _BASEMAP_ACROSS)
        down = max(1, _BASEMAP_STRIP // (across * TILE_PX**2))
        return [
            (row, column, min(down, rows - row), min(across, columns - column))
            for row in range(0, rows, down)
            for column in range(0, columns, across)
        ]

    def _wanted(self, layer: PlannedLayer) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
        def wanted(centres: NDArray[np.float64]) -> NDArray[np.bool_]:
            keep = np.ones(len(centres), bool)
            if layer.taken is not None and layer.anchor is not None:
                keep &= ~np.isin(cells_of(centres, layer.anchor, layer.grid.stride_m), layer.taken)
            if self.area is not None:
                keep &= self.area.touches(centres, layer.tile_size_m)
            return keep

        return wanted


class Workers(Protocol):
    """Who makes pieces elsewhere; see `cvgl.gallery.scale`."""

    def make(self, plan: Plan, stage: str, numbers: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        """Pieces of a stage, "tiles" or "basemap", with their numbers and in any order."""


def cells_of(centres: NDArray[np.float64], anchor: NDArray[np.float64], stride_m: float) -> NDArray[np.int64]:
    """(N,) cells of an endless grid, column and row in one number each; (N, 2) centres and the anchor in metres."""
    at = np.rint((centres - anchor) / stride_m).astype(np.int64)
    return np.asarray(at[:, 0] * (1 << 32) + at[:, 1])


def tile_pieces(
    plan: Plan, source: MapSource, model: Model, numbers: Sequence[int], tell: Callable[[int], None]
) -> Iterator[tuple[int, Arrays]]:
    """Embed pieces in their order; ``tell`` is called with the number of tiles that were embedded since."""
    step = plan.sample_step
    jobs = [plan.jobs[number][0] for number in numbers]
    for job, table, descriptors in embed_pieces(source, model, jobs, tell):
        stored = store(descriptors, plan.stored)
        back = restore(stored, plan.stored)
        # The longest row's error in single precision is far below what half precision loses.
        cosines = (back * descriptors).sum(axis=1) / np.maximum(np.linalg.norm(back, axis=1), 1e-6)
        yield job.number, {"table": table, "stored": stored, "exact": descriptors[::step], "cosines": cosines}


def basemap_piece(plan: Plan, source: MapSource, number: int) -> Arrays:
    """Read a piece of the basemap: its tiles, and where there are any."""
    row, column, rows, columns = plan.cuts[number]
    place = plan.basemap
    west, north = place.west + column * TILE_PX * place.gsd_m, place.north - row * TILE_PX * place.gsd_m
    grey = read_grey(source, west, north, columns * TILE_PX, rows * TILE_PX, place.gsd_m)
    grey[max(0, place.height - row * TILE_PX) :] = 0
    grey[:, max(0, place.width - column * TILE_PX) :] = 0
    tiles = grey.reshape(rows, TILE_PX, columns, TILE_PX).transpose(0, 2, 1, 3)
    there = tiles.any(axis=(2, 3))
    if plan.area is not None:
        half = TILE_PX * place.gsd_m / 2
        easting = west + half + np.arange(columns) * 2 * half
        northing = north - half - np.arange(rows) * 2 * half
        centres = np.stack(np.meshgrid(easting, northing), axis=-1).reshape(-1, 2)
        reach = 2 * half + 2 * plan.layers[0].tile_size_m
        there &= plan.area.touches(centres, reach).reshape(rows, columns)
    return {"tiles": tiles[there], "there": there}
