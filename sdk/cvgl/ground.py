"""Where a camera looks on level ground, and where it must be to look there: exact for every tilt.

All metres are east and north, all rotations camera to ENU as :func:`cvgl.geometry.camera_to_enu` makes them.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError

__all__ = ["MAX_SLANT", "aim", "aircraft_from_ground", "ground_from_aircraft", "ground_offset", "ground_points"]

MAX_SLANT = 2.0
"""Ground further from the camera than so many heights, which is 60 degrees off nadir, is not used: it is seen at a
grazing angle, behind what stands in front of it, and a degree of tilt moves it by a tenth of its distance."""

# Points along each axis of the image of which the usable ones are counted.
_GRID = 25

Array = NDArray[np.float64]


def ground_points(camera: Camera, rotation: Array, height: float, pixels: ArrayLike) -> Array:
    """East and north (N, 2) from the point below the camera to the ground points at pixels (N, 2), metres.

    NaN where the lens draws no ray, and further than 60 degrees off nadir.

    Args:
        rotation: (3, 3) camera to ENU.
        height: of the camera above the ground, metres.
    """
    rays = camera.rays(pixels) @ rotation.T
    with np.errstate(invalid="ignore", divide="ignore"):
        points = rays[:, :2] / -rays[:, 2:] * height
    return np.where(_steep(rays)[:, None], points, np.nan)


def ground_offset(
    camera: Camera, rotation: Array, height: float, pixel: ArrayLike | None = None, max_slant: float = MAX_SLANT
) -> Array:
    """East and north (2,) from the point below the camera to the ground point at a pixel, metres.

    Args:
        rotation: (3, 3) camera to ENU, see :func:`cvgl.geometry.camera_to_enu`.
        height: of the camera above the ground, metres.
        pixel: (2,); None for the middle of the image.
        max_slant: how far from the camera the ground point may lie, in heights; 2 for 60 degrees off nadir.

    Raises:
        FrameError: the pixel looks further off nadir than that, or the lens draws no ray there.
    """
    u, v = camera.center.tolist() if pixel is None else np.asarray(pixel, np.float64).tolist()
    # Plain numbers: a frame asks this a few dozen times, and arrays of three take longer to handle than to compute.
    east, north, up = (rotation @ _ray(camera, u, v)).tolist()
    up_share = up / math.sqrt(east * east + north * north + up * up)
    if not up_share <= -1 / max_slant:
        raise FrameError(
            "the camera does not look at the ground",
            field="attitude",
            found=f"{np.degrees(np.arccos(np.clip(-up_share, -1, 1))):.0f} degrees off nadir",
            expected=f"at most {np.degrees(np.arccos(1 / max_slant)):.0f}",
        )
    return np.array([east / -up * height, north / -up * height])


def ground_from_aircraft(
    aircraft: ArrayLike, camera: Camera, rotation: Array, height: float, pixel: ArrayLike | None = None
) -> Array:
    """Easting and northing (2,) of the ground point at a pixel, from the aircraft's; the inverse of
    :func:`aircraft_from_ground`.

    Args:
        aircraft: (2,) easting and northing, metres.
        rotation, height, pixel: as :func:`ground_offset` takes them.

    Raises:
        FrameError: as :func:`ground_offset`.
    """
    return np.asarray(aircraft, np.float64) + ground_offset(camera, rotation, height, pixel)


def aircraft_from_ground(
    ground: ArrayLike, camera: Camera, rotation: Array, height: float, pixel: ArrayLike | None = None
) -> Array:
    """Easting and northing (2,) of the aircraft that sees a ground point at a pixel; the inverse of
    :func:`ground_from_aircraft`.

    Args:
        ground: (2,) easting and northing, metres.
        rotation, height, pixel: as :func:`ground_offset` takes them.

    Raises:
        FrameError: as :func:`ground_offset`.
    """
    return np.asarray(ground, np.float64) - ground_offset(camera, rotation, height, pixel)


def aim(camera: Camera, rotation: Array) -> Array | None:
    """The pixel (2,) in the middle of the part of the image that shows ground within 60 degrees off nadir.

    None where all of the image does: then it is the image's own middle.

    Args:
        rotation: (3, 3) camera to ENU.

    Raises:
        FrameError: no part of it does.
    """
    middle = _aim(camera, np.ascontiguousarray(rotation, np.float64).tobytes())
    if middle is not None and np.isnan(middle).any():
        raise FrameError("the camera does not look at the ground", field="attitude", expected="at most 60 degrees off")
    return None if middle is None else middle.copy()


@lru_cache(maxsize=64)
def _aim(camera: Camera, rotation: bytes) -> Array | None:
    """:func:`aim` of a rotation's nine numbers, NaN where no part shows ground: every stage of a frame asks for it."""
    pixels, rays = _grid(camera)
    usable = _steep(rays @ np.frombuffer(rotation).reshape(3, 3).T)
    if usable.all():
        return None
    return np.asarray(pixels[usable].mean(axis=0)) if usable.any() else np.full(2, np.nan)


def _steep(enu: Array) -> NDArray[np.bool_]:
    """Which directions (N, 3) look down by at most 60 degrees off nadir."""
    return np.asarray(-enu[:, 2] * MAX_SLANT >= np.linalg.norm(enu, axis=1))


@lru_cache(maxsize=64)
def _ray(camera: Camera, u: float, v: float) -> Array:
    """The ray (3,) of a pixel. A frame asks for the same few under every attitude that is tried."""
    return camera.rays((u, v))[0]


@lru_cache(maxsize=8)
def _grid(camera: Camera) -> tuple[Array, Array]:
    """Pixels (N, 2) all over the image up to its edges, and their rays (N, 3), where the lens draws any."""
    u, v = np.meshgrid(*(np.linspace(-0.5, side - 0.5, _GRID) for side in (camera.width, camera.height)))
    pixels = np.column_stack([u.ravel(), v.ravel()])
    rays = camera.rays(pixels)
    drawn = np.isfinite(rays).all(axis=1)
    return pixels[drawn], rays[drawn]
