"""The basemap: the grey picture of the mission area that refinement registers frames to."""

from __future__ import annotations

import math
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

__all__ = ["Basemap", "load_array", "write_basemap", "write_overview"]

_STRIP_PIXELS = 1 << 22
_OVERVIEW_SIDE = 4096
_OVERVIEW_QUALITY = 88


@dataclass(frozen=True)
class Basemap:
    """A north-up grey image of the mission area.

    Args:
        pixels: (H, W) uint8, 0 where there is no data, 1..255 elsewhere; usually mapped from a file.
        gsd: ground sampling distance, m/px.
        west, north: easting and northing, metres, of the outer corner of the first (upper left) pixel. The
            centre of that pixel lies half a pixel further east and south.
    """

    pixels: NDArray[np.uint8]
    gsd: float
    west: float
    north: float

    @classmethod
    def open(cls, path: str | Path, *, gsd: float, west: float, north: float) -> Basemap:
        """Map ``basemap.npy`` into memory; the rest stands in the manifest.

        Raises:
            GalleryError: the file is no (H, W) array of uint8.
        """
        pixels = load_array(path, np.uint8, 2, GalleryError)
        return cls(pixels, gsd, west, north)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north), outer edges, metres."""
        height, width = self.pixels.shape
        return self.west, self.north - height * self.gsd, self.west + width * self.gsd, self.north

    def read(self, west_col: int, north_row: int, width: int, height: int) -> NDArray[np.uint8]:
        """A copy of the window whose first pixel is (west_col, north_row); 0 where it reaches outside."""
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


def write_basemap(
    source: MapSource, path: str | Path, gsd: float, progress: Callable[[int, int], None] | None = None
) -> Basemap:
    """Write a map as ``basemap.npy``, strip by strip: the whole map is never in memory.

    Args:
        source: the map.
        path: of the file.
        gsd: wanted, m/px.
        progress: called with rows done and rows in all.

    Returns:
        The basemap, mapped from the file.
    """
    west, south, east, north = source.bounds
    width, height = math.ceil((east - west) / gsd), math.ceil((north - south) / gsd)
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(height, width))
    step = max(1, min(height, _STRIP_PIXELS // width))
    for top in range(0, height, step):
        rows = min(step, height - top)
        rgb, valid = source.read(west, north - top * gsd, width, rows, gsd)
        # ITU-R BT.601 luma, as OpenCV has it. Black content is not nodata.
        grey = np.maximum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1)
        grey[~valid] = 0
        pixels[top : top + rows] = grey
        if progress is not None:
            progress(top + rows, height)
    pixels.flush()
    del pixels
    return Basemap.open(path, gsd=gsd, west=west, north=north)


def write_overview(source: MapSource, path: str | Path) -> dict[str, Any]:
    """Write a colour JPEG of the whole map for reports, its longer side at most 4096 pixels.

    Returns:
        What the manifest says of it: file name, width, height, gsd_m, and west and north, the outer corner of
        the first pixel in local metres.
    """
    path = Path(path)
    west, south, east, north = source.bounds
    gsd = max(source.native_gsd, (east - west) / _OVERVIEW_SIDE, (north - south) / _OVERVIEW_SIDE)
    # The small allowance keeps rounding from making the longer side one pixel too long.
    width, height = (math.ceil(extent / gsd - 1e-6) for extent in (east - west, north - south))
    rgb, _ = source.read(west, north, width, height, gsd)
    done, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _OVERVIEW_QUALITY])
    if not done:
        raise GalleryError("JPEG does not take the overview", file=path, found=f"{width} x {height}")
    path.write_bytes(jpeg.tobytes())
    return {"file": path.name, "width": width, "height": height, "gsd_m": gsd, "west": west, "north": north}


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
