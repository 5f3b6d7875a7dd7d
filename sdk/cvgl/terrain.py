"""Height of the ground from an elevation model, as a mission carries it: a small grid in the local tangent plane.

It turns an altitude into a height above the ground. Altitudes above mean sea level and above the WGS84 ellipsoid differ
by the geoid's height (up to 100 m), which nothing here knows by itself: it is given, or both are in the same datum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.basemap import load_array
from cvgl.errors import FrameError, MissionError
from cvgl.files import atomic_folder, read_json, sha256_file, write_json

__all__ = ["DATUMS", "Terrain"]

DATUMS = ("mean_sea_level", "ellipsoid")
"""What heights are counted from."""

Array = NDArray[np.float64]

_FORMAT_VERSION = 1
_MANIFEST, _HEIGHTS = "manifest.json", "heights.npy"
_HALVINGS = 50


@dataclass(frozen=True)
class Terrain:
    """Heights of the ground on a grid.

    Args:
        heights: (H, W) metres above the datum at the cells' centres, north-up; NaN where unknown.
        gsd: side of a cell, metres.
        west, north: outer corner of the first cell, metres in the local tangent plane.
        datum: "mean_sea_level" or "ellipsoid" (WGS84).
        geoid_separation: height of mean sea level above the ellipsoid here, metres; None if nobody gave it.
        source: name of the elevation model's file.
    """

    heights: NDArray[np.float32]
    gsd: float
    west: float
    north: float
    datum: str = DATUMS[0]
    geoid_separation: float | None = None
    source: str = ""

    @classmethod
    def open(cls, folder: str | Path) -> Terrain:
        """Read what :meth:`save` wrote.

        Raises:
            MissionError: a file is absent, damaged or of another format.
        """
        file = Path(folder) / _MANIFEST
        data = read_json(file, MissionError)
        if data.get("format_version") != _FORMAT_VERSION:
            found = data.get("format_version")
            raise MissionError("not readable", file=file, field="format_version", found=found, expected="1")
        heights_file = Path(folder) / _HEIGHTS
        if not heights_file.is_file():
            raise MissionError("no such file", file=heights_file)
        if sha256_file(heights_file) != data.get("sha256"):
            raise MissionError("damaged", file=heights_file, field="sha256", expected=str(data.get("sha256")))
        numbers = {name: _finite(data, name, file) for name in ("gsd_m", "west", "north")}
        separation = data.get("geoid_separation_m")
        if separation is not None:
            separation = _finite(data, "geoid_separation_m", file)
        if data.get("datum") not in DATUMS or numbers["gsd_m"] <= 0:
            found = (data.get("datum"), numbers["gsd_m"])
            raise MissionError("not usable", file=file, field="datum, gsd_m", found=found, expected=" or ".join(DATUMS))
        heights = np.array(load_array(heights_file, np.float32, 2, MissionError))
        place = numbers["gsd_m"], numbers["west"], numbers["north"]
        return cls(heights, *place, data["datum"], separation, str(data.get("source", "")))

    def save(self, folder: str | Path) -> None:
        """Write it as a folder, which appears as a whole."""
        with atomic_folder(folder) as out:
            np.save(out / _HEIGHTS, self.heights)
            write_json(
                out / _MANIFEST,
                {
                    "format_version": _FORMAT_VERSION,
                    "sha256": sha256_file(out / _HEIGHTS),
                    "gsd_m": self.gsd,
                    "west": self.west,
                    "north": self.north,
                    "datum": self.datum,
                    "geoid_separation_m": self.geoid_separation,
                    "source": self.source,
                },
            )

    def at(self, easting: ArrayLike, northing: ArrayLike) -> Array:
        """Height of the ground at places, metres above the datum, between the cells' centres bilinearly.

        NaN where the model says nothing. Up to half a cell beyond the outermost centres their heights go on.
        """
        rows, columns = self.heights.shape
        x = (np.asarray(easting, np.float64) - self.west) / self.gsd - 0.5
        y = (self.north - np.asarray(northing, np.float64)) / self.gsd - 0.5
        inside = (x >= -0.5) & (y >= -0.5) & (x <= columns - 0.5) & (y <= rows - 0.5)
        x, y = (np.clip(np.where(inside, v, 0.0), 0.0, last) for v, last in ((x, columns - 1.0), (y, rows - 1.0)))
        left, top = (np.minimum(v.astype(int), last) for v, last in ((x, columns - 2), (y, rows - 2)))
        a, b = x - left, y - top
        h = self.heights.astype(np.float64, copy=False)
        upper = (1 - a) * h[top, left] + a * h[top, left + 1]
        lower = (1 - a) * h[top + 1, left] + a * h[top + 1, left + 1]
        return np.asarray(np.where(inside, (1 - b) * upper + b * lower, np.nan))

    def around(self, easting: float, northing: float, radius: float) -> tuple[float, float]:
        """Mean and standard deviation of the ground's height within a radius of a place; NaN where nothing is known.

        Args:
            radius: metres; infinite for all of the model.
        """
        rows, columns = self.heights.shape
        x = self.west + (np.arange(columns) + 0.5) * self.gsd - easting
        y = self.north - (np.arange(rows) + 0.5) * self.gsd - northing
        known = self.heights[(np.hypot(x[None], y[:, None]) <= radius) & np.isfinite(self.heights)]
        if len(known) < 2:
            return float(self.at(easting, northing)), 0.0
        return float(np.mean(known, dtype=np.float64)), float(np.std(known, dtype=np.float64))

    def altitude(self, mean_sea_level: float | None, ellipsoid: float | None) -> float:
        """An altitude in the model's own datum, metres: the one given in it, else by the geoid separation.

        Raises:
            FrameError: neither is given, or what is given is in the other datum and no geoid separation is known.
        """
        in_datum, other = (mean_sea_level, ellipsoid) if self.datum == DATUMS[0] else (ellipsoid, mean_sea_level)
        if in_datum is not None:
            return float(in_datum)
        if other is None or self.geoid_separation is None:
            found = "no altitude" if other is None else "an altitude in the other datum, and no geoid separation"
            expected = f"one above the {self.datum.replace('_', ' ')}, as the mission's terrain"
            raise FrameError("not usable", field="altitude", found=found, expected=expected)
        return float(other) + (-self.geoid_separation if self.datum == DATUMS[0] else self.geoid_separation)

    def intersect(self, origin: ArrayLike, direction: ArrayLike) -> Array | None:
        """Where a ray first meets the ground: (3,) easting, northing and height, metres; None if it does not.

        The ray is followed in steps of half a cell until it is below the ground, and the last step is halved until the
        place is exact, so that of a slope the near side is found.

        Args:
            origin: (3,) easting, northing, and altitude in the model's datum, metres.
            direction: (3,) ENU, of any length, pointing down.
        """
        start, along = np.asarray(origin, np.float64), np.asarray(direction, np.float64)
        if not along[2] < 0:
            return None
        along = along / -along[2]  # by metre of descent
        drop = start[2] - float(np.nanmin(self.heights))
        if drop <= 0:
            return None
        slope = float(np.hypot(along[0], along[1]))
        steps = max(2, math.ceil(drop * slope / (0.5 * self.gsd)) + 1)
        descents = np.linspace(0.0, drop, steps)

        def above(descent: ArrayLike) -> Array:
            down = np.asarray(descent, np.float64)[..., None]
            point = start + down * along
            return point[..., 2] - self.at(point[..., 0], point[..., 1])

        over = above(descents)
        below = np.flatnonzero(over <= 0)
        if not len(below) or below[0] == 0 or not over[below[0] - 1] > 0:
            return None
        low, high = descents[below[0] - 1], descents[below[0]]
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if above(middle) > 0 else (low, middle)
        return np.asarray(start + 0.5 * (low + high) * along)

    def __repr__(self) -> str:
        rows, columns = self.heights.shape
        return f"Terrain({columns} x {rows} cells of {self.gsd:.3g} m, above {self.datum.replace('_', ' ')})"


def _finite(data: dict[str, Any], name: str, file: Path) -> float:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise MissionError("not usable", file=file, field=name, found=value, expected="a finite number")
    return float(value)
