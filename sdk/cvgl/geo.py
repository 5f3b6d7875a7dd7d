"""WGS84 and the local tangent plane in which a mission is flown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Transformer

__all__ = ["LocalFrame"]


@dataclass(frozen=True)
class LocalFrame:
    """Easting and northing in metres around an origin, north being true north at the origin.

    A transverse Mercator projection of the WGS84 ellipsoid centred on the origin: against the true tangent plane its
    scale is off by d^2 / 2R^2 (0.3 mm at 1 km, 1 m at 20 km east of the origin).

    Args:
        latitude: of the origin, WGS84 degrees.
        longitude: of the origin, WGS84 degrees.
    """

    latitude: float
    longitude: float

    @property
    def crs(self) -> str:
        """The projection, for raster libraries."""
        return (
            f"+proj=tmerc +lat_0={self.latitude:.9f} +lon_0={self.longitude:.9f} "
            "+k=1 +x_0=0 +y_0=0 +ellps=WGS84 +units=m +no_defs"
        )

    @cached_property
    def _to_local(self) -> Transformer:
        return Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)

    def to_local(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """WGS84 degrees to easting, northing in metres; arrays or scalars."""
        easting, northing = self._to_local.transform(np.asarray(longitude), np.asarray(latitude))
        return np.asarray(easting), np.asarray(northing)

    def to_wgs84(self, easting: ArrayLike, northing: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting, northing in metres to WGS84 latitude, longitude in degrees; arrays or scalars."""
        longitude, latitude = self._to_local.transform(
            np.asarray(easting), np.asarray(northing), direction="INVERSE"
        )
        return np.asarray(latitude), np.asarray(longitude)
