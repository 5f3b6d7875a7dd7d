"""The map's picture behind a report, and where things lie on it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.camera import Camera
from cvgl.errors import GalleryError
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu

__all__ = ["Overview", "footprint", "jpeg_uri"]


@dataclass(frozen=True)
class Overview:
    """A north-up picture of the map.

    Args:
        image: (H, W, 3) BGR.
        gsd: m/px.
        west, north: outer corner of the first pixel (not its centre), metres in ``local``.
        local: the local tangent plane.
    """

    image: NDArray[np.uint8]
    gsd: float
    west: float
    north: float
    local: LocalFrame

    @classmethod
    def read(cls, path: str | Path, gsd: float, west: float, north: float, local: LocalFrame) -> Overview:
        """Read the picture; the arguments are those of the class.

        Raises:
            GalleryError: the file is absent or no image.
        """
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise GalleryError("not readable as an image", file=path)
        return cls(np.asarray(image, dtype=np.uint8), gsd, west, north, local)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.image.shape[1], self.image.shape[0]

    def to_pixel(self, easting: ArrayLike, northing: ArrayLike) -> NDArray[np.float64]:
        """Metres in ``local`` to (N, 2) column and row; the centre of the first pixel is (0, 0)."""
        column = (np.asarray(easting, dtype=np.float64) - self.west) / self.gsd - 0.5
        row = (self.north - np.asarray(northing, dtype=np.float64)) / self.gsd - 0.5
        return np.stack([np.atleast_1d(column), np.atleast_1d(row)], axis=-1)

    def window(self, west: float, south: float, east: float, north: float, longest: int) -> Overview:
        """The part inside some bounds (metres in ``local``, cut at the map's edges), at most ``longest``
        pixels a side.

        Bounds that lie outside the map give its nearest pixel.
        """
        width, height = self.size
        left = int(np.clip(np.floor((west - self.west) / self.gsd), 0, width - 1))
        right = int(np.clip(np.ceil((east - self.west) / self.gsd), left + 1, width))
        top = int(np.clip(np.floor((self.north - north) / self.gsd), 0, height - 1))
        bottom = int(np.clip(np.ceil((self.north - south) / self.gsd), top + 1, height))
        part = self.image[top:bottom, left:right]
        scale = min(1.0, longest / max(part.shape[:2]))
        gsd = self.gsd
        if scale < 1.0:
            size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
            # The sides round differently; the longer one decides the scale, which is off by half a pixel at
            # most.
            gsd *= max(part.shape[:2]) / max(size)
            part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return Overview(part, gsd, self.west + left * self.gsd, self.north - top * self.gsd, self.local)


def jpeg_uri(image: NDArray[np.uint8], quality: int) -> str:
    """An image (H, W[, 3]) as a ``data:`` address."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def footprint(
    camera: Camera, height: float, heading: float, pitch: float = 0.0, roll: float = 0.0
) -> NDArray[np.float64] | None:
    """What a frame sees of flat ground: (5, 2) metres east and north from the camera's foot.

    The four corners (upper left, upper right, lower right, lower left) and the image's middle; None where one
    of them looks above the horizon or nearly so.

    Args:
        camera: the camera.
        height: above ground, metres.
        heading, pitch, roll: degrees, of what carries the camera.
    """
    right, bottom = camera.width - 0.5, camera.height - 0.5
    pixels = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom], camera.center])
    rays = camera.rays(pixels) @ camera_to_enu(camera.mount, heading, pitch, roll).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    if not (rays[:, 2] < -0.1).all():
        return None
    return rays[:, :2] * (height / -rays[:, 2:])
