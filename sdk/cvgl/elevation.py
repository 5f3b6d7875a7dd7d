"""An elevation model's file as the terrain that a mission carries; only preparation reads one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from rasterio.enums import Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.terrain import DATUMS, Terrain

__all__ = ["read_terrain"]

_UNREADABLE = (RasterioError, RasterioIOError)
# A mission carries at most so many cells a side: a map of 10 km at 20 m.
_LARGEST_SIDE = 512
_METRES = frozenset({"", "m", "metre", "metres", "meter", "meters"})


def read_terrain(
    path: str | Path,
    local: LocalFrame,
    bounds: Sequence[float],
    *,
    datum: str = DATUMS[0],
    geoid_separation: float | None = None,
) -> Terrain:
    """Read what an elevation model says of an area; only that part of the file is read.

    Args:
        path: any raster with a CRS that GDAL reads; its first band, in metres.
        local: the local tangent plane to bring it to.
        bounds: (west, south, east, north) of the area, metres in ``local``.
        datum, geoid_separation: as of :class:`Terrain`: files hardly ever say.

    Raises:
        MapError: no such file, no georeference, another unit than metres, an unknown datum, or nothing but nodata
            in the area.
    """
    path = Path(path)
    if datum not in DATUMS:
        raise MapError("unknown datum", file=path, field="datum", found=datum, expected=" or ".join(DATUMS))
    if not path.exists():
        raise MapError("no such file", file=path)
    west, south, east, north = bounds
    try:
        with rasterio.open(path) as dataset:
            if dataset.crs is None:
                raise MapError("not georeferenced", file=path, field="CRS", expected="a coordinate system")
            unit = (dataset.units[0] or "").strip().lower()
            if unit not in _METRES:
                raise MapError("not in metres", file=path, field="unit of band 1", found=unit, expected="metres")
            native = _native_gsd(dataset, local, (0.5 * (west + east), 0.5 * (south + north)))
            gsd = max(native, (east - west) / _LARGEST_SIDE, (north - south) / _LARGEST_SIDE)
            width, height = (max(2, math.ceil(extent / gsd)) for extent in (east - west, north - south))
            with WarpedVRT(
                dataset,
                crs=local.crs,
                transform=Affine(gsd, 0, west, 0, -gsd, north),
                width=width,
                height=height,
                resampling=Resampling.average if gsd > 1.5 * native else Resampling.bilinear,
                dtype="float32",
                nodata=math.nan,
            ) as warped:
                heights = warped.read(1, masked=True).filled(math.nan)
    except _UNREADABLE as reason:
        raise MapError(f"not readable as an elevation model: {reason}", file=path) from reason
    heights = np.where(np.isfinite(heights), heights, np.nan).astype(np.float32)
    if np.isnan(heights).all():
        raise MapError("says nothing of the map's area", file=path)
    return Terrain(heights, gsd, west, north, datum, geoid_separation, path.name)


def _native_gsd(dataset: Any, local: LocalFrame, place: tuple[float, float]) -> float:
    """Metres from one pixel of a raster to the next, around a place."""
    latitude, longitude = local.to_wgs84(*place)
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", dataset.crs, [float(longitude)], [float(latitude)])
    # Steps along the raster's columns and rows, in its own units.
    t = dataset.transform
    xs, ys = [float(x), float(x) + t.a, float(x) + t.b], [float(y), float(y) + t.d, float(y) + t.e]
    longitudes, latitudes = rasterio.warp.transform(dataset.crs, "EPSG:4326", xs, ys)
    points = np.column_stack(local.to_local(latitudes, longitudes))
    return float(np.linalg.norm(points[1:] - points[0], axis=1).min())
