"""A map's tiles through the network: reading, cutting and embedding at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.gallery.ahead import ahead
from cvgl.gallery.grid import Grid, Piece
from cvgl.gallery.manifest import FEATURELESS, PARTIAL, TABLE
from cvgl.model import Model, View

if TYPE_CHECKING:  # only builders read maps: what flies must not load GDAL by importing this package
    from cvgl.imagery import MapSource

__all__ = ["BATCH", "LEAST_VALID", "Job", "Wanted", "embed_pieces"]

Wanted = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""Tells of (N, 2) centres which tiles are to be made."""

LEAST_VALID = 0.6
"""Share of a tile that must have data: one at the map's rim may be half empty and say little about its place."""
BATCH = 64

# Standard deviation of grey levels: JPEG and sensor noise over water stay below.
_FEATURELESS = 4.0
_STRIPS_AHEAD, _BATCHES_AHEAD = 1, 4


@dataclass(frozen=True)
class Job:
    """A piece of a layer that is to be embedded.

    Args:
        number: of the piece among all.
        grid: of the layer.
        heading_deg: of the layer.
        piece: which tiles.
        wanted: which of them.
    """

    number: int
    grid: Grid
    heading_deg: float
    piece: Piece
    wanted: Wanted


@dataclass(frozen=True)
class _Batch:
    job: Job
    table: NDArray[np.void]
    inputs: NDArray[np.float32] | None
    last: bool


def embed_pieces(
    source: MapSource, model: Model, jobs: Iterable[Job], tell: Callable[[int], None]
) -> Iterator[tuple[Job, NDArray[np.void], NDArray[np.float32]]]:
    """Embed pieces in their order.

    The network runs in the calling thread, and has its inputs for one call only; another one reads the map, and a third
    cuts tiles and normalises them, both ahead of it. Batches do not reach from one piece into the next, so that a piece
    comes out the same whichever pieces were done before.

    Args:
        source: the map.
        model: embeds by its reference view.
        jobs: the pieces.
        tell: called with the number of tiles of a batch that is done.

    Yields:
        The job, the rows of its tiles' table, and their descriptors, (n, D) float32 of unit length.
    """
    tables: list[NDArray[np.void]] = []
    found: list[NDArray[np.float32]] = []
    batches = ahead(_batches(model, ahead(_strips(source, jobs), _STRIPS_AHEAD)), _BATCHES_AHEAD)
    try:
        for batch in batches:
            if batch.inputs is not None:
                tables.append(batch.table)
                found.append(model.embed_inputs(batch.inputs, "reference"))
                tell(len(batch.table))
            if batch.last:
                empty = np.empty((0, model.descriptor_size), np.float32)
                yield batch.job, np.concatenate([np.empty(0, TABLE), *tables]), np.concatenate([empty, *found])
                tables, found = [], []
    finally:
        batches.close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Strip:
    """What was read for a piece, with ``margin`` pixels around the tiles.

    Args:
        job: the piece.
        planes: (3, H, W) red, green and blue: tiles are cut from planes, as the network takes them.
        valid: (H, W).
        margin: pixels.
    """

    job: Job
    planes: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    margin: int


