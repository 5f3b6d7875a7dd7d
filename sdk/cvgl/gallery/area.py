"""A mission area: polygons of a GeoJSON file in the local tangent plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import MapError
from cvgl.files import read_json, sha256_file
from cvgl.geo import LocalFrame

__all__ = ["Area"]


@dataclass(frozen=True)
class Area:
    """Polygons with holes.

    Args:
        path: where they were read.
        polygons: of each its rings, (n, 2) easting and northing in metres, the outer one first.
    """

    path: Path
    polygons: tuple[tuple[NDArray[np.float64], ...], ...]

    @classmethod
    def read(cls, path: str | Path, local: LocalFrame) -> Area:
        """Read a GeoJSON Polygon or MultiPolygon, alone or as features (RFC 7946: WGS84, longitude first).

        Args:
            path: of the file.
            local: the local tangent plane.

        Raises:
            MapError: no such file, not GeoJSON, no polygon in it, or coordinates that are none.
        """
        path = Path(path)
        polygons = []
        for rings in _polygons(read_json(path, MapError), path):
            try:
                points = [np.array([point[:2] for point in ring], np.float64).reshape(-1, 2) for ring in rings]
            except (TypeError, ValueError) as reason:
                raise MapError("not readable as coordinates", file=path, field="coordinates") from reason
            for ring in points:
                inside = np.isfinite(ring).all() and (np.abs(ring) <= (180, 90)).all()
                if len(ring) < 4 or not inside:
                    raise MapError(
                        "not a ring of longitudes and latitudes",
                        file=path,
                        field="coordinates",
                        found=ring[:4].tolist(),
                    )
            polygons.append(tuple(np.stack(local.to_local(ring[:, 1], ring[:, 0]), axis=1) for ring in points))
        if not polygons or any(not rings for rings in polygons):
            raise MapError("no polygon in it", file=path, expected="a Polygon or MultiPolygon")
        return cls(path, tuple(polygons))

    @property
    def sha256(self) -> str:
        """Of the file."""
        return sha256_file(self.path)

    def touches(self, centres: NDArray[np.float64], side_m: float) -> NDArray[np.bool_]:
        """(N,) whether the circles around squares touch the area.

        Args:
            centres: (N, 2) easting and northing of the squares, metres.
            side_m: of the squares, metres.
        """
        reach = side_m * math.sqrt(0.5)
        touched = np.zeros(len(centres), bool)
        for outer, *holes in self.polygons:
            low, high = outer.min(axis=0) - reach, outer.max(axis=0) + reach
            near = np.flatnonzero(~touched & ((centres >= low) & (centres <= high)).all(axis=1))
            # OpenCV computes in single precision, which is too coarse far from the origin.
            middle = outer.mean(axis=0)
            rings = [(ring - middle).astype(np.float32).reshape(-1, 1, 2) for ring in (outer, *holes)]
            for index in near:
                east, north = (float(value) for value in centres[index] - middle)
                inside = cv2.pointPolygonTest(rings[0], (east, north), True) >= -reach
                touched[index] = inside and all(
                    cv2.pointPolygonTest(hole, (east, north), True) <= reach for hole in rings[1:]
                )
        return touched


def _polygons(value: Any, path: Path) -> list[Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "FeatureCollection" and isinstance(value.get("features"), list):
        return [rings for feature in value["features"] for rings in _polygons(feature, path)]
    if kind == "Feature":
        return _polygons(value.get("geometry"), path)
    coordinates = value.get("coordinates") if isinstance(value, dict) else None
    if kind == "GeometryCollection" and isinstance(value.get("geometries"), list):
        return [rings for geometry in value["geometries"] for rings in _polygons(geometry, path)]
    if kind in ("Polygon", "MultiPolygon") and isinstance(coordinates, list):
        return [coordinates] if kind == "Polygon" else coordinates
    raise MapError("not a polygon", file=path, field="type", found=kind, expected="Polygon or MultiPolygon")
