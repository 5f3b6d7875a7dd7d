"""WGS84 and the local tangent plane in which a mission is flown.

The projection is written out here, in some forty lines of numpy, because the library for it (29 MB of PROJ and its
database) would be the only thing that the drone needs it for; tests hold it to that library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LocalFrame"]

Array = NDArray[np.float64]

_RADIUS = 6378137.0  # WGS84, equatorial, metres
_FLATTENING = 1 / 298.257223563
_N = _FLATTENING / (2 - _FLATTENING)
_E2 = _FLATTENING * (2 - _FLATTENING)
_E = math.sqrt(_E2)
_RECTIFYING_RADIUS = _RADIUS / (1 + _N) * (1 + _N**2 / 4 + _N**4 / 64)
# Krueger's series to the fourth order of the third flattening, which leaves less than a micrometre.
_FORWARD = (
    _N / 2 - 2 * _N**2 / 3 + 5 * _N**3 / 16 + 41 * _N**4 / 180,
    13 * _N**2 / 48 - 3 * _N**3 / 5 + 557 * _N**4 / 1440,
    61 * _N**3 / 240 - 103 * _N**4 / 140,
    49561 * _N**4 / 161280,
)
_INVERSE = (
    _N / 2 - 2 * _N**2 / 3 + 37 * _N**3 / 96 - _N**4 / 360,
    _N**2 / 48 + _N**3 / 15 - 437 * _N**4 / 1440,
    17 * _N**3 / 480 - 37 * _N**4 / 840,
    4397 * _N**4 / 161280,
)


@dataclass(frozen=True)
class LocalFrame:
    """Easting and northing in metres around an origin, north being true north at the origin.

    A transverse Mercator projection of the WGS84 ellipsoid centred on the origin: against the true tangent plane its
    scale is off by d^2 / 2R^2 (0.01 mm a metre, 1 cm a kilometre, at 28 km east of the origin).

    Source: Karney, "Transverse Mercator with an accuracy of a few nanometers", J. Geodesy 85 (2011), equations 7 to 21
    (Krueger's series).

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
            "+k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
        )

    def to_local(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Array, Array]:
        """WGS84 degrees to easting, northing in metres; arrays or scalars."""
        northing, easting = _forward(
            np.radians(np.asarray(latitude, dtype=np.float64)),
            np.radians(np.asarray(longitude, dtype=np.float64) - self.longitude),
        )
        return easting, northing - self._north_of_equator

    def to_wgs84(self, easting: ArrayLike, northing: ArrayLike) -> tuple[Array, Array]:
        """Easting, northing in metres to WGS84 latitude, longitude in degrees; arrays or scalars."""
        latitude, longitude = _inverse(
            np.asarray(northing, dtype=np.float64) + self._north_of_equator, np.asarray(easting, dtype=np.float64)
        )
        wrapped = (np.degrees(longitude) + self.longitude + 180.0) % 360.0 - 180.0
        return np.degrees(latitude), wrapped

    @cached_property
    def _north_of_equator(self) -> float:
        return float(_forward(np.radians(np.float64(self.latitude)), np.float64(0.0))[0])


def _conformal(tangent: Array) -> Array:
    """Tangent of the conformal latitude from that of the geographic one."""
    root = np.sqrt(1 + tangent**2)
    sigma = np.sinh(_E * np.arctanh(_E * tangent / root))
    return np.asarray(tangent * np.sqrt(1 + sigma**2) - sigma * root)


def _forward(latitude: Array, longitude: Array) -> tuple[Array, Array]:
    """Radians from the equator and the central meridian to metres north and east."""
    tangent = _conformal(np.tan(latitude))
    cosine = np.cos(longitude)
    xi = np.arctan2(tangent, cosine)
    eta = np.arcsinh(np.sin(longitude) / np.hypot(tangent, cosine))
    north, east = xi.copy(), eta.copy()
    for order, alpha in enumerate(_FORWARD, start=1):
        north = north + alpha * np.sin(2 * order * xi) * np.cosh(2 * order * eta)
        east = east + alpha * np.cos(2 * order * xi) * np.sinh(2 * order * eta)
    return _RECTIFYING_RADIUS * north, _RECTIFYING_RADIUS * east


def _inverse(north: Array, east: Array) -> tuple[Array, Array]:
    """Metres north and east to radians from the equator and the central meridian."""
    xi0, eta0 = north / _RECTIFYING_RADIUS, east / _RECTIFYING_RADIUS
    xi, eta = xi0.copy(), eta0.copy()
    for order, beta in enumerate(_INVERSE, start=1):
        xi = xi - beta * np.sin(2 * order * xi0) * np.cosh(2 * order * eta0)
        eta = eta - beta * np.cos(2 * order * xi0) * np.sinh(2 * order * eta0)
    wanted = np.sin(xi) / np.hypot(np.sinh(eta), np.cos(xi))
    tangent = wanted / (1 - _E2)
    for _ in range(4):  # Newton's method; three suffice for doubles
        reached = _conformal(tangent)
        slope = (1 - _E2) * np.sqrt(1 + tangent**2) / (1 + (1 - _E2) * tangent**2)
        tangent = tangent + (wanted - reached) / np.sqrt(1 + reached**2) / slope
    return np.arctan(tangent), np.arctan2(np.sinh(eta), np.cos(xi))