def _strips(source: MapSource, jobs: Iterable[Job]) -> Iterator[_Strip]:
    held: dict[tuple[Grid, float, int, int], tuple[NDArray[np.uint8], NDArray[np.bool_]]] = {}
    for job in jobs:
        grid, piece = job.grid, job.piece
        # A turned tile reaches further: its corners lie on the circle around it.
        margin = 0 if job.heading_deg % 90.0 == 0.0 else math.ceil(grid.tile_px * (math.sqrt(2) - 1) / 2) + 1
        height = (piece.rows - 1) * grid.stride_px + grid.tile_px + 2 * margin
        # Tiles of neighbouring pieces overlap. The map is read in bands that do not, each from the same place whichever
        # pieces are asked for: a window read from elsewhere may differ by a grey level.
        step = piece.step * grid.stride_px
        first = piece.row // piece.step
        needed = {
            band: (grid, job.heading_deg, piece.column, band) for band in range(first, first + -(-height // step))
        }
        held = {key: bands for key, bands in held.items() if key in needed.values()}
        for band, key in needed.items():
            if key not in held:
                held[key] = _band(source, job, margin, band * step, step)
        planes, valids = zip(*(held[key] for key in needed.values()), strict=True)
        yield _Strip(job, np.concatenate(planes, axis=1)[:, :height], np.concatenate(valids)[:height], margin)


def _band(
    source: MapSource, job: Job, margin: int, top: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Planes and validity of a band; ``top`` is counted in pixels from the grid's first, less the margin."""
    grid, piece = job.grid, job.piece
    width = (piece.columns - 1) * grid.stride_px + grid.tile_px + 2 * margin
    end = (grid.rows - 1) * grid.stride_px + grid.tile_px + 2 * margin
    west = grid.west + (piece.column * grid.stride_px - margin) * grid.gsd_m
    north = grid.north - (top - margin) * grid.gsd_m
    rgb, valid = source.read(west, north, width, min(height, end - top), grid.gsd_m)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)), valid


def _batches(model: Model, strips: Iterator[_Strip]) -> Iterator[_Batch]:
    view = model.views["reference"]
    # One is filled, some wait, one is at the network: memory that is taken anew costs more than what is written to it.
    buffers = cycle([np.empty((BATCH, 3, *view.input_size), np.float32) for _ in range(_BATCHES_AHEAD + 2)])
    try:
        for strip in strips:
            job = strip.job
            places = _places(strip)
            if places:
                centres = np.array([job.grid.centre(job.piece.column + c, job.piece.row + r) for r, c, _ in places])
                kept = job.wanted(centres)
                centres, places = centres[kept], [place for place, keep in zip(places, kept, strict=True) if keep]
            if not places:
                yield _Batch(job, np.empty(0, TABLE), None, True)
                continue
            grey = _grey(strip.planes)
            for start in range(0, len(places), BATCH):
                chosen = places[start : start + BATCH]
                inputs = next(buffers)[: len(chosen)]
                for tile, place in zip(inputs, chosen, strict=True):
                    _cut_into(tile, strip, place, view)
                table = np.zeros(len(chosen), TABLE)
                table["easting"], table["northing"] = centres[start : start + BATCH].T
                table["valid"] = [int(100 * share) for _, _, share in chosen]
                table["flags"] = [_flags(strip, grey, row, column, share) for row, column, share in chosen]
                yield _Batch(job, table, inputs, start + BATCH >= len(places))
    finally:
        strips.close()  # type: ignore[attr-defined]


def _grey(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) BT.601 luma."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(planes.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY), np.uint8)


def _window(strip: _Strip, row: int, column: int) -> tuple[slice, slice]:
    grid = strip.job.grid
    top, left = strip.margin + row * grid.stride_px, strip.margin + column * grid.stride_px
    return slice(top, top + grid.tile_px), slice(left, left + grid.tile_px)


def _cut_into(tile: NDArray[np.float32], strip: _Strip, place: tuple[int, int, float], view: View) -> None:
    """Write a tile, turned so that up points to the layer's heading, as the network takes it: (3, H, W)."""
    row, column, share = place
    heading = strip.job.heading_deg
    window = _window(strip, row, column)
    planes, valid = strip.planes[:, window[0], window[1]], strip.valid[window]
    if heading % 90.0 == 0.0:
        # The ground turns to the left where the view turns to the right.
        turns = round(heading / 90.0)
        planes, valid = np.rot90(planes, turns, (1, 2)), np.rot90(valid, turns)
    else:
        planes, valid = _turned(strip, window, heading)
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in view.normalisation)
    np.multiply(planes, scale, out=tile)
    tile += offset
    if share < 1.0 or heading % 90.0 != 0.0:
        tile *= valid


def _turned(strip: _Strip, window: tuple[slice, slice], heading: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Planes and validity of a tile that is turned by any angle."""
    side = strip.job.grid.tile_px
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    middle = (side - 1) / 2
    x, y = window[1].start + middle, window[0].start + middle
    back = np.array(
        [
            [cos, -sin, x - cos * middle + sin * middle],
            [sin, cos, y - sin * middle - cos * middle],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    planes = [cv2.warpAffine(plane, back, (side, side), flags=flags) for plane in strip.planes]
    valid = cv2.warpAffine(strip.valid.astype(np.uint8), back, (side, side), flags=cv2.INTER_NEAREST | flags)
    return np.stack(planes).astype(np.uint8, copy=False), valid.astype(bool)


def _flags(strip: _Strip, grey: NDArray[np.uint8], row: int, column: int, share: float) -> int:
    window = _window(strip, row, column)
    mask = strip.valid[window].astype(np.uint8) if share < 1.0 else None
    _, spread = cv2.meanStdDev(grey[window], mask=mask)
    return (FEATURELESS if float(spread[0, 0]) < _FEATURELESS else 0) | (PARTIAL if share < 1.0 else 0)


def _places(strip: _Strip) -> list[tuple[int, int, float]]:
    """(row, column) within a piece of the tiles with enough data, and the share of each that has any."""
    grid, piece = strip.job.grid, strip.job.piece
    step, side, margin = grid.stride_px, grid.tile_px, strip.margin
    places = []
    for row in range(piece.rows):
        # Sums over columns once per row of tiles, then over each tile's columns.
        band = strip.valid[margin + row * step : margin + row * step + side, margin:]
        sums = np.concatenate([[0], np.cumsum(band.sum(axis=0))])
        starts = np.arange(piece.columns) * step
        share = (sums[starts + side] - sums[starts]) / side**2
        places += [(row, int(column), float(share[column])) for column in np.flatnonzero(share >= LEAST_VALID)]
    return places
