"""The basemap: the grey picture of the mission area that refinement registers frames to."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.errors import CvglError, GalleryError

if TYPE_CHECKING:  # what flies reads basemaps, and does not need to load GDAL for it
    from cvgl.imagery import MapSource

__all__ = [
    "HELD_TILES",
    "OVERVIEW_SIDE",
    "TILE_PX",
    "Basemap",
    "TiledPixels",
    "load_array",
    "read_grey",
    "write_jpeg",
    "write_overview",
]

TILE_PX = 256
"""Side of a tile of a basemap."""
HELD_TILES = 1024
"""Tiles that a basemap keeps in memory, 64 kB each: what the windows of many frames read."""

OVERVIEW_SIDE = 4096
"""Longest side of an overview, pixels."""
_OVERVIEW_QUALITY = 88


@dataclass(frozen=True)
class Basemap:
    """A north-up grey image of the mission area.

    Args:
        pixels: (H, W) uint8, 0 where there is no data, 1..255 elsewhere: an array, or tiles that are read as they are
            needed and slice like one.
        gsd: ground sampling distance, m/px.
        west, north: easting and northing, metres, of the outer corner of the first (upper left) pixel. The
            centre of that pixel lies half a pixel further east and south.
    """

    pixels: NDArray[np.uint8] | TiledPixels
    gsd: float
    west: float
    north: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north), outer edges, metres."""
        height, width = self.pixels.shape
        return self.west, self.north - height * self.gsd, self.west + width * self.gsd, self.north

    def read(self, west_col: int, north_row: int, width: int, height: int) -> NDArray[np.uint8]:
        """A copy of the window whose first pixel is (west_col, north_row); 0 where it reaches outside."""
        if isinstance(self.pixels, TiledPixels):
            return self.pixels.window(west_col, north_row, width, height)
        rows, columns = self.pixels.shape
        window = np.zeros((height, width), np.uint8)
        top, bottom = max(north_row, 0), min(north_row + height, rows)
        left, right = max(west_col, 0), min(west_col + width, columns)
        if top < bottom and left < right:
            window[top - north_row : bottom - north_row, left - west_col : right - west_col] = self.pixels[
                top:bottom, left:right
            ]
        return window

    def to_pixel(self, easting: ArrayLike, northing: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Local metres to (column, row); the centre of the first pixel is (0, 0)."""
        return (
            (np.asarray(easting, np.float64) - self.west) / self.gsd - 0.5,
            (self.north - np.asarray(northing, np.float64)) / self.gsd - 0.5,
        )

    def to_local(self, column: ArrayLike, row: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(column, row) to easting, northing in local metres; the centre of the first pixel is (0, 0)."""
        return (
            self.west + (np.asarray(column, np.float64) + 0.5) * self.gsd,
            self.north - (np.asarray(row, np.float64) + 0.5) * self.gsd,
        )


class TiledPixels:
    """The pixels of a basemap that is kept in square tiles, read as they are asked for. Safe for several threads.

    Behaves as an (H, W) uint8 array does that is sliced along both axes; :func:`numpy.asarray` reads all of it.

    Args:
        shape: (H, W).
        directory: (rows, columns) int32 of tiles: the number of each, or -1 where there is no data.
        fetch: gives a tile by its number, (TILE_PX, TILE_PX) uint8.
    """

    dtype = np.dtype(np.uint8)
    ndim = 2

    def __init__(
        self, shape: tuple[int, int], directory: NDArray[np.int32], fetch: Callable[[int], NDArray[np.uint8]]
    ) -> None:
        self.shape = shape
        self._directory, self._fetch = directory, fetch
        self._held: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def window(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """The window whose first pixel is (left, top); 0 where it reaches outside.

        Raises:
            GalleryError: a tile is damaged.
        """
        window = np.zeros((height, width), np.uint8)
        first_x, first_y, tiles = self.cover(left, top, width, height)
        for down, row in enumerate(tiles):
            for right, tile in enumerate(row):
                if tile is not None:
                    y, x = first_y + down * TILE_PX - top, first_x + right * TILE_PX - left
                    low, high = max(y, 0), min(y + TILE_PX, height)
                    first, last = max(x, 0), min(x + TILE_PX, width)
                    window[low:high, first:last] = tile[low - y : high - y, first - x : last - x]
        return window

    def cover(
        self, left: int, top: int, width: int, height: int
    ) -> tuple[int, int, list[list[NDArray[np.uint8] | None]]]:
        """The tiles that a window touches, as they lie in memory.

        Returns:
            Column and row of the first tile's first pixel, and rows of tiles (TILE_PX, TILE_PX), None where there is
            no data. Beyond them the window reaches outside.

        Raises:
            GalleryError: a tile is damaged.
        """
        rows, columns = self._directory.shape
        first, last = max(top // TILE_PX, 0), min((top + height - 1) // TILE_PX + 1, rows)
        begin, end = max(left // TILE_PX, 0), min((left + width - 1) // TILE_PX + 1, columns)
        numbers = self._directory[first : max(last, first), begin : max(end, begin)].tolist()
        with self._lock:  # once for all that are held, which usually is all
            held = {number: self._held[number] for row in numbers for number in row if number in self._held}
            for number in held:
                self._held.move_to_end(number)
        tiles = [
            [held.get(number) if number in held or number < 0 else self._tile(number) for number in row]
            for row in numbers
        ]
        return begin * TILE_PX, first * TILE_PX, tiles

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.uint8]:
        (top, bottom, down), (left, right, across) = (
            part.indices(size) for part, size in zip(key, self.shape, strict=True)
        )
        if down <= 0 or across <= 0:
            raise IndexError("a basemap is sliced forwards")
        return self.window(left, top, max(right - left, 0), max(bottom - top, 0))[::down, ::across]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.window(0, 0, self.shape[1], self.shape[0]).astype(dtype or np.uint8, copy=False)

    def _tile(self, number: int) -> NDArray[np.uint8]:
        with self._lock:
            if number in self._held:
                self._held.move_to_end(number)
                return self._held[number]
        tile = self._fetch(number)
        with self._lock:
            self._held[number] = tile
            while len(self._held) > HELD_TILES:
                self._held.popitem(last=False)
        return tile


def read_grey(source: MapSource, west: float, north: float, width: int, height: int, gsd: float) -> NDArray[np.uint8]:
    """A window of a map as basemaps have it: (height, width) uint8, 0 where there is no data and 1..255 elsewhere."""
    rgb, valid = source.read(west, north, width, height, gsd)
    # ITU-R BT.601 luma, as OpenCV has it. Black content is not nodata.
    grey = np.maximum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1).astype(np.uint8)
    grey[~valid] = 0
    return grey


def write_overview(source: MapSource, path: str | Path) -> dict[str, Any]:
    """Write a colour JPEG of the whole map for reports, its longer side at most 4096 pixels.

    Returns:
        What the manifest says of it: file name, width, height, gsd_m, and west and north, the outer corner of
        the first pixel in local metres.
    """
    path = Path(path)
    west, south, east, north = source.bounds
    gsd = max(source.native_gsd, (east - west) / OVERVIEW_SIDE, (north - south) / OVERVIEW_SIDE)
    # The small allowance keeps rounding from making the longer side one pixel too long.
    width, height = (math.ceil(extent / gsd - 1e-6) for extent in (east - west, north - south))
    rgb, _ = source.read(west, north, width, height, gsd)
    write_jpeg(path, rgb[..., ::-1])
    return {"file": path.name, "width": width, "height": height, "gsd_m": gsd, "west": west, "north": north}


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR picture as an overview is written.

    Raises:
        GalleryError: JPEG does not take pictures so large.
    """
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _OVERVIEW_QUALITY])
    if not done:
        raise GalleryError("JPEG does not take the overview", file=path, found=f"{image.shape[1]} x {image.shape[0]}")
    path.write_bytes(jpeg.tobytes())


def load_array(path: str | Path, dtype: Any, dimensions: int, error: type[CvglError]) -> NDArray[Any]:
    """Map an ``.npy`` file into memory, read only.

    Raises:
        error: it is no such file, or holds another type or number of dimensions.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        raise error(f"not readable as a numpy array: {reason}", file=path) from reason
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != dimensions:
        raise error(
            "another array than expected",
            file=path,
            found=f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}",
            expected=f"{np.dtype(dtype).name} with {dimensions} dimensions",
        )
    return array
