"""A picture of one answer: the frame, and the basemap where the fix says that it was taken."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.fix import Fix

__all__ = ["debug_image"]

_SIDE = 360
_QUALITY = 80
_GREEN, _RED, _WHITE = (80, 220, 80), (60, 60, 230), (255, 255, 255)


def debug_image(image: NDArray[np.uint8], fix: Fix, gallery: Any) -> bytes:
    """JPEG of the frame beside the north-up basemap around the fix, with its ellipse of two sigma and its heading.

    Args:
        image: (H, W, 3) BGR or (H, W) grey.
        fix: the answer.
        gallery: the mission's gallery, for its basemap and local tangent plane.
    """
    left = _fitted(image)
    right = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    if fix:
        right = _map_around(fix, gallery)
    canvas = np.hstack([left, right])
    color = _GREEN if fix else _RED
    text = fix.status.value + (f": {fix.reason}" if fix.reason else f"  {fix.sigma_m:.1f} m")
    cv2.putText(canvas, text[:90], (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(canvas, text[:90], (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
    _, encoded = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(encoded)


def _fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    color = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    height, width = color.shape[:2]
    size = (max(1, round(width * _SIDE / height)), _SIDE)
    return np.asarray(cv2.resize(color, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _map_around(fix: Fix, gallery: Any) -> NDArray[np.uint8]:
    basemap = gallery.basemap
    easting, northing = (float(v) for v in gallery.local.to_local(fix.latitude, fix.longitude))
    column, row = (easting - basemap.west) / basemap.gsd, (basemap.north - northing) / basemap.gsd
    first = (round(column) - _SIDE // 2, round(row) - _SIDE // 2)
    picture = cv2.cvtColor(basemap.read(*first, _SIDE, _SIDE), cv2.COLOR_GRAY2BGR)
    # OpenCV's pixel centres are integers, the map's lie half a pixel inside.
    center = (round(column - 0.5) - first[0], round(row - 0.5) - first[1])
    if fix.covariance is not None:
        values, vectors = np.linalg.eigh(fix.covariance)
        axes = [max(2, round(2 * float(np.sqrt(value)) / basemap.gsd)) for value in values[::-1]]
        east, north = vectors[:, 1]
        cv2.ellipse(
            picture, center, tuple(axes), float(np.degrees(np.arctan2(-north, east))), 0, 360, _GREEN, 1, cv2.LINE_AA
        )
    if np.isfinite(fix.heading_deg):
        angle = np.radians(fix.heading_deg)
        tip = (round(center[0] + 40 * float(np.sin(angle))), round(center[1] - 40 * float(np.cos(angle))))
        cv2.arrowedLine(picture, center, tip, _WHITE, 1, cv2.LINE_AA)
    return np.asarray(picture, dtype=np.uint8)
