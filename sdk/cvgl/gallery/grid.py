"""Where tiles lie, and the pieces in which a map is read for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cvgl.errors import GalleryError

__all__ = ["Grid", "Piece", "anchored_grid", "pieces_of", "plan_grid"]

_PIECE_PIXELS = 1 << 23
_PIECE_WIDTH = 1 << 15
# The network waits for the first piece alone, so there are several even of small maps, of so many pixels at least.
_PIECES, _LEAST_STEP = 8, 64


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

    @property
    def tile_size_m(self) -> float:
        """Side of a tile, metres."""
        return self.tile_px * self.gsd_m

    @property
    def stride_m(self) -> float:
        """From one tile's centre to the next, metres."""
        return self.stride_px * self.gsd_m

    def centre(self, column: int, row: int) -> tuple[float, float]:
        """Easting, northing of a tile's centre."""
        half = self.tile_px * self.gsd_m / 2
        step = self.stride_px * self.gsd_m
        return self.west + half + column * step, self.north - half - row * step


@dataclass(frozen=True)
class Piece:
    """Tiles that are embedded one after the other.

    Args:
        column, row: of the first tile.
        columns, rows: of tiles.
        step: rows of tiles from this piece to the one below.
    """

    column: int
    row: int
    columns: int
    rows: int
    step: int


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


def anchored_grid(
    bounds: tuple[float, float, float, float], anchor: tuple[float, float], tile_size_m: float, stride_m: float, px: int
) -> Grid | None:
    """The part of an endless grid whose centres lie within the bounds; None where there is none.

    Args:
        bounds: (west, south, east, north), metres.
        anchor: easting and northing of any tile's centre.
        tile_size_m, stride_m: of the grid, metres.
        px: side of a tile in pixels.
    """
    west, south, east, north = bounds
    gsd = tile_size_m / px
    stride_px = max(1, round(stride_m / gsd))
    stride = stride_px * gsd
    left, right = math.ceil((west - anchor[0]) / stride), math.floor((east - anchor[0]) / stride)
    low, high = math.ceil((south - anchor[1]) / stride), math.floor((north - anchor[1]) / stride)
    if right < left or high < low:
        return None
    first = anchor[0] + left * stride - tile_size_m / 2, anchor[1] + high * stride + tile_size_m / 2
    return Grid(*first, gsd, px, stride_px, right - left + 1, high - low + 1)


def pieces_of(grid: Grid) -> Iterator[Piece]:
    """Pieces of limited size, from north to south and west to east: their cut follows from the grid alone."""
    across = max(1, 1 + (_PIECE_WIDTH - grid.tile_px) // grid.stride_px)
    width = (min(across, grid.columns) - 1) * grid.stride_px + grid.tile_px
    most = 1 + (_PIECE_PIXELS // width - grid.tile_px) // grid.stride_px
    least = -(-_LEAST_STEP // grid.stride_px)
    down = max(1, min(most, max(-(-grid.rows // _PIECES), least)))
    for row in range(0, grid.rows, down):
        for column in range(0, grid.columns, across):
            yield Piece(column, row, min(across, grid.columns - column), min(down, grid.rows - row), down)
