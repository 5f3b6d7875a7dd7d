"""What of level ground a camera sees, as a polygon."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.geo import LocalFrame
from cvgl.ground import MAX_SLANT

__all__ = ["border_pixels", "border_rays", "footprint", "footprint_sides", "footprint_wgs84"]

Array = NDArray[np.float64]

_STEEPEST_DEG = math.degrees(math.acos(1 / MAX_SLANT))
# Points on the circle of largest angle off nadir, or on the border of what the lens draws.
_AROUND = 72
# Halvings that find where the image's border leaves what counts as seen.
_HALVINGS = 40
# The border of what the lens draws, from the inside.
_JUST_INSIDE = 1 - 1e-9


def footprint(
    camera: Camera,
    rotation: Array,
    height: float,
    *,
    points_a_side: int = 8,
    off_nadir_deg: float = _STEEPEST_DEG,
) -> Array:
    """Outline (N, 2) of the ground that the camera sees: east and north of the point below it, metres, anticlockwise.

    The sides of a distorted lens are curves, so each side of the image is sampled; what is seen further off nadir than
    a limit (the horizon among it) is cut off along a circle about the point below the camera. Empty where the camera
    sees no ground within it.

    Args:
        rotation: (3, 3) camera to ENU.
        height: of the camera above the ground, metres.
        points_a_side: points that sample a side of the image, 1 or more; 1 suffices for a lens without distortion.
        off_nadir_deg: the limit, below 90.
    """
    steepest = math.cos(math.radians(off_nadir_deg))

    def looking(rays: Array) -> tuple[Array, NDArray[np.bool_]]:
        directions = rays @ rotation.T
        with np.errstate(invalid="ignore"):
            return directions, -directions[:, 2] >= steepest * np.linalg.norm(directions, axis=1)

    def down(pixels: Array) -> tuple[Array, NDArray[np.bool_]]:
        return looking(camera.rays(pixels))

    border, rays = _border(camera, points_a_side)
    directions, seen = looking(rays)
    pieces = [directions[seen]]
    after = np.roll(border, -1, axis=0)
    crossing = np.flatnonzero(seen != np.roll(seen, -1))
    if len(crossing):
        inside = np.where(seen[crossing, None], border[crossing], after[crossing])
        outside = np.where(seen[crossing, None], after[crossing], border[crossing])
        pieces.append(_last_seen(inside, outside, down))
    if not seen.all():
        pieces += [_on_the_limit(camera, rotation, off_nadir_deg), _on_the_lens(camera, down)]
    outline = np.concatenate(pieces)
    if len(outline) < 3:
        return np.empty((0, 2))
    ground = outline[:, :2] / -outline[:, 2:] * height
    # What a camera sees of a disc is convex, or nearly so: its outline runs once around its middle.
    away = ground - ground.mean(axis=0)
    return np.asarray(ground[np.argsort(np.arctan2(away[:, 1], away[:, 0]), kind="stable")])


def footprint_wgs84(
    camera: Camera,
    rotation: Array,
    height: float,
    latitude: float,
    longitude: float,
    *,
    points_a_side: int = 8,
    off_nadir_deg: float = _STEEPEST_DEG,
) -> Array:
    """The same outline as WGS84 degrees (N, 2), latitude and longitude, for an aircraft at a WGS84 position.

    Args:
        latitude, longitude: of the aircraft, degrees.
        camera, rotation, height, points_a_side, off_nadir_deg: as :func:`footprint` takes them.
    """
    local = footprint(camera, rotation, height, points_a_side=points_a_side, off_nadir_deg=off_nadir_deg)
    return np.column_stack(LocalFrame(latitude, longitude).to_wgs84(local[:, 0], local[:, 1]))


def footprint_sides(camera: Camera, height: float) -> tuple[float, float]:
    """Short and long side of the ground that a level camera sees within 60 degrees off nadir, metres."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = camera.rays([[-0.5, -0.5], [right, -0.5], [right, bottom]])[:, :2]
    if not (np.hypot(corners[:, 0], corners[:, 1]) <= math.tan(math.radians(_STEEPEST_DEG))).all():
        outline = footprint(camera, np.diag([1.0, -1.0, -1.0]), height)
        across = np.ptp(outline, axis=0)
        return float(across.min()), float(across.max())
    sides = np.linalg.norm(np.diff(corners * height, axis=0), axis=1)
    return float(sides.min()), float(sides.max())


def border_pixels(camera: Camera, points_a_side: int) -> Array:
    """Pixels (4 N, 2) along the image's outer border, clockwise from its upper left corner."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    steps = np.arange(points_a_side)[:, None] / points_a_side
    return np.vstack([a + (b - a) * steps for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])


@lru_cache(maxsize=16)
def _border(camera: Camera, points_a_side: int) -> tuple[Array, Array]:
    """:func:`border_pixels` and their rays (4 N, 3), which every frame of a flight asks for."""
    pixels = border_pixels(camera, points_a_side)
    return pixels, camera.rays(pixels)


def border_rays(camera: Camera, points_a_side: int) -> Array:
    """Their rays (4 N, 3), z = 1; what lies more than 60 degrees off the axis, or is not drawn, is drawn in to 60."""
    pixels = border_pixels(camera, points_a_side)
    rays = camera.rays(pixels)
    widest = math.tan(math.radians(_STEEPEST_DEG))
    far = ~(np.hypot(rays[:, 0], rays[:, 1]) <= widest)
    ahead = (pixels[far] - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    rays[far, :2] = widest * ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    return rays


def _last_seen(inside: Array, outside: Array, down: Callable[[Array], tuple[Array, NDArray[np.bool_]]]) -> Array:
    """Directions (N, 3) of the last pixels seen on the way from pixels that are to pixels that are not."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (inside + outside)
        seen = down(middle)[1][:, None]
        inside, outside = np.where(seen, middle, inside), np.where(seen, outside, middle)
    return down(inside)[0]


def _on_the_limit(camera: Camera, rotation: Array, off_nadir_deg: float) -> Array:
    """Directions (N, 3) along the circle of the largest angle off nadir that lie in the image."""
    around = 2 * np.pi * np.arange(_AROUND) / _AROUND
    off = math.radians(off_nadir_deg)
    circle = np.column_stack(
        [math.sin(off) * np.sin(around), math.sin(off) * np.cos(around), np.full(_AROUND, -math.cos(off))]
    )
    return circle[_in_image(camera, camera.project(circle @ rotation))]


def _on_the_lens(camera: Camera, down: Callable[[Array], tuple[Array, NDArray[np.bool_]]]) -> Array:
    """Directions (N, 3) along the border of what the lens draws that lie in the image and count as seen."""
    reach = camera.reach
    if not math.isfinite(reach):
        return np.empty((0, 3))
    around = 2 * np.pi * np.arange(_AROUND) / _AROUND
    rays = np.column_stack([reach * np.cos(around), reach * np.sin(around), np.ones(_AROUND)])
    rays[:, :2] *= _JUST_INSIDE
    pixels = camera.project(rays)
    directions, seen = down(pixels[_in_image(camera, pixels)])
    return directions[seen]


def _in_image(camera: Camera, pixels: Array) -> NDArray[np.bool_]:
    low, high = (-0.5, -0.5), (camera.width - 0.5, camera.height - 0.5)
    with np.errstate(invalid="ignore"):
        return np.asarray((pixels >= low).all(axis=1) & (pixels <= high).all(axis=1))
